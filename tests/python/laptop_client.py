"""laptop_client.py: multipart login, chunks of 512 samples as a microphone gives them, events with
an empty timestamp, and no payload_length where there is no payload.

usage: laptop_client.py URL EMAIL PASSWORD
"""

import asyncio

import websockets

from friend_lite import arguments, login_multipart, python_line, socket_url
from speech import paced, pcm

FORMAT = {"rate": 16000, "width": 2, "channels": 1, "timestamp": None}


async def main() -> None:
    url, email, password, _ = arguments()
    token = login_multipart(url, email, password)
    async with websockets.connect(socket_url(url, "/ws_pcm", token, "laptop")) as socket:

        async def show() -> None:
            async for message in socket:
                print(message)

        shown = asyncio.create_task(show())
        start = {"type": "audio-start", "data": FORMAT, "version": "1.0.0"}
        await socket.send(python_line(start))
        async for chunk in paced(pcm(), 1024):
            header = {
                "type": "audio-chunk",
                "data": FORMAT,
                "version": "1.0.0",
                "payload_length": len(chunk),
            }
            await socket.send(python_line(header))
            await socket.send(chunk)
        stop = {"type": "audio-stop", "data": {"timestamp": None}, "version": "1.0.0"}
        await socket.send(python_line(stop))
    await shown


asyncio.run(main())

"""chronicle's audio_stream_client.py: waits for `ready`, starts with a mode, and sends its audio as
events or, on request, as bare binary frames between a start and a stop.

usage: audio_stream_client.py URL EMAIL PASSWORD events|bare
"""

import asyncio
import json

import websockets

from friend_lite import arguments, login, python_line, socket_url
from speech import paced, pcm

FORMAT = {"rate": 16000, "width": 2, "channels": 1}


async def main() -> None:
    url, email, password, (form,) = arguments()
    token = login(url, email, password)
    async with websockets.connect(socket_url(url, "/ws_pcm", token, "robot-test")) as socket:
        ready = json.loads(await asyncio.wait_for(socket.recv(), 10))
        assert ready["type"] == "ready", ready
        start = {"type": "audio-start", "data": {**FORMAT, "mode": "streaming"}, "payload_length": None}
        await socket.send(python_line(start))
        sent = 0
        async for chunk in paced(pcm(), 4096):
            if form == "events":
                header = {"type": "audio-chunk", "data": FORMAT, "payload_length": len(chunk)}
                await socket.send(python_line(header))
            await socket.send(chunk)
            sent += 1
            if sent == 30:
                await socket.send(python_line({"type": "ping", "payload_length": None}))
        await socket.send(python_line({"type": "audio-stop", "data": {"timestamp": None}}))


asyncio.run(main())

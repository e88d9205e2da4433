"""local-omi-bt's send_to_adv.py: waits for `ready` before anything else, says that it streams, and
sends what it decoded from an Omi in pieces of 20 ms, with no version in its events.

usage: send_to_adv.py URL EMAIL PASSWORD
"""

import asyncio
import json

import websockets

from friend_lite import arguments, login, python_line, socket_url
from speech import paced, pcm

FORMAT = {"rate": 16000, "width": 2, "channels": 1}


async def main() -> None:
    url, email, password, _ = arguments()
    token = login(url, email, password)
    async with websockets.connect(socket_url(url, "/ws_pcm", token, "omi-bt")) as socket:
        ready = json.loads(await asyncio.wait_for(socket.recv(), 10))
        assert ready["type"] == "ready", ready
        start = {"type": "audio-start", "data": {**FORMAT, "mode": "streaming"}, "payload_length": None}
        await socket.send(python_line(start))
        async for chunk in paced(pcm(), 640):
            header = {"type": "audio-chunk", "data": FORMAT, "payload_length": len(chunk)}
            await socket.send(python_line(header))
            await socket.send(chunk)
        await socket.send(python_line({"type": "audio-stop", "data": {}, "payload_length": None}))


asyncio.run(main())

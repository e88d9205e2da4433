"""The web page's LiveRecord: a browser on another origin, 100 ms of rest after the socket opens,
chunks of 4096 samples, and a ping that has no data.

usage: live_record.py URL EMAIL PASSWORD
"""

import asyncio

import websockets

from friend_lite import arguments, login, script_line, socket_url
from speech import paced, pcm

FORMAT = {"rate": 16000, "width": 2, "channels": 1}


async def main() -> None:
    url, email, password, _ = arguments()
    token = login(url, email, password)
    address = socket_url(url, "/ws_pcm", token, "webui-simple-recorder")
    origin = "http://localhost:5173"
    async with websockets.connect(address, origin=origin, ping_interval=None) as socket:
        await asyncio.sleep(0.1)
        start = {"type": "audio-start", "data": {**FORMAT, "mode": "streaming"}, "payload_length": None}
        await socket.send(script_line(start))
        sent = 0
        async for chunk in paced(pcm(), 8192):
            header = {"type": "audio-chunk", "data": FORMAT, "payload_length": len(chunk)}
            await socket.send(script_line(header))
            await socket.send(chunk)
            sent += 1
            if sent == 20:
                await socket.send(script_line({"type": "ping", "payload_length": None}))
        await socket.send(script_line({"type": "audio-stop", "data": {}, "payload_length": None}))
        await socket.close()
        # A browser calls the end unclean without it, and some clients connect again then.
        assert socket.protocol.close_rcvd is not None, "the close was not answered"


asyncio.run(main())

"""havpe-relay: connects before there is any audio, then sends bare binary frames of the left
channel of what an ESP32 gives it. Never a start or a stop; gone without a close.

usage: havpe_relay.py URL EMAIL PASSWORD
"""

import asyncio

import websockets

from friend_lite import arguments, login, socket_url
from havpe_board import from_esp32, left_channel
from speech import paced, pcm


async def main() -> None:
    url, email, password, _ = arguments()
    token = login(url, email, password)
    socket = await websockets.connect(socket_url(url, "/ws_pcm", token, "havpe"))
    await asyncio.sleep(1.5)
    async for data in paced(from_esp32(pcm()), 4096, speed=16.0):
        await socket.send(left_channel(data))
    # What is sent is to arrive before the socket is torn down.
    await (await socket.ping())
    socket.transport.abort()


asyncio.run(main())

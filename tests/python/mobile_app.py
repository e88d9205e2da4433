"""The phone app: health check with its token, then either the packets of an Omi over /ws_omi or its
own microphone, for which it appends /ws_pcm to whatever address is saved. Pings have no newline, the
stop has milliseconds, and the socket is closed with a reason.

usage: mobile_app.py URL EMAIL PASSWORD omi PACKETS   (a file: u16 length and packet, repeated)
       mobile_app.py URL EMAIL PASSWORD phone-mic
"""

import asyncio
import json
import struct
import time
from pathlib import Path

import httpx
import websockets

from friend_lite import arguments, login, script_line, socket_url
from speech import paced, pcm

FORMAT = {"rate": 16000, "width": 2, "channels": 1}


def packets(path: str) -> list[bytes]:
    data, found = Path(path).read_bytes(), []
    while data:
        (length,) = struct.unpack_from("<H", data)
        found.append(data[2 : 2 + length])
        data = data[2 + length :]
    return found


async def omi_packets(path: str):
    for packet in packets(path):
        yield packet
        await asyncio.sleep(0.005)


async def main() -> None:
    url, email, password, rest = arguments()
    token = login(url, email, password)
    health = httpx.get(f"{url}/health", headers={"Authorization": f"Bearer {token}"})
    assert health.status_code == 200, health.text
    if rest[0] == "omi":
        path, device, audio = "/ws_omi", "phone", omi_packets(rest[1])
    else:
        path, device, audio = "/ws_omi/ws_pcm", "phone-mic", paced(pcm(), 3200)
    # React Native names the server itself as the origin.
    address = socket_url(url, path, token, device)
    async with websockets.connect(address, origin=url, ping_interval=None) as socket:
        start = {"type": "audio-start", "data": FORMAT, "version": "1.0.0", "payload_length": None}
        await socket.send(script_line(start))
        sent = 0
        async for chunk in audio:
            header = {
                "type": "audio-chunk",
                "data": FORMAT,
                "version": "1.0.0",
                "payload_length": len(chunk),
            }
            await socket.send(script_line(header))
            await socket.send(chunk)
            sent += 1
            if sent % 40 == 0:
                ping = {"type": "ping", "t": int(time.time() * 1000)}
                await socket.send(json.dumps(ping, separators=(",", ":")))
        stop = {
            "type": "audio-stop",
            "data": {"timestamp": int(time.time() * 1000)},
            "version": "1.0.0",
            "payload_length": None,
        }
        await socket.send(script_line(stop))
        await socket.close(1000, "manual-stop")
        # A browser calls the end unclean without it, and some clients connect again then.
        assert socket.protocol.close_rcvd is not None, "the close was not answered"


asyncio.run(main())

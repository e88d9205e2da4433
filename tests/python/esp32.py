"""The Home Assistant Voice PE's firmware: raw samples of its microphone interface over TCP, 32 bits,
stereo, and no framing at all. It just ends.

usage: esp32.py HOST PORT
"""

import asyncio
import sys

from havpe_board import from_esp32
from speech import paced, pcm


async def main() -> None:
    _, writer = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    # lwip sends what fits in a segment, wherever a sample ends.
    async for data in paced(from_esp32(pcm()), 1436, speed=16.0):
        writer.write(data)
        await writer.drain()
    writer.close()


asyncio.run(main())

"""A Wyoming satellite that streams to the daemon, by the `wyoming` package: no `transcribe`, no
`audio-start`, chunks with timestamps, pings on the way, and a stop of streaming.

usage: satellite.py HOST PORT
"""

import asyncio
import sys
import time

from wyoming.audio import AudioChunk
from wyoming.client import AsyncTcpClient
from wyoming.ping import Ping, Pong
from wyoming.pipeline import PipelineStage, RunPipeline
from wyoming.satellite import StreamingStarted, StreamingStopped

from speech import paced, pcm


async def main() -> None:
    async with AsyncTcpClient(sys.argv[1], int(sys.argv[2])) as client:
        run = RunPipeline(start_stage=PipelineStage.WAKE, end_stage=PipelineStage.HANDLE)
        await client.write_event(run.event())
        await client.write_event(StreamingStarted().event())
        sent = 0
        async for audio in paced(pcm(), 2048):
            timestamp = time.monotonic_ns() // 1_000_000
            chunk = AudioChunk(rate=16000, width=2, channels=1, audio=audio, timestamp=timestamp)
            await client.write_event(chunk.event())
            sent += 1
            if sent % 50 == 0:
                await client.write_event(Ping().event())
                pong = await client.read_event()
                assert pong is not None and Pong.is_type(pong.type), pong
        await client.write_event(StreamingStopped().event())


asyncio.run(main())

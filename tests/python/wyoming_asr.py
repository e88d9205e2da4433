"""Asks for transcripts with the `wyoming` package, as Home Assistant does: several clients at
once, each on connections of its own. Prints one JSON object per client.

usage: wyoming_asr.py HOST PORT CLIENTS
"""

import asyncio
import json
import sys
import time

from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from speech import pcm

FORMAT = {"rate": 16000, "width": 2, "channels": 1}


async def describe(host: str, port: int) -> tuple[Info, float]:
    started = time.monotonic()
    async with AsyncTcpClient(host, port) as client:
        await client.write_event(Describe().event())
        event = await client.read_event()
        assert event is not None and Info.is_type(event.type), event
        return Info.from_event(event), time.monotonic() - started


async def transcribe(host: str, port: int, audio: bytes) -> dict:
    """One utterance on a connection of its own, to the end of its transcript."""
    async with AsyncTcpClient(host, port) as client:
        await client.write_event(Ping(text="there?").event())
        pong = await client.read_event()
        assert pong is not None and Pong.from_event(pong).text == "there?", pong
        await client.write_event(Transcribe(language="en").event())
        await client.write_event(AudioStart(**FORMAT).event())
        for at in range(0, len(audio), 2048):
            await client.write_event(AudioChunk(audio=audio[at : at + 2048], **FORMAT).event())
        await client.write_event(AudioStop().event())
        kinds, pieces, text = [], "", None
        while True:
            event = await client.read_event()
            assert event is not None, "the connection was closed without a transcript"
            kinds.append(event.type)
            if TranscriptChunk.is_type(event.type):
                pieces += TranscriptChunk.from_event(event).text
            elif Transcript.is_type(event.type):
                text = Transcript.from_event(event).text
            elif TranscriptStop.is_type(event.type):
                return {"kinds": kinds, "pieces": pieces, "text": text}
            else:
                assert TranscriptStart.is_type(event.type), event


async def client(host: str, port: int) -> dict:
    info, took = await describe(host, port)
    asr = info.asr[0]
    heard = await transcribe(host, port, pcm())
    silent = await transcribe(host, port, b"")
    return {
        "took": took,
        "installed": asr.installed and asr.models[0].installed,
        "streaming": asr.supports_transcript_streaming,
        "languages": asr.models[0].languages,
        "heard": heard,
        "silent": silent,
    }


async def main() -> None:
    host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for result in await asyncio.gather(*(client(host, port) for _ in range(count))):
        print(json.dumps(result))


asyncio.run(main())

"""Real speech for the clients: tests/speech, as 16 kHz mono 16-bit PCM."""

import asyncio
import time
import wave
from pathlib import Path

SPEECH = Path(__file__).resolve().parent.parent / "speech"


def pcm(name: str = "jfk.wav") -> bytes:
    with wave.open(str(SPEECH / name)) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (16000, 2, 1)
        return file.readframes(file.getnframes())


async def paced(audio: bytes, size: int, speed: float = 4.0):
    """Chunks of `size` bytes, as fast as a microphone gives them times `speed`."""
    started = time.monotonic()
    for at in range(0, len(audio), size):
        chunk = audio[at : at + size]
        yield chunk
        due = started + (at + len(chunk)) / 32000 / speed
        await asyncio.sleep(max(0.0, due - time.monotonic()))

"""A stand-in for Deepgram, which cannot be had: deepgram.py PORT MODEL KEY.

Follows the published API of https://developers.deepgram.com (POST /v1/listen and
GET /v1/auth/token). What is said is really heard, by faster-whisper with the
model in the directory MODEL; everybody is speaker 0. Prints `ready PORT`.
"""

import asyncio
import datetime
import hashlib
import io
import os
import sys
import uuid
import wave

import numpy
from aiohttp import web
from faster_whisper import WhisperModel

port, model_dir, key = sys.argv[1:]
model = WhisperModel(model_dir, device="cpu", compute_type="int8", cpu_threads=1)


def error(status: int, code: str, message: str) -> web.Response:
    body = {"err_code": code, "err_msg": message, "request_id": str(uuid.uuid4())}
    return web.json_response(body, status=status)


def refusal(request: web.Request) -> web.Response | None:
    if request.headers.get("Authorization") != f"Token {key}":
        return error(401, "INVALID_AUTH", "Invalid credentials.")
    return None


def hear(samples: numpy.ndarray, language: str | None) -> tuple[list, str]:
    segments, info = model.transcribe(
        samples, language=language, word_timestamps=True, beam_size=1, condition_on_previous_text=False
    )
    words = []
    for segment in segments:
        for word in segment.words:
            words.append(
                {
                    "word": word.word.strip().strip(".,?!").lower(),
                    "start": float(word.start),
                    "end": float(word.end),
                    "confidence": float(word.probability),
                    "punctuated_word": word.word.strip(),
                }
            )
    return words, info.language


async def listen(request: web.Request) -> web.Response:
    if refused := refusal(request):
        return refused
    query = request.query
    if query.get("model") != "nova-3":
        return error(400, "INVALID_QUERY_PARAMETER", "No such model/language/tier combination found.")
    body = await request.read()
    try:
        with wave.open(io.BytesIO(body)) as file:
            rate, samples = file.getframerate(), file.readframes(file.getnframes())
        assert rate == 16000
    except Exception:
        return error(400, "Bad Request", "Bad Request: failed to process audio: corrupt or unsupported data")
    samples = numpy.frombuffer(samples, numpy.int16).astype(numpy.float32) / 32768
    asked = query.get("language", "en")
    words, language = await asyncio.to_thread(hear, samples, None if asked == "multi" else asked)
    diarize, punctuate = (query.get(name) == "true" for name in ("diarize", "punctuate"))
    for word in words:
        if diarize:
            word.update(speaker=0, speaker_confidence=0.9)
        if not punctuate:
            word.pop("punctuated_word")
    text = " ".join(word.get("punctuated_word", word["word"]) for word in words)
    confidence = sum(word["confidence"] for word in words) / max(len(words), 1)
    alternative = {"transcript": text, "confidence": confidence, "words": words}
    if asked == "multi":
        alternative["languages"] = [language] if words else []
    metadata = {
        "transaction_key": "deprecated",
        "request_id": str(uuid.uuid4()),
        "sha256": hashlib.sha256(body).hexdigest(),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "duration": len(samples) / 16000,
        "channels": 1,
        "models": ["stand-in"],
        "model_info": {"stand-in": {"name": "stand-in", "version": "1", "arch": "nova-3"}},
    }
    results = {"channels": [{"alternatives": [alternative]}]}
    return web.json_response({"metadata": metadata, "results": results})


async def token(request: web.Request) -> web.Response:
    return refusal(request) or web.json_response({"api_key_id": "stand-in", "scopes": ["usage:write"]})


async def main() -> None:
    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.post("/v1/listen", listen), web.get("/v1/auth/token", token)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", int(port), reuse_address=True)
    await site.start()
    print("ready", runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())

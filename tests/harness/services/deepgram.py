"""A stand-in for Deepgram, which cannot be had: deepgram.py PORT MODEL KEY.

Follows the published API of https://developers.deepgram.com (POST /v1/listen, the
same as a WebSocket, and GET /v1/auth/token). What is said is really heard, by faster-whisper with the
model in the directory MODEL. Speakers are numbered in the order in which they begin to speak, in each
request anew; there are two of them at most, told apart by the pitch of their voices. With `-` as MODEL
nothing is heard, and two words a second are answered at once, for measuring what the asker costs.
Prints `ready PORT`, and to stderr the seconds of each request that was answered.
"""

import asyncio
import datetime
import hashlib
import io
import json
import sys
import uuid
import wave

import numpy
from aiohttp import WSMsgType, web

port, model_dir, key = sys.argv[1:]
if model_dir != "-":
    from faster_whisper import WhisperModel

    model = WhisperModel(model_dir, device="cpu", compute_type="int8", cpu_threads=1)


METADATA = {
    "request_id": str(uuid.uuid4()),
    "model_info": {"name": "stand-in", "version": "1", "arch": "nova-3"},
    "model_uuid": str(uuid.uuid4()),
}


def error(status: int, code: str, message: str) -> web.Response:
    body = {"err_code": code, "err_msg": message, "request_id": str(uuid.uuid4())}
    return web.json_response(body, status=status)


def refusal(request: web.Request) -> web.Response | None:
    if request.headers.get("Authorization") != f"Token {key}":
        return error(401, "INVALID_AUTH", "Invalid credentials.")
    return None


def made_up(seconds: float) -> list:
    word = {"word": "word", "confidence": 0.9, "punctuated_word": "word", "speaker": "low"}
    return [dict(word, start=at / 2, end=at / 2 + 0.4) for at in range(int(seconds * 2))]


def voice(samples: numpy.ndarray) -> str:
    """Whether somebody speaks in a high or a low voice: by the median pitch of what is loud."""
    pitches = []
    for start in range(0, len(samples) - 1024, 1024):
        frame = samples[start : start + 1024]
        same = numpy.correlate(frame, frame, "full")[1023:]
        period = 40 + int(same[40:250].argmax())
        if same[0] > 0.4 and same[period] > same[0] / 2:
            pitches.append(16000 / period)
    return "high" if pitches and numpy.median(pitches) > 160 else "low"


def hear(samples: numpy.ndarray, language: str | None) -> tuple[list, str]:
    if model_dir == "-":
        return made_up(len(samples) / 16000), "en"
    segments, info = model.transcribe(
        samples, language=language, word_timestamps=True, beam_size=1, condition_on_previous_text=False
    )
    words = []
    for segment in segments:
        speaker = voice(samples[int(segment.start * 16000) : int(segment.end * 16000)])
        for word in segment.words:
            words.append(
                {
                    "word": word.word.strip().strip(".,?!").lower(),
                    "start": float(word.start),
                    "end": float(word.end),
                    "confidence": float(word.probability),
                    "punctuated_word": word.word.strip(),
                    "speaker": speaker,
                }
            )
    return words, info.language


def dress(words: list, speakers: dict, diarize: bool, punctuate: bool) -> tuple[str, float]:
    """Has `words` as they are asked for; `speakers` are the numbers of the voices so far."""
    for word in words:
        speaker = word.pop("speaker")
        if diarize:
            word.update(speaker=speakers.setdefault(speaker, len(speakers)), speaker_confidence=0.9)
        if not punctuate:
            word.pop("punctuated_word")
    text = " ".join(word.get("punctuated_word", word["word"]) for word in words)
    return text, sum(word["confidence"] for word in words) / max(len(words), 1)


def created() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


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
    text, confidence = dress(words, {}, diarize, punctuate)
    alternative = {"transcript": text, "confidence": confidence, "words": words}
    if asked == "multi":
        alternative["languages"] = [language] if words else []
    metadata = {
        "transaction_key": "deprecated",
        "request_id": str(uuid.uuid4()),
        "sha256": hashlib.sha256(body).hexdigest(),
        "created": created(),
        "duration": len(samples) / 16000,
        "channels": 1,
        "models": ["stand-in"],
        "model_info": {"stand-in": {"name": "stand-in", "version": "1", "arch": "nova-3"}},
    }
    results = {"channels": [{"alternatives": [alternative]}]}
    print(f"heard {metadata['duration']:.1f} s", file=sys.stderr, flush=True)
    return web.json_response({"metadata": metadata, "results": results})


class Live:
    """A stream of audio: phrases end at a pause, or when they are long."""

    def __init__(self, query) -> None:
        self.language = None if query.get("language") == "multi" else query.get("language", "en")
        self.diarize, self.punctuate, self.interim = (
            query.get(name) == "true" for name in ("diarize", "punctuate", "interim_results")
        )
        self.speakers = {}
        self.start = 0  # samples before the phrase
        self.phrase = numpy.zeros(0, numpy.float32)
        self.told = 0

    async def result(self, length: int, final: bool, finalized: bool = False) -> dict:
        words, _ = await asyncio.to_thread(hear, self.phrase[:length], self.language)
        offset = self.start / 16000
        for word in words:
            word.update(start=word["start"] + offset, end=word["end"] + offset)
        text, confidence = dress(words, self.speakers, self.diarize, self.punctuate)
        result = {
            "type": "Results",
            "channel_index": [0, 1],
            "start": offset,
            "duration": length / 16000,
            "is_final": final,
            "speech_final": final,
            "from_finalize": finalized,
            "channel": {"alternatives": [{"transcript": text, "confidence": confidence, "words": words}]},
            "metadata": METADATA,
        }
        if final:
            self.start += length
            self.phrase, self.told = self.phrase[length:], 0
        return result

    async def push(self, data: bytes):
        self.phrase = numpy.append(self.phrase, numpy.frombuffer(data, numpy.int16).astype(numpy.float32) / 32768)
        while end := self.end_of_phrase():
            yield await self.result(end, True)
        if self.interim and len(self.phrase) - self.told >= 32000:
            self.told = len(self.phrase)
            yield await self.result(len(self.phrase), False)

    def end_of_phrase(self) -> int:
        """Samples up to the first pause of half a second behind some speech."""
        frames = self.phrase[: len(self.phrase) // 1600 * 1600].reshape(-1, 1600)
        loud = numpy.sqrt((frames**2).mean(axis=1)) > 0.01
        heard, quiet = False, 0
        for number, speech in enumerate(loud):
            heard, quiet = heard or bool(speech), 0 if speech else quiet + 1
            if (heard and quiet >= 5) or number >= 200:
                return (number + 1) * 1600
        return 0


async def stream(request: web.Request) -> web.StreamResponse:
    query = request.query
    if refused := refusal(request):
        return refused
    wanted = ("linear16", "16000", "nova-3")
    if tuple(query.get(name) for name in ("encoding", "sample_rate", "model")) != wanted:
        return error(400, "INVALID_QUERY_PARAMETER", "Unsupported encoding, rate or model.")
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    live = Live(query)
    while True:
        try:
            message = await asyncio.wait_for(socket.receive(), 10)
        except asyncio.TimeoutError:
            await socket.close(code=1011, message=b"NET-0001")
            return socket
        if message.type == WSMsgType.BINARY:
            async for result in live.push(message.data):
                await socket.send_json(result)
        elif message.type == WSMsgType.TEXT:
            kind = json.loads(message.data)["type"]
            if kind in ("Finalize", "CloseStream") and len(live.phrase):
                await socket.send_json(await live.result(len(live.phrase), True, kind == "Finalize"))
            if kind == "CloseStream":
                await socket.send_json({"type": "Metadata", "channels": 1, "duration": live.start / 16000,
                                        "created": created(), **METADATA})
                await socket.close()
                return socket
        else:
            return socket


async def token(request: web.Request) -> web.Response:
    return refusal(request) or web.json_response({"api_key_id": "stand-in", "scopes": ["usage:write"]})


async def main() -> None:
    app = web.Application(client_max_size=2 << 30)
    app.add_routes([web.post("/v1/listen", listen), web.get("/v1/listen", stream), web.get("/v1/auth/token", token)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", int(port), reuse_address=True)
    await site.start()
    print("ready", runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())

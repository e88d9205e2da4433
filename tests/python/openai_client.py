"""Drives /v1 with OpenAI's own client: openai_client.py URL TOKEN AUDIO NOT_AUDIO.

Prints what was heard in each format as one JSON object.
"""

import json
import re
import sys

import openai

url, token, audio, not_audio = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0, timeout=240)
heard = {}


def transcribe(path=audio, **options):
    with open(path, "rb") as file:
        return client.audio.transcriptions.create(file=file, model="whisper-1", **options)


def refused(kind, **expected):
    """Checks that a call fails with that error of the client, and what it says."""

    def check(call):
        try:
            call()
        except kind as error:
            for name, value in expected.items():
                assert getattr(error, name) == value, (name, getattr(error, name), error)
            return str(error)
        raise AssertionError(f"not refused: {kind}")

    return check


def cues(text, stamp):
    """The cues of subtitles as (start, end, text); every line must be accounted for."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        if stamp == ",":
            assert lines.pop(0) == str(len(found) + 1), block
        time = rf"(\d\d):([0-5]\d):([0-5]\d){re.escape(stamp)}(\d\d\d)"
        match = re.fullmatch(f"{time} --> {time}", lines[0])
        assert match and len(lines) == 2 and lines[1], block
        parts = [int(part) for part in match.groups()]
        seconds = [p[0] * 3600 + p[1] * 60 + p[2] + p[3] / 1000 for p in (parts[:4], parts[4:])]
        assert seconds[0] <= seconds[1], block
        found.append((*seconds, lines[1]))
    return found


models = [model.id for model in client.models.list()]
assert models[0] == "whisper-1" and len(models) == 2, models
for model in models:
    assert client.models.retrieve(model).id == model
refused(openai.NotFoundError, code="model_not_found", param="model")(
    lambda: client.models.retrieve("gpt-0")
)

heard["json"] = transcribe(language="en", prompt="A speech.", temperature=0).text
heard["text"] = transcribe(response_format="text")
heard["srt"] = " ".join(cue[2] for cue in cues(transcribe(response_format="srt"), ","))
vtt = transcribe(response_format="vtt")
assert vtt.startswith("WEBVTT\n\n"), vtt
heard["vtt"] = " ".join(cue[2] for cue in cues(vtt.removeprefix("WEBVTT\n\n"), "."))

verbose = transcribe(response_format="verbose_json", timestamp_granularities=["word", "segment"])
heard["verbose_json"] = verbose.text
assert verbose.language == "en" and abs(verbose.duration - 11) < 0.01, verbose
last = 0
for word in verbose.words:
    assert last <= word.start <= word.end <= verbose.duration + 0.5, word
    last = word.start
heard["words"] = " ".join(word.word for word in verbose.words)
heard["segments"] = " ".join(segment.text for segment in verbose.segments)
assert [segment.id for segment in verbose.segments] == list(range(len(verbose.segments)))
assert transcribe(response_format="verbose_json").words is None

message = refused(openai.BadRequestError, param="file")(lambda: transcribe(path=not_audio))
assert "not audio" in message, message
refused(openai.BadRequestError, param="response_format")(
    lambda: transcribe(response_format="diarized_json")
)
refused(openai.BadRequestError, param="language")(lambda: transcribe(language="english"))
refused(openai.AuthenticationError, code="invalid_api_key")(
    lambda: openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0).models.list()
)
print(json.dumps(heard))

"""Checks the stand-in for Deepgram with Deepgram's own client: deepgram_client.py PORT KEY AUDIO
OTHER, where somebody else speaks in OTHER.

Prints what was heard of the file, and what of the same as a stream.
"""

import io
import sys
import wave

from deepgram import DeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment

port, key, audio, other = sys.argv[1:]
url = f"127.0.0.1:{port}"
environment = DeepgramClientEnvironment(
    base=f"http://{url}", production=f"ws://{url}", agent=f"ws://{url}", agent_rest=f"http://{url}"
)


def client(key):
    return DeepgramClient(api_key=key, environment=environment)


def listen(client, file, **options):
    options = {"model": "nova-3", "request_options": {"max_retries": 0}, **options}
    return client.listen.v1.media.transcribe_file(request=file, **options)


def refused(status, call):
    try:
        call()
    except ApiError as error:
        assert error.status_code == status and error.body["err_code"], error
        return
    raise AssertionError("not refused")


file = open(audio, "rb").read()
dg = client(key)
asked = {"smart_format": True, "punctuate": True, "diarize": True}
heard = listen(dg, file, language="en", **asked)
assert abs(heard.metadata.duration - 11) < 0.1 and heard.metadata.channels == 1, heard.metadata
best = heard.results.channels[0].alternatives[0]
assert 0 < best.confidence <= 1
last = 0
for word in best.words:
    assert last <= word.start <= word.end <= 11.5 and 0 <= word.confidence <= 1, word
    assert word.speaker == 0 and word.punctuated_word, word
    last = word.start
joined = io.BytesIO()
with wave.open(other) as source, wave.open(joined, "wb") as sink:
    sink.setparams(source.getparams())
    sink.writeframes(source.readframes(source.getnframes()))
    with wave.open(audio) as source:
        sink.writeframes(source.readframes(source.getnframes()))
both = listen(dg, joined.getvalue(), language="en", **asked).results.channels[0].alternatives[0]
assert both.words[0].speaker == 0 and both.words[-1].speaker == 1, both.words
plain = listen(dg, file, language="multi").results.channels[0].alternatives[0]
asked = plain.words[0].model_dump(exclude_none=True)
assert not {"speaker", "punctuated_word"} & set(asked), asked
refused(401, lambda: listen(client("wrong"), file))
refused(400, lambda: listen(dg, file, model="nova-0"))
refused(400, lambda: listen(dg, b"not audio"))
print(best.transcript)

with wave.open(audio) as source:
    samples = source.readframes(source.getnframes())
options = {"model": "nova-3", "encoding": "linear16", "sample_rate": 16000, "language": "en"}
finals, partials, end = [], 0, None
with dg.listen.v1.connect(punctuate="true", interim_results="true", **options) as socket:
    for start in range(0, len(samples), 8000):
        socket.send_media(samples[start : start + 8000])
    socket.send_keep_alive()
    socket.send_close_stream()
    for message in socket:
        end = message.type
        if message.type != "Results":
            continue
        best = message.channel.alternatives[0]
        if message.is_final:
            assert abs(message.start - sum(length for length, _ in finals)) < 0.01, message
            finals.append((message.duration, best.transcript))
            assert all(message.start <= word.start <= message.start + message.duration + 0.5 for word in best.words)
        else:
            partials += 1
assert end == "Metadata" and partials > 0, (end, partials)
assert abs(sum(length for length, _ in finals) - 11) < 0.1, finals
print(" ".join(text for _, text in finals if text))

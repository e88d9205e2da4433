"""Checks the stand-in for Deepgram with Deepgram's own client: deepgram_client.py PORT KEY AUDIO.

Prints what was heard.
"""

import sys

from deepgram import DeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment

port, key, audio = sys.argv[1:]
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
plain = listen(dg, file, language="multi").results.channels[0].alternatives[0]
asked = plain.words[0].model_dump(exclude_none=True)
assert not {"speaker", "punctuated_word"} & set(asked), asked
refused(401, lambda: listen(client("wrong"), file))
refused(400, lambda: listen(dg, file, model="nova-0"))
refused(400, lambda: listen(dg, b"not audio"))
print(best.transcript)

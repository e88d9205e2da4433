"""Checks the stand-in for Ollama with Ollama's own client: ollama_client.py PORT."""

import json
import sys

import ollama

client = ollama.Client(host=f"http://127.0.0.1:{sys.argv[1]}")
asked = [{"role": "user", "content": "Name a colour and a number as JSON."}]
options = {"temperature": 0, "seed": 1, "num_predict": 60}


def refused(status, text, call):
    try:
        call()
    except ollama.ResponseError as error:
        assert error.status_code == status and text in error.error, (error.status_code, error.error)
        return
    raise AssertionError("not refused")


refused(404, "not found", lambda: client.chat("absent", asked))
steps = list(client.pull("some-chat", stream=True))
assert [step.status for step in steps][:1] == ["pulling manifest"] and steps[-1].status == "success"
assert any(step.total == 1000 and step.completed == 400 for step in steps), steps
refused(-1, "does not exist", lambda: list(client.pull("missing", stream=True)))
assert "some-chat:latest" in [model.model for model in client.list().models]

schema = {
    "type": "object",
    "properties": {"colour": {"type": "string"}, "number": {"type": "integer"}},
    "required": ["colour", "number"],
}
answer = client.chat("some-chat", asked, format=schema, options=options)
assert answer.done and answer.done_reason == "stop", answer
said = json.loads(answer.message.content)
assert isinstance(said["colour"], str) and isinstance(said["number"], int), said
assert json.loads(client.chat("some-chat", asked, format="json", options=options).message.content)
assert client.chat("some-chat", asked, options=options | {"num_predict": 2}).done_reason == "length"
pieces = list(client.chat("some-chat", asked, stream=True, options=options))
assert len(pieces) > 3 and pieces[-1].done and not any(piece.done for piece in pieces[:-1])
whole = client.chat("some-chat", asked, options=options).message.content
assert "".join(piece.message.content for piece in pieces) == whole

client.pull("some-embed")
made = client.embed("some-embed", ["a cat", "a kitten", "interest rates"]).embeddings
assert [len(row) for row in made] == [384] * 3
assert len(client.embed("some-embed", "one " * 2000).embeddings) == 1
refused(400, "length", lambda: client.embed("some-embed", "one " * 2000, truncate=False))

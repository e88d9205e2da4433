"""A stand-in for Ollama, which cannot be had: ollama.py PORT CHAT_MODEL EMBED_MODEL DIR.

Follows https://github.com/ollama/ollama/blob/main/docs/api.md (/api/chat,
/api/embed, /api/tags, /api/pull). What it writes and embeds is really written
and embedded, by llama.cpp. A model that was not pulled is not found; `missing`
can never be. What was pulled is kept in the directory DIR. Prints `ready PORT`.
"""

import asyncio
import datetime
import json
import os
import pathlib
import sys

from aiohttp import ClientSession, web

sys.path.insert(0, os.path.dirname(__file__))
from llama_server import start

port, chat_model, embed_model, dir = sys.argv[1:]
servers = {"chat": start(chat_model, "chat"), "embed": start(embed_model, "embed")}
kept = pathlib.Path(dir, "names.json")
names: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")


def full(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def not_found(name: str) -> web.Response:
    return web.json_response({"error": f"model '{name}' not found"}, status=404)


async def ask(role: str, path: str, body: dict) -> tuple[int, dict]:
    async with ClientSession() as session:
        async with session.post(servers[role].listening_address + path, json=body) as answer:
            return answer.status, await answer.json()


def completion(body: dict) -> dict:
    options = body.get("options", {})
    asked = {
        "messages": body["messages"],
        "temperature": options.get("temperature", 0.8),
        "seed": options.get("seed", 0),
        "max_tokens": options.get("num_predict", -1),
    }
    form = body.get("format")
    if form == "json":
        asked["response_format"] = {"type": "json_object"}
    elif form:
        schema = {"name": "format", "strict": True, "schema": form}
        asked["response_format"] = {"type": "json_schema", "json_schema": schema}
    return asked


async def chat(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    if full(body["model"]) not in names:
        return not_found(body["model"])
    asked = completion(body)

    def message(text: str, **more: object) -> dict:
        said = {"role": "assistant", "content": text}
        return {"model": body["model"], "created_at": now(), "message": said, "done": False, **more}

    def last(text: str, reason: str) -> dict:
        counts = {"total_duration": 1, "load_duration": 1, "prompt_eval_count": 1, "eval_count": 1}
        return message(text, **counts) | {"done": True, "done_reason": reason}

    if body.get("stream") is False:
        status, answer = await ask("chat", "/v1/chat/completions", asked)
        if status != 200:
            return web.json_response({"error": answer["error"]["message"]}, status=status)
        choice = answer["choices"][0]
        return web.json_response(last(choice["message"]["content"], choice["finish_reason"]))
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    reason = "stop"
    async with ClientSession() as session:
        url = servers["chat"].listening_address + "/v1/chat/completions"
        async with session.post(url, json=asked | {"stream": True}) as answer:
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                choice = json.loads(line[6:])["choices"][0]
                reason = choice.get("finish_reason") or reason
                if piece := choice["delta"].get("content"):
                    await response.write(json.dumps(message(piece)).encode() + b"\n")
    await response.write(json.dumps(last("", reason)).encode() + b"\n")
    return response


async def embed(request: web.Request) -> web.Response:
    body = await request.json()
    if full(body["model"]) not in names:
        return not_found(body["model"])
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors = []
    for text in texts:
        # `truncate`: what the model cannot read is left out.
        while True:
            status, answer = await ask("embed", "/v1/embeddings", {"input": [text or " "]})
            if status == 200 or not body.get("truncate", True):
                break
            text = text[: len(text) // 2]
        if status != 200:
            return web.json_response({"error": "the input length exceeds the context length"}, status=400)
        vectors.append(answer["data"][0]["embedding"])
    return web.json_response({"model": body["model"], "embeddings": vectors, "total_duration": 1})


async def tags(_: web.Request) -> web.Response:
    models = [{"name": name, "model": name, "modified_at": now(), "size": 1} for name in names]
    return web.json_response({"models": models})


async def pull(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    steps = [{"status": "pulling manifest"}]
    if body["model"] == "missing":
        steps.append({"error": "pull model manifest: file does not exist"})
    else:
        names[full(body["model"])] = now()
        kept.write_text(json.dumps(names))
        layer = {"status": "pulling 8eeb52dfb3bb", "digest": "sha256:8eeb52dfb3bb", "total": 1000}
        steps += [layer, layer | {"completed": 400}, layer | {"completed": 1000}]
        steps += [{"status": "verifying sha256 digest"}, {"status": "success"}]
    if body.get("stream") is False:
        return web.json_response(steps[-1], status=500 if "error" in steps[-1] else 200)
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    for step in steps:
        await response.write(json.dumps(step).encode() + b"\n")
    return response


async def main() -> None:
    app = web.Application(client_max_size=64 << 20)
    app.add_routes(
        [
            web.post("/api/chat", chat),
            web.post("/api/embed", embed),
            web.post("/api/pull", pull),
            web.get("/api/tags", tags),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", int(port), reuse_address=True)
    await site.start()
    print("ready", runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())

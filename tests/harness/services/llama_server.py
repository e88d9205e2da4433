"""llama.cpp's own server, which speaks OpenAI's API: llama_server.py PORT MODEL KEY ROLE.

ROLE is `chat` or `embed`. Prints `ready PORT` once it answers.
"""

import signal
import sys

import xllamacpp


def start(model: str, role: str, port: int = 0, key: str = "") -> xllamacpp.Server:
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.port = port
    params.n_parallel = 1
    params.warmup = False
    params.n_ctx = 2048
    params.cpuparams.n_threads = 1
    if key:
        params.api_keys = [key]
    if role == "embed":
        params.embedding = True
        params.n_ctx = params.n_batch = params.n_ubatch = 512
    return xllamacpp.Server(params)


if __name__ == "__main__":
    port, model, key, role = sys.argv[1:]
    server = start(model, role, int(port), key)
    print("ready", server.listening_address.rsplit(":", 1)[1], flush=True)
    signal.pause()

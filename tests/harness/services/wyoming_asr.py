"""wyoming-faster-whisper on a port of 127.0.0.1: wyoming_asr.py PORT MODEL.

Prints `ready PORT` once it takes connections.
"""

import socket
import sys
import threading
import time

port, model = sys.argv[1:]
if port == "0":
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])


def tell() -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(port)), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            print("ready", port, flush=True)
            return


threading.Thread(target=tell, daemon=True).start()
sys.argv = f"wyoming_faster_whisper --uri tcp://127.0.0.1:{port} --model {model} --data-dir {model}".split()
sys.argv += "--local-files-only --device cpu --compute-type int8 --language en --beam-size 1".split()
sys.argv += ["--stt-library", "faster-whisper"]

import asyncio
from wyoming_faster_whisper.__main__ import main

asyncio.run(main())

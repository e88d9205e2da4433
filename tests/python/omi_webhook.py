"""The Omi app with a webhook: posts what its device heard in the last second, as raw bytes.

usage: omi_webhook.py URL
"""

import sys
import time

import httpx

from speech import pcm

audio = pcm()
with httpx.Client() as client:
    for at in range(0, len(audio), 32000):
        response = client.post(
            f"{sys.argv[1]}/webhook/audio_bytes",
            params={"sample_rate": 16000, "uid": "mZ8kq2"},
            content=audio[at : at + 32000],
            headers={"Content-Type": "application/octet-stream"},
        )
        assert response.status_code == 200, response.text
        time.sleep(0.2)

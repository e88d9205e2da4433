"""Uploads files as the scripts of Friend-Lite do: upload_files.py era|newest URL EMAIL PASSWORD FILE...

Logs in by form, sends all files in one request by `requests`, and polls what the
answer names until it has ended. Prints the last answers as one JSON object.
"""

import json
import mimetypes
import os
import sys
import time

import requests

age, url, email, password, *files = sys.argv[1:]

answer = requests.post(
    f"{url}/auth/jwt/login",
    data={"username": email, "password": password},
    headers={"Content-Type": "application/x-www-form-urlencoded"},
)
answer.raise_for_status()
headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}


def poll(path, ended):
    deadline = time.monotonic() + 240
    while True:
        answer = requests.get(f"{url}{path}", headers=headers)
        answer.raise_for_status()
        body = answer.json()
        if body["status"] in ended:
            return body
        assert time.monotonic() < deadline, body
        time.sleep(0.5)


opened = [
    ("files", (os.path.basename(path), open(path, "rb"), mimetypes.guess_type(path)[0]))
    for path in files
]
if age == "era":
    path, params = "/api/process-audio-files-async", {
        "device_name": "file_upload_batch",
        "auto_generate_client": True,
    }
else:
    path, params = "/api/audio/upload", {"device_name": "upload"}
answer = requests.post(f"{url}{path}", files=opened, params=params, headers=headers, timeout=120)
answer.raise_for_status()
begun = answer.json()
if age == "era":
    jobs = [poll(f"/api/process-audio-files/jobs/{begun['job_id']}", {"completed", "failed"})]
else:
    jobs = [
        poll(f"/api/queue/jobs/{job}", {"completed", "failed"})
        for file in begun["files"]
        for job in (file["job_id"], file["transcript_job_id"])
    ]
print(json.dumps({"begun": begun, "jobs": jobs}))

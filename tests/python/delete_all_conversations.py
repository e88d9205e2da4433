"""Deletes all conversations, as `delete_all_conversations_api.py` does: the list by client, then
each by the uuid of its audio.

usage: delete_all_conversations.py URL EMAIL PASSWORD
"""

import sys

import httpx


def main(url: str, email: str, password: str) -> None:
    http = httpx.Client(base_url=url, timeout=60)
    form = {"username": email, "password": password}
    token = http.post("/auth/jwt/login", data=form).raise_for_status().json()["access_token"]
    http.headers["Authorization"] = f"Bearer {token}"
    conversations = http.get("/api/conversations").raise_for_status().json()["conversations"]
    deleted = 0
    for client_id, entries in conversations.items():
        for entry in entries:
            answer = http.delete(f"/api/conversations/{entry['audio_uuid']}")
            assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
            body = answer.json()
            assert body["conversation_deleted"] is True, body
            assert body["client_id"] == client_id, body
            assert set(body["deleted_files"]) >= {entry["audio_path"]}, body
            deleted += 1
    left = http.get("/api/conversations").raise_for_status().json()
    assert left == {"conversations": {}}, left
    print(deleted)


main(*sys.argv[1:])

"""Makes the calls of the Streamlit dashboard, in its order, as an administrator.

usage: dashboard.py URL EMAIL PASSWORD CLIENT_ID
"""

import sys
import time

import httpx


def main(url: str, email: str, password: str, client_id: str) -> None:
    http = httpx.Client(base_url=url, timeout=60)

    def call(method: str, path: str, status: int = 200, **options):
        answer = http.request(method, path, **options)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    config = call("GET", "/api/auth/config").json()
    assert config["auth_method"] == "email", config
    form = {"username": email, "password": password}
    token = call("POST", "/auth/jwt/login", data=form).json()["access_token"]
    http.headers["Authorization"] = f"Bearer {token}"
    assert call("GET", "/readiness").json()["status"] == "ready"
    assert call("GET", "/health").json()["status"] in ("healthy", "degraded")
    users = call("GET", "/api/users").json()
    assert any(user["email"] == email and user["id"] for user in users), users
    assert not any("hashed_password" in user for user in users)
    clients = call("GET", "/api/clients/active").json()
    assert clients["active_clients"] == [], clients
    closed = call("POST", f"/api/conversations/{client_id}/close", 404).json()
    assert closed["error"] == f"Client '{client_id}' not found or not connected", closed

    # The conversations page: by client, newest first, each with its players.
    conversations = call("GET", "/api/conversations").json()["conversations"]
    conversation = conversations[client_id][0]
    uuid = conversation["audio_uuid"]
    assert conversation["transcript"][0]["text"] and conversation["has_memory"]
    assert call("HEAD", "/audio/").status_code == 200
    for path in (conversation["audio_path"], conversation["cropped_audio_path"]):
        stamp = {"t": int(time.time()), "r": 1}
        call("HEAD", f"/audio/{path}", params=stamp)
        audio = call("GET", f"/audio/{path}", params=stamp)
        assert audio.headers["content-type"] in ("audio/x-wav", "audio/ogg"), audio.headers
        assert len(audio.content) > 1_000, path
    assert 8 < conversation["cropped_duration"] <= 11.1, conversation["cropped_duration"]
    cropped = call("GET", f"/api/conversations/{uuid}/cropped").json()
    assert cropped["speech_segments"] == conversation["speech_segments"] != []

    call("POST", f"/api/conversations/{uuid}/speakers", params={"speaker_id": "Kennedy"})
    segment = f"/api/conversations/{uuid}/transcript/0"
    edited = call("PUT", segment, params={"speaker_id": "Kennedy"}).json()
    assert edited == {"message": "Transcript segment updated successfully"}, edited
    again = call("PUT", segment, 400, params={"speaker_id": "Kennedy"}).json()
    assert again == {"error": "No changes were made"}, again
    none = call("PUT", segment, 400).json()
    assert none == {"error": "No update parameters provided"}, none
    conversation = call("GET", "/api/conversations").json()["conversations"][client_id][0]
    assert conversation["speakers_identified"] == ["Kennedy"]
    assert conversation["transcript"][0]["speaker"] == "Kennedy"

    # The memories page, and its comparison with the transcripts.
    user_id = conversation["user_id"]
    for params in ({}, {"limit": 100}, {"user_id": user_id, "limit": 50}):
        unfiltered = call("GET", "/api/memories/unfiltered", params=params).json()
        assert unfiltered["includes_fallback"] is True
        assert unfiltered["memories"] and unfiltered["memories"][0]["memory"], unfiltered
        both = call("GET", "/api/memories/with-transcripts", params=params).json()
        memory = both["memories"][0]
        assert memory["audio_uuid"] == uuid and "country" in memory["transcript"], memory
        assert memory["compression_ratio"] > 0

    # The users page, with the names that only this dashboard uses.
    new = {"email": "someone@example.com", "password": "a password of theirs"}
    made = call("POST", "/api/create_user", 201, json=new).json()
    call("POST", "/api/create_user", 409, json=new)
    options = {"user_id": made["user_id"], "delete_conversations": True, "delete_memories": True}
    call("DELETE", "/api/delete_user", params=options)

    # The debug page.
    stats = call("GET", "/api/debug/memory/stats").json()
    assert stats["total_sessions"] == 1 and stats["successful_sessions"] == 1, stats
    sessions = call("GET", "/api/debug/memory/sessions", params={"limit": 20}).json()["sessions"]
    assert sessions[0]["audio_uuid"] == uuid
    session = call("GET", f"/api/debug/memory/session/{uuid}").json()
    assert session["memories"][0]["history"][0]["event"] == "ADD", session
    both = call("GET", f"/api/debug/memory/transcript-vs-memory/{uuid}").json()
    assert both["memory_count"] == len(both["memories"]) > 0
    assert call("GET", "/api/debug/memory/config").json()["memory_extraction"]["enabled"]
    stages = call("GET", f"/api/debug/memory/pipeline/{uuid}").json()["stages"]
    assert [stage["status"] for stage in stages] == ["COMPLETED"] * 4, stages
    print("ok")


main(*sys.argv[1:])

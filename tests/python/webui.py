"""Loads the pages of the React web interface, as an administrator, and talks with the assistant.

usage: webui.py URL EMAIL PASSWORD
"""

import json
import sys
import time

import httpx


def main(url: str, email: str, password: str) -> None:
    http = httpx.Client(base_url=url, timeout=200)

    def call(method: str, path: str, status: int = 200, **options):
        answer = http.request(method, path, **options)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    form = {"username": (None, email), "password": (None, password)}
    token = call("POST", "/auth/jwt/login", files=form)["access_token"]
    http.headers["Authorization"] = f"Bearer {token}"
    me = call("GET", "/users/me")
    assert me["email"] == email and me["is_superuser"], me

    # Conversations, and one with its versions.
    listed = call("GET", "/api/conversations", params={"view": "list"})["conversations"]
    conversation = listed[0]
    path = f"/api/conversations/{conversation['conversation_id']}"
    one = call("GET", path)["conversation"]
    assert isinstance(one["transcript"], str) and one["segments"][0]["text"], one
    assert one["title"] and one["summary"], one
    versions = call("GET", f"{path}/versions")
    assert versions["active_transcript_version"] == "1"
    assert versions["memory_versions"][0]["memory_count"] == one["memory_count"] > 0

    # A new transcript is shown when it is complete, and its memories after it.
    begun = call("POST", f"{path}/reprocess-transcript")
    assert begun["version_id"] == "2" and begun["job_ids"], begun

    def until(done, what: str):
        deadline = time.monotonic() + 200
        while not done(now := call("GET", f"{path}/versions")):
            assert time.monotonic() < deadline, f"{what}: {now}"
            time.sleep(0.3)
        return now

    until(lambda now: now["active_transcript_version"] == "2", "the second transcript")
    now = until(lambda now: now["active_memory_version"] == "2", "its memories")
    assert [version["is_active"] for version in now["transcript_versions"]] == [False, True]
    first, second = (version["transcript"] for version in now["transcript_versions"])
    assert "country" in first and "country" in second, now
    shown = call("GET", path)["conversation"]
    ids = {memory["memory_id"] for memory in one["memories"]}
    assert ids.isdisjoint(memory["memory_id"] for memory in shown["memories"]), shown
    call("POST", f"{path}/activate-memory/1")
    call("POST", f"{path}/activate-transcript/1")
    shown = call("GET", path)["conversation"]
    assert ids == {memory["memory_id"] for memory in shown["memories"]}

    # Memories.
    memories = call("GET", "/api/memories", params={"user_id": me["id"], "limit": 100})
    assert memories["total_count"] == len(memories["memories"]) == len(ids), memories
    question = {"query": "what to do for the country", "limit": 50, "score_threshold": 0.2}
    found = call("GET", "/api/memories/search", params=question)
    assert found["results"] and found["results"][0]["score"] >= 0.2, found
    call("GET", "/api/memories/search", 422, params={**question, "score_threshold": 1.5})
    call("GET", "/api/memories/unfiltered", params={"user_id": me["id"]})
    assert call("GET", "/api/memories/admin")["stats"]["total_memories"] == len(ids)
    assert call("GET", "/api/admin/memories")["total_memories"] == len(ids)

    # Users and the system.
    assert call("GET", "/api/users")[0]["_id"]
    for page in ("/api/clients/active", "/health", "/readiness", "/api/auth/config"):
        call("GET", page)

    # The assistant.
    assert call("GET", "/api/chat/health")["status"] == "healthy"
    session = call("POST", "/api/chat/sessions", json={"title": "Speeches"})
    events = []
    body = {"message": "What should I ask about my country?", "session_id": session["session_id"]}
    with http.stream("POST", "/api/chat/send", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream"), answer.headers
        for line in answer.iter_lines():
            if line.startswith("data: "):
                events.append(line.removeprefix("data: "))
    assert events.pop() == "[DONE]"
    events = [json.loads(event) for event in events]
    tokens = [event["data"]["token"] for event in events[1:-1]]
    kinds = [event["type"] for event in events]
    assert kinds == ["memory_context", *["token"] * len(tokens), "complete"], events
    assert len(tokens) > 1, events  # Told while it is written.
    assert events[0]["data"]["memory_count"] > 0, events
    messages = call("GET", f"/api/chat/sessions/{session['session_id']}/messages")
    assert [message["role"] for message in messages] == ["user", "assistant"], messages
    assert messages[1]["content"] == "".join(tokens).strip() == events[-1]["data"]["content"]
    assert set(messages[1]["memories_used"]) <= ids
    assert call("GET", "/api/chat/sessions")[0]["message_count"] == 2
    assert call("GET", "/api/chat/statistics")["total_messages"] == 2
    print(messages[1]["content"])
    call("DELETE", f"/api/chat/sessions/{session['session_id']}")
    assert call("GET", "/api/chat/sessions") == []


main(*sys.argv[1:])

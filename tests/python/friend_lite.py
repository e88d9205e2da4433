"""What the socket clients share: a login, and the frames of the socket.

Clients write JSON in two ways: Python's with spaces, JavaScript's without.
"""

import json
import sys

import httpx


def arguments() -> tuple[str, str, str, list[str]]:
    """URL of the daemon, e-mail address, password, and what else was given."""
    url, email, password, *rest = sys.argv[1:]
    return url, email, password, rest


def login(url: str, email: str, password: str) -> str:
    """As forms are sent by default: urlencoded."""
    form = {"username": email, "password": password}
    return token(httpx.post(f"{url}/auth/jwt/login", data=form))


def login_multipart(url: str, email: str, password: str) -> str:
    form = {"username": (None, email), "password": (None, password)}
    return token(httpx.post(f"{url}/auth/jwt/login", files=form))


def token(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["token_type"] == "bearer", body
    return body["access_token"]


def socket_url(url: str, path: str, token: str, device: str) -> str:
    return f"{url.replace('http', 'ws', 1)}{path}?token={token}&device_name={device}"


def python_line(header: dict) -> str:
    return json.dumps(header) + "\n"


def script_line(header: dict) -> str:
    return json.dumps(header, separators=(",", ":")) + "\n"

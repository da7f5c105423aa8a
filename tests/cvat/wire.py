"""Replay of requests that were recorded with a real server, and comparison of the answers."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from datetime import datetime
from http.client import HTTPConnection, HTTPResponse
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from PIL import Image

from tests.cvat.stand_in import StandIn

SECRET = "***"
DATES = {"last_login", "date_joined"}


def read_wire(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Replayer:
    """Sends recorded requests to a stand-in, with its cookies and tokens in place of the hidden ones."""

    def __init__(self, server: StandIn) -> None:
        self._server = server
        self._cookies: SimpleCookie = SimpleCookie()
        self._tokens: dict[bool, str] = {}

    def send(self, recorded: dict[str, Any]) -> tuple[HTTPResponse, Any]:
        """The answer and its body (JSON if it is some, else bytes)."""
        request = recorded["request"]
        path, headers = recorded["path"], dict(request["headers"])
        if "Cookie" in headers:
            headers["Cookie"] = self._cookies.output(attrs=[], header="", sep=";").strip()
        if "X-CSRFToken" in headers:
            headers["X-CSRFToken"] = self._cookies["csrftoken"].value
        if "Authorization" in headers:
            headers["Authorization"] = "Bearer " + self._tokens["read-only" in recorded["scene"]]
        body = json.dumps(self._visible(request["body"])).encode() if request["body"] is not None else None
        if "Upload-Multiple" in headers:
            body, headers["Content-Type"] = multipart(sum(name == "c" for name, _ in request["fields"]))
        elif request["fields"]:
            path += "?" + urlencode(list(map(tuple, request["fields"])))
        connection = HTTPConnection("127.0.0.1", self._server.port, timeout=30)
        connection.request(recorded["method"], path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self._learn(recorded["path"], answer, content)
        return answer, json.loads(content) if "json" in (answer.getheader("Content-Type") or "") else content

    def _visible(self, body: Any) -> Any:
        if isinstance(body, dict) and body.get("password") == SECRET:
            return {**body, "password": self._server.password}
        return body

    def _learn(self, path: str, answer: HTTPResponse, content: bytes) -> None:
        for cookie in answer.headers.get_all("Set-Cookie") or []:
            self._cookies.load(cookie)
        if path == "/api/auth/access_tokens":
            token = json.loads(content)
            self._tokens[token["read_only"]] = token["value"]


def multipart(count: int) -> tuple[bytes, str]:
    """A body with ``count`` images; a single one is a file that is no image."""
    parts = [b'Content-Disposition: form-data; name="image_quality"\r\n\r\n70']
    for number in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 48), (number, 0, 0)).save(buffer, "PNG")
        name, content = (f"img{number}.png", buffer.getvalue()) if count > 1 else ("broken.png", b"no image at all")
        head = f'Content-Disposition: form-data; name="client_files[{number}]"; filename="/some/where/{name}"\r\n\r\n'
        parts.append(head.encode() + content)
    joined = b"".join(b"--limit\r\n" + part + b"\r\n" for part in parts) + b"--limit--\r\n"
    return joined, "multipart/form-data; boundary=limit"


def differences(recorded: Any, answered: Any, where: str = "", key: str = "") -> Iterator[str]:
    """What is not as recorded; dates, secrets, generated colours and free text may differ in their value."""
    if isinstance(recorded, dict) and isinstance(answered, dict):
        for name in sorted(recorded.keys() | answered.keys()):
            place = f"{where}.{name}"
            if name not in answered:
                yield f"{place} is missing"
            elif name not in recorded:
                yield f"{place} is not on the real server: {answered[name]!r}"
            else:
                yield from differences(recorded[name], answered[name], place, name)
    elif isinstance(recorded, list) and isinstance(answered, list) and len(recorded) == len(answered):
        for place, (left, right) in enumerate(zip(recorded, answered, strict=True)):
            yield from differences(left, right, f"{where}[{place}]", key)
    elif not alike(recorded, answered, key):
        yield f"{where}: recorded {recorded!r}, answered {answered!r}"


def alike(recorded: Any, answered: Any, key: str) -> bool:
    if isinstance(recorded, str) and isinstance(answered, str):
        if recorded == SECRET or key == "description":
            return bool(answered)
        if key.endswith("_date") or key in DATES:
            return bool(datetime.fromisoformat(answered))
        if key == "color" and recorded != "#ff0000":
            return re.fullmatch("#[0-9a-f]{6}", answered) is not None
        if key == "message" and recorded.startswith("Traceback"):
            return answered.startswith("Traceback") and answered.endswith(recorded.partition("… ")[2])
        return without_host(recorded) == without_host(answered)
    return type(recorded) in {type(answered), int, float} and recorded == answered


def without_host(text: str) -> str:
    return re.sub(r"^http://127\.0\.0\.1:\d+", "", text)


def header_differences(recorded: dict[str, str], answer: HTTPResponse) -> Iterator[str]:
    """Content type, allowed methods and location; of cookies the names."""
    for name, value in recorded.items():
        sent = answer.getheader(name) or ""
        if name == "set-cookie":
            sent = ", ".join(sorted(cookie.partition("=")[0] for cookie in answer.headers.get_all(name) or []))
        if without_host(sent) != without_host(value):
            yield f"header {name}: recorded {value!r}, answered {sent!r}"

"""Requests, responses and errors of the stand-in, without any knowledge of CVAT."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

JSON_TYPE = "application/vnd.cvat+json"


class ApiError(Exception):
    """An answer that is not a success: ``status`` and a JSON ``body``."""

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status}: {body}")
        self.status, self.body, self.headers = status, body, headers or {}


def not_found(model: str) -> ApiError:
    """404 as the server words it, e.g. for ``"Task"``."""
    return ApiError(404, {"detail": f"No {model} matches the given query."})


def forbidden() -> ApiError:
    return ApiError(403, {"detail": "You do not have permission to perform this action."})


@dataclass
class Response:
    """``body`` is bytes as they are, None for nothing, anything else as JSON; a ``stream`` is sent bit by bit."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cookies: list[str] = field(default_factory=list)
    stream: Iterator[bytes] | None = None

    def encoded(self) -> bytes:
        if self.body is None:
            return b""
        if isinstance(self.body, bytes):
            return self.body
        return json.dumps(self.body).encode()


@dataclass
class UploadedFile:
    field: str
    name: str
    content: bytes


@dataclass
class Request:
    """One request; ``headers`` by lower-case name, ``user`` once it is known who asks."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes
    base_url: str
    user: dict[str, Any] | None = None
    token: dict[str, Any] | None = None

    @classmethod
    def parse(cls, method: str, target: str, headers: dict[str, str], body: bytes, base_url: str) -> Request:
        parts = urlsplit(target)
        return cls(method, unquote(parts.path), parse_qsl(parts.query, keep_blank_values=True), headers, body, base_url)

    def arg(self, name: str, default: str | None = None) -> str | None:
        """Last value of a query parameter."""
        return dict(self.query).get(name, default)

    def flag(self, name: str) -> bool:
        return (self.arg(name) or "").lower() in {"true", "1"}

    def url(self, path: str, **query: object) -> str:
        return self.base_url + path + ("?" + urlencode(query) if query else "")

    def json(self) -> Any:
        """The body as JSON, ``{}`` when there is none; 400 when it is no JSON."""
        if not self.body:
            return {}
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ApiError(400, {"detail": f"JSON parse error - {error}"}) from error

    def json_object(self) -> dict[str, Any]:
        body = self.json()
        if not isinstance(body, dict):
            kind = type(body).__name__
            raise ApiError(400, {"non_field_errors": [f"Invalid data. Expected a dictionary, but got {kind}."]})
        return body

    def form(self) -> tuple[dict[str, str], list[UploadedFile]]:
        """Fields and files of a multipart body."""
        match = re.search(r"boundary=\"?([^\";]+)", self.headers.get("content-type", ""))
        if match is None:
            raise ApiError(400, {"detail": "Multipart form parse error - Invalid boundary in multipart: None"})
        fields: dict[str, str] = {}
        files = []
        for part in self.body.split(b"--" + match[1].encode())[1:-1]:
            head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            content = content.removesuffix(b"\r\n")
            disposition = head.decode()
            name = re.search(r'[ ;]name="([^"]*)"', disposition)
            filename = re.search(r'filename="([^"]*)"', disposition)
            if filename:
                files.append(UploadedFile(name[1] if name else "", unquote(filename[1]), content))
            elif name:
                fields[name[1]] = content.decode()
        return fields, files

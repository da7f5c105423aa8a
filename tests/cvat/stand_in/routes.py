"""Which function answers which method and path."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .http import ApiError, Request

Handler = Callable[..., Any]
ORDER = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Route:
    method: str
    template: str
    pattern: re.Pattern[str]
    handler: Handler
    public: bool


ROUTES: list[Route] = []


def route(method: str, template: str, *, public: bool = False) -> Callable[[Handler], Handler]:
    """Register ``handler(site, request, **parts)``.

    ``{id}`` is a number, ``{upload}`` the name of an upload, any other part a text without a slash; a slash at the
    end may be left out.
    """
    kinds = {"id": r"\d+", "upload": r"\d+_[0-9a-f-]{36}"}

    def part(match: re.Match[str]) -> str:
        return f"(?P<{match[1]}>{kinds.get(match[1], '[^/]+')})"

    pattern = re.sub(r"\{(\w+)\}", part, template)
    pattern = re.compile(pattern + "?" if pattern.endswith("/") else pattern)

    def register(handler: Handler) -> Handler:
        ROUTES.append(Route(method, template, pattern, handler, public))
        return handler

    return register


def allowed(path: str) -> list[str]:
    """Methods of a path in the order of the ``Allow`` header, none if the path is unknown."""
    methods = {route.method for route in ROUTES if route.pattern.fullmatch(path)}
    if not methods:
        return []
    listed = [method for method in ORDER if method in methods]
    return [*listed, *(["HEAD"] if "GET" in methods else []), "OPTIONS"]


def find(request: Request) -> tuple[Route, dict[str, Any]]:
    """The route of a request and the parts of its path; 404 or 405 when there is none."""
    for candidate in ROUTES:
        match = candidate.pattern.fullmatch(request.path)
        if match and candidate.method == request.method:
            parts: dict[str, Any] = match.groupdict()
            if "id" in parts:
                parts["id"] = int(parts["id"])
            return candidate, parts
    if allowed(request.path):
        raise ApiError(405, {"detail": f'Method "{request.method}" not allowed.'})
    raise ApiError(404, {"detail": "Not found."})

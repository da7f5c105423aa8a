"""What a CVAT server can answer that is no success, in words that name the remedy and no secret."""

from __future__ import annotations

import json
import re
from typing import Any

from autolabel.errors import ServerError


class UncertainError(ServerError):
    """A writing request got no usable answer: the server may have carried it out or not. Read before trying again."""


class GoneError(ServerError):
    """What was asked for is not there (404): deleted meanwhile, or never visible to this user."""


class TooLargeError(ServerError):
    """The server, or a proxy before it, takes no request of this size (413)."""


class DeniedError(ServerError):
    """The server refuses who asks (403)."""


class StrangerError(DeniedError):
    """The server does not know who asks, or not any more (401)."""


class StuckError(ServerError):
    """The server has work of ours in its queue and does not get on with it."""


def refuse(method: str, path: str, status: int, data: bytes) -> ServerError:  # noqa: PLR0911
    """Make the error for an answer ``status`` to ``method path``."""
    said = detail(data)
    asked = f"{method} {path}"
    if status == 401:
        return StrangerError(
            "the server does not accept the access token (401): it is wrong, expired or revoked. Make a new one in "
            "CVAT (user menu, Profile, Security, Access tokens) and set CVAT_ACCESS_TOKEN"
        )
    if status == 403:
        return DeniedError(_forbidden(method, path, said))
    if status == 404:
        return GoneError(f"the server has no {path} (404{said}): it was deleted meanwhile, or this user may not see it")
    if status == 413:
        return TooLargeError(
            f"{asked}: the server takes no request of this size (413); raise the proxy's client_max_body_size"
        )
    if status == 429:
        return ServerError(f"{asked}: the server still asks to slow down (429) after several tries; try again later")
    if status >= 500:
        kind = ServerError if method in {"GET", "HEAD"} else UncertainError
        return kind(f"{asked}: the server failed ({status}{said}); try again: a sync continues where it was")
    return ServerError(f"{asked}: the server refused ({status}{said})")


def detail(data: bytes) -> str:
    """Shorten an answer's body to what it says in words: ": text", or nothing for a page of HTML."""
    try:
        words = _words(json.loads(data))
    except ValueError:
        return ""
    text = re.sub(r"\s+", " ", "; ".join(words)).strip()
    return f": {text[:300]}" if text else ""


def _words(value: Any, name: str = "") -> list[str]:
    if isinstance(value, dict):
        return [word for key, inner in value.items() for word in _words(inner, "" if key == "detail" else str(key))]
    if isinstance(value, list):
        return [word for inner in value for word in _words(inner, name)]
    return [f"{name}: {value}" if name else str(value)]


def _forbidden(method: str, path: str, said: str) -> str:
    if method in {"GET", "HEAD"}:
        need = f"to see {path}: ask its owner to assign you, or to invite you to the organization"
        return f"this user may not read (403{said}); it lacks the right {need}"
    right = {
        "/api/projects": "to create projects (CVAT's role 'user' or higher, in an organization 'worker' or higher)",
        "/api/tasks": "to create tasks in the project (its owner, assignee, or a maintainer)",
        "/api/issues": "to open review issues on the job (its assignee, or a maintainer)",
    }.get(path, "to change annotations of the task (its owner or assignee, or a maintainer)")
    return (
        f"this user may not write (403{said}); it lacks the right {right}. An access token is read-only unless it was "
        "made with 'read only' switched off: make a new one, or ask the project's owner for the right"
    )

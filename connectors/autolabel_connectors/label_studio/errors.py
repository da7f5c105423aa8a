"""What a Label Studio server can answer that is no success, in words that name the remedy."""

from __future__ import annotations

from typing import Any

import httpx

from autolabel.errors import ServerError as AnyServerError


class ServerError(AnyServerError):
    """Label Studio refused something or did not answer; the message says what and what to do."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class UnsureError(ServerError):
    """A request may have been executed or not: its answer was lost. Look before sending it again."""


class TooLargeError(ServerError):
    """The server, or a proxy before it, takes no request of this size (413)."""


class MissingError(ServerError):
    """What was asked for is not there (404)."""


def read_json(response: httpx.Response) -> Any:
    """Return an answer's JSON; raises ServerError where it is something else."""
    try:
        return response.json()
    except ValueError:
        raise ServerError(
            f"{response.request.url.path}: the answer is not JSON but "
            f"{response.headers.get('content-type', 'something else')}; is this Label Studio's address?"
        ) from None


_RIGHTS = (
    ("/import", "import tasks and predictions (the right to change the project)"),
    ("/file-uploads", "see or delete uploaded files (the right to change the project)"),
    ("/api/predictions", "change predictions"),
    ("/api/dm/", "manage tasks and tabs of the project"),
    ("/api/storages", "manage storages of the project"),
    ("/api/tasks", "see or change tasks of the project"),
    ("/api/projects", "see or create projects"),
)


def lacking_right(request: httpx.Request) -> str:
    """Name what a user may not do who is refused a request, and who can help."""
    right = next((right for piece, right in _RIGHTS if piece in request.url.path), "do this")
    return f"{right}; ask an administrator of the organisation or of the project for it"


def detail_of(response: httpx.Response) -> str:
    """Say shortly what an error answer says: its ``detail`` and ``validation_errors``, or the text of a page."""
    try:
        values = response.json()
    except ValueError:
        return "" if "<" in response.text else " ".join(response.text.split())[:300]
    if isinstance(values, dict):
        parts = [str(values[key]) for key in ("detail", "validation_errors", "error") if values.get(key)]
        return " ".join((" ".join(parts) or str(values)).split())[:600]
    return " ".join(str(values).split())[:600]

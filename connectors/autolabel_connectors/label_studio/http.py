"""The HTTP layer below the SDK: one connection with its token, patience, and errors that name the remedy.

Where a request may have been executed or not (the answer was lost, 5xx) and is not to be executed twice, `UnsureError`
is raised, and the caller looks at what the server holds before it sends anything again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
from pydantic_core import to_json

from autolabel.errors import UsageError
from autolabel_connectors.label_studio.errors import (
    MissingError,
    ServerError,
    TooLargeError,
    UnsureError,
    detail_of,
    lacking_right,
    read_json,
)
from autolabel_connectors.label_studio.retrying import (
    NOT_TAKEN,
    REPEATABLE,
    TROUBLE,
    Patience,
    Retrying,
    open_transport,
    repeatable,
)
from autolabel_connectors.label_studio.signing import TokenAuth

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

_TIMEOUT = httpx.Timeout(connect=10.0, read=180.0, write=180.0, pool=30.0)
_DOING: ContextVar[str] = ContextVar("doing", default="")


class Api:
    """One server, signed in: ``asking`` lends the SDK, `request` is for bulk calls; both raise the errors here."""

    def __init__(self, url: str, token: str, patience: Patience | None = None, timeout_s: float | None = None) -> None:
        self.url = _checked_url(url)
        self._token = _checked_token(token, self.url)
        self._sdk: LabelStudio | None = None
        self._http = httpx.Client(
            transport=Retrying(open_transport(self.url), patience or Patience()),
            auth=TokenAuth(self._token, self.url),
            timeout=_TIMEOUT if timeout_s is None else httpx.Timeout(timeout_s),
            headers={"User-Agent": "autolabel"},
            event_hooks={"response": [self._check]},
        )

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @contextmanager
    def asking(self, doing: str) -> Iterator[LabelStudio]:
        """Lend the official SDK over the same connection, retries and token; ``doing`` is for error messages."""
        if self._sdk is None:
            from label_studio_sdk import LabelStudio

            # The token is put in, and repeating decided, by the connection below.
            self._sdk = LabelStudio(  # type: ignore[no-untyped-call]
                base_url=self.url, api_key="below", httpx_client=self._http, max_retries=0
            )
        with self._errors(doing):
            yield self._sdk

    def get(self, path: str, params: Mapping[str, Any] | None = None, doing: str = "") -> Any:
        """Read JSON."""
        return self.request("GET", path, params=params, doing=doing)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        body: Any = None,
        files: Sequence[tuple[str, tuple[str, bytes, str]]] | None = None,
        repeatable: bool = False,
        doing: str = "",
    ) -> Any:
        """Send a request with JSON (``body``, or ``content`` that is JSON already) or files; return the answer's JSON.

        ``doing`` says in an error what it was for. Raises `UnsureError` where a POST may have been executed,
        `TooLargeError`, `MissingError`, or another `ServerError`.
        """
        headers = {}
        if body is not None:
            content = to_json(body)
        if content is not None:
            headers["Content-Type"] = "application/json"
        with self._errors(doing or f"{method} {path}"):
            response = self._http.request(
                method,
                f"{self.url}{path}",
                params=params,
                content=content,
                files=files,
                headers=headers,
                extensions={REPEATABLE: True} if repeatable else {},
            )
        return None if response.status_code == 204 or not response.content else read_json(response)

    def exists(self, path: str) -> bool:
        """Tell whether the server serves a file."""
        try:
            with self._errors(f"look for {path}"):
                self._http.get(f"{self.url}{path}", headers={"Range": "bytes=0-0"})
        except ServerError as error:
            if error.status in (403, 404):
                return False
            raise
        return True

    def redact(self, text: str) -> str:
        """Take the token out of a text."""
        return text.replace(self._token, "***")

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """Turn a lost connection into an error of ours."""
        before = _DOING.set(doing)
        try:
            yield
        except httpx.TransportError as error:
            reason = self.redact(f"{type(error).__name__} {error}".strip())
            if not repeatable(error.request) and not isinstance(error, NOT_TAKEN):
                raise UnsureError(f"{doing}: the connection to {self.url} was lost ({reason})") from None
            raise ServerError(
                f"{doing}: {self.url} cannot be reached ({reason}); check the address and that the server runs, then "
                "run the same command again: it goes on where it stopped"
            ) from None
        finally:
            _DOING.reset(before)

    def _check(self, response: httpx.Response) -> None:
        """Raise the error that an answer stands for; 401 is left to the auth, which may have a remedy."""
        status, what = response.status_code, _DOING.get()
        response.read()
        if response.is_success or status == 401:
            return
        text = self.redact(detail_of(response))
        if status == 403:
            raise ServerError(
                f"{what}: this token's user may not {lacking_right(response.request)} ({text or 403})", status
            )
        if status == 404:
            raise MissingError(f"{what}: Label Studio at {self.url} does not have it ({text or 404})", status)
        if status == 413:
            raise TooLargeError(f"{what}: the request is too large for {self.url} ({text or 413})", status)
        if response.is_redirect:
            place = self.redact(response.headers.get("location", ""))
            raise ServerError(f"{what}: {self.url} sends us to {place}; give that address as --url", status)
        if status in TROUBLE and not repeatable(response.request):
            raise UnsureError(f"{what}: {self.url} answered {status} ({text})", status)
        if status in TROUBLE or status == 429:
            raise ServerError(
                f"{what}: {self.url} is in trouble ({status}: {text}); run the same command again later", status
            )
        raise ServerError(f"{what}: {self.url} refused it ({status}: {text})", status)


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise UsageError(
            "take user and password out of Label Studio's address; it is signed in to by token (LABEL_STUDIO_API_KEY)"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"Label Studio's address must begin with http:// or https://, got {url!r}")
    return url.rstrip("/")


def _checked_token(token: str, url: str) -> str:
    if not token:
        raise UsageError(
            f"no token for Label Studio at {url}; copy one from Account & Settings there and set LABEL_STUDIO_API_KEY"
        )
    if any(not 33 <= ord(letter) <= 126 for letter in token):
        raise UsageError("the Label Studio token has characters that no token has; copy it again, without spaces")
    return token

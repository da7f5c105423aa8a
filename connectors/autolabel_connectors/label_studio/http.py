"""The HTTP layer below the SDK: tokens, patience with a server in trouble, and errors that name the remedy.

A request is repeated when that cannot do anything twice: reads, and writes that set or delete what they name (GET, PUT,
PATCH, DELETE, and a POST marked ``repeatable``). Another POST is repeated only when the server certainly did not take
it: no connection, or an answer of 429. Where it may have been executed (the answer was lost, 5xx), `UnsureError` is
raised, and the caller looks at what the server holds before it sends anything again.
"""

from __future__ import annotations

import base64
import email.utils
import json
import random
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
from pydantic_core import to_json

from autolabel.errors import AutolabelError, UsageError

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

REPEATABLE = "autolabel_repeatable"
"""Extension of a request: executing it twice is the same as once."""

_HARMLESS_TWICE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})
_TROUBLE = frozenset({500, 502, 503, 504, 507, 508, 520, 521, 522, 523, 524})
_NOT_TAKEN = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_TIMEOUT = httpx.Timeout(connect=10.0, read=180.0, write=180.0, pool=30.0)
_DOING: ContextVar[str] = ContextVar("doing", default="")
_NEW_TOKEN = "copy a new one from Account & Settings there and set LABEL_STUDIO_API_KEY"


class ServerError(AutolabelError):
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


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on: waits double from ``first_s`` to ``longest_s`` until ``limit_s`` of trouble have passed."""

    first_s: float = 0.5
    longest_s: float = 15.0
    limit_s: float = 120.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def wait_s(self, tries: int, asked_s: float | None) -> float:
        """Seconds before try number ``tries`` + 1: what the server asked for, else a doubling wait with jitter."""
        if asked_s is not None:
            return asked_s
        return float(min(self.longest_s, self.first_s * 2**tries) * random.uniform(0.75, 1.0))


class Retrying(httpx.BaseTransport):
    """A transport that repeats what may be repeated; see the module's rules."""

    def __init__(self, inner: httpx.BaseTransport, patience: Patience) -> None:
        self._inner, self._patience = inner, patience

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and send again while the server is in trouble; the answer is read whole."""
        repeatable = _repeatable(request)
        started, tries = self._patience.clock(), 0
        while True:
            asked: float | None = None
            try:
                response = self._inner.handle_request(request)
                response.read()  # a connection that ends inside the body is found here, where it can be helped
            except httpx.TransportError as error:
                if not (repeatable or isinstance(error, _NOT_TAKEN)) or self._over(started, 0.0):
                    raise
            else:
                again = response.status_code == 429 or (repeatable and response.status_code in _TROUBLE)
                asked = _retry_after(response)
                if not again or self._over(started, asked or 0.0):
                    return response
            self._patience.sleep(self._patience.wait_s(tries, asked))
            tries += 1

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()

    def _over(self, started: float, ahead_s: float) -> bool:
        return self._patience.clock() - started + ahead_s > self._patience.limit_s


class TokenAuth(httpx.Auth):
    """Signs requests: legacy tokens as they are, a personal access token by the short-lived one it is exchanged for."""

    requires_response_body = True

    def __init__(self, token: str, base_url: str) -> None:
        self._token, self._base_url = token, base_url
        self._kind = str(_claims(token).get("token_type", "legacy"))
        self._access = token if self._kind == "access" else ""
        self._expires = 0.0

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign a request; where a short-lived token is refused, get another and ask once more."""
        if self._kind == "refresh" and (not self._access or time.time() > self._expires - 20):
            self._take((yield self._exchange()))
        request.headers["Authorization"] = self._header()
        response = yield request
        if response.status_code == 401 and self._kind == "refresh":
            self._take((yield self._exchange()))
            request.headers["Authorization"] = self._header()
            response = yield request
        if response.status_code == 401:
            raise _refused(self._base_url, response)

    def _header(self) -> str:
        return f"Token {self._token}" if self._kind == "legacy" else f"Bearer {self._access}"

    def _exchange(self) -> httpx.Request:
        return httpx.Request(
            "POST", f"{self._base_url}/api/token/refresh/", json={"refresh": self._token}, extensions={REPEATABLE: True}
        )

    def _take(self, response: httpx.Response) -> None:
        if response.status_code == 401:
            raise _refused(self._base_url, response)
        self._access = str(_json(response).get("access", ""))
        self._expires = float(_claims(self._access).get("exp", 0.0))


class Api:
    """One server, signed in: ``asking`` lends the SDK, `request` is for bulk calls; both raise the errors here."""

    def __init__(self, url: str, token: str, patience: Patience | None = None, timeout_s: float | None = None) -> None:
        self.url = _checked_url(url)
        self._token = _checked_token(token, self.url)
        self._sdk: LabelStudio | None = None
        self._http = httpx.Client(
            transport=Retrying(_transport(self.url), patience or Patience()),
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
        return None if response.status_code == 204 or not response.content else _json(response)

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
            if not _repeatable(error.request) and not isinstance(error, _NOT_TAKEN):
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
        text = self.redact(_detail(response))
        if status == 403:
            raise ServerError(f"{what}: this token's user may not {_right(response.request)} ({text or 403})", status)
        if status == 404:
            raise MissingError(f"{what}: Label Studio at {self.url} does not have it ({text or 404})", status)
        if status == 413:
            raise TooLargeError(f"{what}: the request is too large for {self.url} ({text or 413})", status)
        if response.is_redirect:
            place = self.redact(response.headers.get("location", ""))
            raise ServerError(f"{what}: {self.url} sends us to {place}; give that address as --url", status)
        if status in _TROUBLE and not _repeatable(response.request):
            raise UnsureError(f"{what}: {self.url} answered {status} ({text})", status)
        if status in _TROUBLE or status == 429:
            raise ServerError(
                f"{what}: {self.url} is in trouble ({status}: {text}); run the same command again later", status
            )
        raise ServerError(f"{what}: {self.url} refused it ({status}: {text})", status)


def _transport(url: str) -> httpx.HTTPTransport:
    """Keep connections open where opening one is dear: to a server with TLS.

    Without TLS it is most often Label Studio's own server that answers, which sends the head of an answer and its body
    apart. On a connection that is kept, the body then waits for the acknowledgement of the head, and that is held back
    for 40 ms: longer than the whole of most requests. The first answer on a new connection is acknowledged at once.
    """
    if url.startswith("https://"):
        return httpx.HTTPTransport()
    # An empty list of authorities is made at once, and trusts nobody.
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.HTTPTransport(verify=nobody, limits=httpx.Limits(max_keepalive_connections=0))


def _repeatable(request: httpx.Request) -> bool:
    return request.method in _HARMLESS_TWICE or bool(request.extensions.get(REPEATABLE))


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


def _refused(url: str, response: httpx.Response) -> ServerError:
    detail = _detail(response)
    hint = _NEW_TOKEN
    if "legacy" in detail:
        hint = (
            "legacy tokens are switched off there: make a personal access token, or ask an administrator to allow them"
        )
    elif "expired" in detail or "token/refresh" in response.request.url.path:
        hint = f"it has expired or was revoked: {_NEW_TOKEN}"
    return ServerError(f"Label Studio at {url} does not accept the token (401); {hint}", 401)


_RIGHTS = (
    ("/import", "import tasks and predictions (the right to change the project)"),
    ("/file-uploads", "see or delete uploaded files (the right to change the project)"),
    ("/api/predictions", "change predictions"),
    ("/api/dm/", "manage tasks and tabs of the project"),
    ("/api/storages", "manage storages of the project"),
    ("/api/tasks", "see or change tasks of the project"),
    ("/api/projects", "see or create projects"),
)


def _right(request: httpx.Request) -> str:
    right = next((right for piece, right in _RIGHTS if piece in request.url.path), "do this")
    return f"{right}; ask an administrator of the organisation or of the project for it"


def _detail(response: httpx.Response) -> str:
    """Say shortly what an error answer says: its ``detail`` and ``validation_errors``, or the text of a page."""
    try:
        values = response.json()
    except ValueError:
        return "" if "<" in response.text else " ".join(response.text.split())[:300]
    if isinstance(values, dict):
        parts = [str(values[key]) for key in ("detail", "validation_errors", "error") if values.get(key)]
        return " ".join((" ".join(parts) or str(values)).split())[:600]
    return " ".join(str(values).split())[:600]


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise ServerError(
            f"{response.request.url.path}: the answer is not JSON but "
            f"{response.headers.get('content-type', 'something else')}; is this Label Studio's address?"
        ) from None


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds a server asks us to wait: a number or a date; at most two minutes."""
    text = response.headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isdigit():
        return float(min(int(text), 120))
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((moment - datetime.now(UTC)).total_seconds(), 0.0), 120.0)


def _claims(token: str) -> Mapping[str, Any]:
    """Read what a JWT says of itself, unverified; nothing for another token."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        values = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}

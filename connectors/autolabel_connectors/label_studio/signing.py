"""Signing requests to Label Studio: legacy tokens, and personal access tokens by the short-lived ones they give."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Generator, Mapping
from typing import Any

import httpx

from autolabel_connectors.label_studio.errors import ServerError, detail_of, read_json
from autolabel_connectors.label_studio.retrying import REPEATABLE

_NEW_TOKEN = "copy a new one from Account & Settings there and set LABEL_STUDIO_API_KEY"


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
        self._access = str(read_json(response).get("access", ""))
        self._expires = float(_claims(self._access).get("exp", 0.0))


def _refused(url: str, response: httpx.Response) -> ServerError:
    detail = detail_of(response)
    hint = _NEW_TOKEN
    if "legacy" in detail:
        hint = (
            "legacy tokens are switched off there: make a personal access token, or ask an administrator to allow them"
        )
    elif "expired" in detail or "token/refresh" in response.request.url.path:
        hint = f"it has expired or was revoked: {_NEW_TOKEN}"
    return ServerError(f"Label Studio at {url} does not accept the token (401); {hint}", 401)


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

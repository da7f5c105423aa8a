"""Server information, login, access tokens and users."""

from __future__ import annotations

import base64
import re
import secrets
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from typing import Any

from ..http import ApiError, Request, Response, forbidden, not_found
from ..listing import listed
from ..routes import route
from ..site import Site
from ..state import Row, as_text

SAFE = {"GET", "HEAD", "OPTIONS"}
SAFE_EXPORTS = re.compile(r"/api/(events|(projects|tasks|jobs)/\d+/dataset)/export")
"""What a read-only token may ask for although it is a POST: an export to one's own machine."""


def authenticate(site: Site, request: Request, *, public: bool) -> None:
    """Set ``request.user``; 401 for wrong or missing credentials, 403 for a read-only token that writes."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    users = site.state.users.values()
    if scheme == "Bearer":
        request.token = next((row for row in site.state.tokens.values() if row["value"] == value), None)
        if request.token is None or is_expired(request.token):
            raise unauthorized("Invalid token.")
        request.token["last_used_date"] = site.state.now()
        request.user = site.state.users[request.token["owner"]]
        if request.token["read_only"] and request.method not in SAFE and not SAFE_EXPORTS.fullmatch(request.path):
            raise forbidden()
    elif scheme == "Token":
        request.user = next((user for user in users if user["key"] == value), None)
        if request.user is None:
            raise unauthorized("Invalid token.")
    elif scheme == "Basic":
        name, _, password = base64.b64decode(value).decode().partition(":")
        request.user = next((u for u in users if u["username"] == name and u["password"] == password), None)
        if request.user is None:
            raise unauthorized("Invalid username/password.")
    else:
        _by_session(site, request, public=public)
    if request.user is None and not public:
        raise unauthorized("Authentication credentials were not provided.")


def _by_session(site: Site, request: Request, *, public: bool) -> None:
    cookies = SimpleCookie(request.headers.get("cookie", ""))
    session = site.state.sessions.get(cookies["sessionid"].value) if "sessionid" in cookies else None
    if session is None:
        return
    if request.method not in SAFE and not public:
        sent = request.headers.get("x-csrftoken")
        if sent is None:
            raise ApiError(403, {"detail": "CSRF Failed: CSRF token missing."})
        if sent != session["csrf"]:
            raise ApiError(403, {"detail": "CSRF Failed: CSRF token from the 'X-Csrftoken' HTTP header incorrect."})
    request.user = site.state.users[session["user"]]


def unauthorized(detail: str) -> ApiError:
    return ApiError(401, {"detail": detail}, {"WWW-Authenticate": "Bearer"})


def is_expired(token: Row) -> bool:
    return token["expiry_date"] is not None and token["expiry_date"] < as_text(datetime.now(UTC))


@route("GET", "/api/server/about", public=True)
def about(site: Site, request: Request) -> Row:
    return {
        "name": "Computer Vision Annotation Tool",
        "description": "A stand-in for tests.",
        "version": site.version,
        "logo_url": request.url("/static/logo.svg"),
        "subtitle": "Open Data Annotation Platform",
    }


@route("POST", "/api/auth/login", public=True)
def login(site: Site, request: Request) -> Response:
    body = request.json_object()
    name = body.get("username") or body.get("email")
    user = next((u for u in site.state.users.values() if name in {u["username"], u["email"]}), None)
    if user is None or user["password"] != body.get("password"):
        raise ApiError(400, {"non_field_errors": ["Unable to log in with provided credentials."]})
    user["last_login"] = site.state.now()
    session, csrf = secrets.token_hex(16), secrets.token_hex(16)
    site.state.sessions[session] = {"user": user["id"], "csrf": csrf}
    life = "Path=/; Max-Age=1209600; SameSite=Lax"
    cookies = [
        f"csrftoken={csrf}; {life}",
        f"sessionfresh={csrf[:8]}; {life}",
        f"sessionid={session}; HttpOnly; {life}",
    ]
    return Response({"key": user["key"]}, cookies=cookies)


@route("POST", "/api/auth/logout", public=True)
def logout(site: Site, request: Request) -> Row:
    cookies = SimpleCookie(request.headers.get("cookie", ""))
    if "sessionid" in cookies:
        site.state.sessions.pop(cookies["sessionid"].value, None)
    return {"detail": "Successfully logged out."}


# access tokens ------------------------------------------------------------------------------------


def new_token(site: Site, username: str, name: str = "test", *, read_only: bool = True, expired: bool = False) -> Row:
    """Add a token to the state; the row's ``value`` is what goes behind ``Bearer``."""
    owner = next(user["id"] for user in site.state.users.values() if user["username"] == username)
    number, now = site.state.next_id("token"), site.state.now()
    site.state.tokens[number] = {
        "id": number,
        "name": name,
        "created_date": now,
        "updated_date": now,
        "expiry_date": as_text(datetime.now(UTC) - timedelta(days=1)) if expired else None,
        "last_used_date": None,
        "read_only": read_only,
        "owner": owner,
        "value": f"stand-in.{secrets.token_urlsafe(24)}",
    }
    return site.state.tokens[number]


def token_out(site: Site, request: Request, token: Row, *, value: bool = False) -> Row:
    outer = {key: token[key] for key in token if key not in {"owner", "value"}}
    outer["owner"] = site.basic_user(request, token["owner"])
    return {**outer, "value": token["value"]} if value else outer


@route("GET", "/api/auth/access_tokens")
def list_tokens(site: Site, request: Request) -> Row:
    assert request.user
    rows = [token_out(site, request, t) for t in site.state.tokens.values() if t["owner"] == request.user["id"]]
    return listed(request, rows, filters={"name": lambda r: r["name"], "id": lambda r: r["id"]}, search=("name",))


@route("POST", "/api/auth/access_tokens")
def create_token(site: Site, request: Request) -> Response:
    assert request.user
    body = request.json_object()
    if not body.get("name"):
        raise ApiError(400, {"name": ["This field is required."]})
    token = new_token(site, request.user["username"], body["name"], read_only=body.get("read_only", True))
    token["expiry_date"] = body.get("expiry_date")
    return Response(token_out(site, request, token, value=True), 201)


@route("GET", "/api/auth/access_tokens/self")
def own_token(site: Site, request: Request) -> Row:
    if request.token is None:
        raise not_found("AccessToken")
    return token_out(site, request, request.token)


@route("DELETE", "/api/auth/access_tokens/{id}")
def delete_token(site: Site, request: Request, id: int) -> Response:
    token = site.state.tokens.get(id)
    if token is None or request.user is None or token["owner"] != request.user["id"]:
        raise not_found("AccessToken")
    del site.state.tokens[id]
    return Response(None, 204)


# users --------------------------------------------------------------------------------------------


def user_out(request: Request, user: Row) -> Row:
    outer = {key: value for key, value in user.items() if key not in {"password", "key"}}
    return {"url": request.url(f"/api/users/{user['id']}"), **outer}


@route("GET", "/api/users/self")
def self_user(_site: Site, request: Request) -> Row:
    assert request.user
    return {**user_out(request, request.user), "has_analytics_access": request.user["is_superuser"]}


@route("GET", "/api/users")
def list_users(site: Site, request: Request) -> Row:
    filters: dict[str, Any] = {key: (lambda row, key=key: row[key]) for key in ("id", "username", "is_active")}
    rows = [user_out(request, user) for user in site.state.users.values()]
    return listed(request, rows, filters=filters, search=("username",))


@route("GET", "/api/users/{id}")
def one_user(site: Site, request: Request, id: int) -> Row:
    if id not in site.state.users:
        raise not_found("User")
    return user_out(request, site.state.users[id])

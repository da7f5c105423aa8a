"""Requests to a CVAT server through cvat-sdk's own client: paths, credentials and uploads are the SDK's.

Answers are plain JSON values, as the server gave them: the SDK's models refuse what a newer or older server adds, and
take longer to build than the request itself.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from autolabel.connect import Target
from autolabel.errors import ServerError, UsageError
from autolabel_connectors.cvat.errors import GoneError, refuse
from autolabel_connectors.cvat.wire import PATIENCE_SECONDS, Wire
from autolabel_connectors.moments import http_moment

if TYPE_CHECKING:
    from cvat_sdk.core.client import Client
    from cvat_sdk.core.progress import ProgressReporter

Row = dict[str, Any]
PAGE_SIZE = 100


class Cvat:
    """A server, logged in; ``writable=False`` promises that nothing on it is changed. ``pace`` scales all waits.

    ``clock`` is the server's own time at its last answer, in whole seconds; empty where it does not tell.
    """

    def __init__(self, client: Client, *, writable: bool = True, pace: float = 1.0) -> None:
        self._client = client
        self.pace = pace
        self._writable = writable
        self.user: Row = {}
        self.clock = ""

    def __enter__(self) -> Cvat:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def url(self) -> str:
        """Address of the server, without a slash at its end."""
        return str(self._client.api_map.host)

    def web(self, path: str) -> str:
        """Address of a page of the web interface, for people."""
        return f"{self.url}/{path}"

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        harmless: bool = False,
    ) -> Any:
        """Send a request and return the answer's JSON value, None for an empty one; raises ServerError.

        ``harmless``: it changes nothing although its method sounds like it.
        """
        if not self._writable and method != "GET" and not harmless:
            raise AssertionError(f"a dry run must not write: {method} {path}")
        data = self._ask(method, path, query, body, "application/vnd.cvat+json")
        if not data:
            return None
        try:
            return json.loads(data)
        except ValueError:
            raise ServerError(
                f"{method} {path}: the answer is no JSON; check that {self.url} is the address of a CVAT server"
            ) from None

    def text(self, path: str, **query: Any) -> str:
        """Read a file of text."""
        return self._ask("GET", path, query, None, "*/*").decode("utf-8", "replace")

    def _ask(self, method: str, path: str, query: Mapping[str, Any] | None, body: Any, accept: str) -> bytes:
        from cvat_sdk.core.helpers import make_request_headers

        api = self._client.api_client
        headers = {"Accept": accept, **make_request_headers(api)}
        pairs = None if query is None else [(key, value) for key, value in query.items() if value is not None]
        response = api.rest_client.request(
            method, self.url + path, query_params=pairs, headers=headers, body=body, _check_status=False
        )
        if not 200 <= response.status <= 299:
            raise refuse(method, path, response.status, response.data)
        self.clock = http_moment(response.headers.get("Date") or "")
        return bytes(response.data or b"")

    def get(self, path: str, **query: Any) -> Row:
        """Read one thing."""
        return cast(Row, self.call("GET", path, query=query or None))

    def listed(self, path: str, **query: Any) -> Iterator[Row]:
        """Read a list, page by page, each row once."""
        seen: set[int] = set()
        page = 1
        while True:
            answer = self.get(path, **query, sort="id", page_size=PAGE_SIZE, page=page)
            for row in answer["results"]:
                if row["id"] not in seen:
                    seen.add(row["id"])
                    yield row
            if not answer.get("next"):
                return
            page += 1

    def find(self, path: str) -> Row | None:
        """Read one thing, or None where there is none."""
        try:
            return self.get(path)
        except GoneError:
            return None

    def enter(self, project: Row) -> None:
        """Ask from now on in the organization that a project is of: outside, some lists are empty and tasks refused."""
        number = project.get("organization_id")
        if number:
            self._client.organization_slug = str(self.get(f"/api/organizations/{number}")["slug"])

    def annotations(self, task: int) -> Row:
        """Read all tags, shapes and tracks of a task."""
        return self.get(f"/api/tasks/{task}/annotations/")

    def annotations_of_job(self, job: int) -> Row:
        """Read all tags, shapes and tracks of a job."""
        return self.get(f"/api/jobs/{job}/annotations/")

    def patch_annotations(self, task: int, action: str, shapes: Sequence[Row]) -> list[Row]:
        """Create, update or delete shapes of a task; returns them as the server took them, with their ids."""
        body = {"version": 0, "tags": [], "shapes": list(shapes), "tracks": []}
        answer = self.call("PATCH", f"/api/tasks/{task}/annotations/", query={"action": action}, body=body)
        return cast(list[Row], (answer or {}).get("shapes", []))

    def upload(
        self, task: int, files: Sequence[Path], request_bytes: int, pbar: ProgressReporter, data: Mapping[str, Any]
    ) -> str | None:
        """Send image files to a task with the SDK's uploader: several in a request, larger ones by TUS.

        Returns the id of the background request that makes frames of them, where the server names it.
        """
        from cvat_sdk.api_client.exceptions import ApiException
        from cvat_sdk.core.exceptions import CvatSdkException
        from cvat_sdk.core.uploading import DataUploader

        if not self._writable:
            raise AssertionError("a dry run must not write")
        path = f"/api/tasks/{task}/data/"
        try:
            uploader = DataUploader(self._client, max_request_size=request_bytes)
            answer = uploader.upload_files(self.url + path, list(files), pbar=pbar, **data)
            said = json.loads(answer.data) if answer.data else None
        except ApiException as error:
            raise refuse("POST", path, error.status or 500, error.body or b"") from None
        except CvatSdkException as error:
            raise ServerError(f"POST {path}: the upload failed ({error}); run the same command again") from None
        except ValueError:
            return None
        return str(said["rq_id"]) if isinstance(said, dict) and said.get("rq_id") else None

    def request_status(self, rq_id: str) -> Row | None:
        """Read how a background request is doing; None when the server does not know it (any more)."""
        return self.find(f"/api/requests/{quote(rq_id, safe='')}")


def open_server(
    target: Target, *, writable: bool = True, patience: float = PATIENCE_SECONDS, pace: float = 1.0
) -> Cvat:
    """Log in to ``target``'s server; raises UsageError without credentials, ServerError when they are refused."""
    try:
        from cvat_sdk.api_client.exceptions import ApiException
        from cvat_sdk.core.client import AccessTokenCredentials, Client, Config
        from cvat_sdk.core.exceptions import CvatSdkException
    except ImportError:
        raise UsageError('cvat-sdk is not installed; pip install "autolabel-vision[cvat]"') from None

    try:
        client = Client(url=target.url, config=Config(status_check_period=0.5), check_server_version=False)
    except CvatSdkException as error:
        raise UsageError(f"{target.url!r} is no address of a CVAT server: {error}") from None
    rest = client.api_client.rest_client
    rest.pool_manager = Wire(rest.pool_manager, patience=patience, pace=pace)
    server = Cvat(client, writable=writable, pace=pace)
    secret = target.token or _saved_token(server.url)
    if not secret:
        raise UsageError(
            f"no credentials for {server.url}: make an access token in CVAT (user menu, Profile, Security, Access "
            "tokens; switch 'read only' off to push) and set CVAT_ACCESS_TOKEN, or CVAT_USERNAME and CVAT_PASSWORD"
        )
    user, colon, password = secret.partition(":")
    try:
        client.login((user, password) if colon else AccessTokenCredentials(secret))
    except ApiException as error:
        if error.status in {400, 401, 403}:
            raise UsageError(f"{server.url} does not accept user {user!r} with this password; check both") from None
        body = error.body if isinstance(error.body, bytes) else str(error.body or "").encode()
        raise refuse("POST", "/api/auth/login", error.status or 500, body) from None
    server.user = server.get("/api/users/self")
    return server


def wait_for(server: Cvat, rq_id: str, *, first_pause: float = 0.1, patience: float = math.inf) -> Row | None:
    """Wait until a background request has ended; returns its last status, None when the server lost it.

    After ``patience`` seconds of waiting the status is that of a request which is still under way.
    """
    pause, waited = first_pause * server.pace, 0.0
    while True:
        status = server.request_status(rq_id)
        if status is None or status["status"] in {"finished", "failed"} or waited > patience:
            return status
        time.sleep(pause)
        waited += pause
        pause = min(2.0 * server.pace, pause * 1.5)


def _saved_token(url: str) -> str:
    """Look into cvat-cli's saved profiles for this server."""
    from cvat_sdk.core.auth import AuthStore
    from cvat_sdk.core.exceptions import AuthStoreError

    try:
        profiles = AuthStore().list_profiles().values()
    except (AuthStoreError, OSError, KeyError, AttributeError):
        return ""
    return next((profile.token for profile in profiles if profile.server.rstrip("/") == url), "")

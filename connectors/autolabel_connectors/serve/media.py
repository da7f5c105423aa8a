"""The images of Label Studio's tasks: from the server with its token, from a bucket, the web, or the task itself.

The token goes to the Label Studio server that it belongs to and nowhere else: other hosts, and where that server
redirects to, are asked without it. Local paths are refused, as a task's author is not this machine's owner.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import socket
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_to_bytes, urljoin, urlsplit

import httpx

from autolabel.errors import AutolabelError, ImageError
from autolabel.images import Source, read_bytes
from autolabel.labeling import ReadImage, from_bytes
from autolabel.shards import ImageRow
from autolabel.types import Failure
from autolabel_connectors.label_studio.remote import PATH
from autolabel_connectors.label_studio.signing import TokenAuth

_TIMEOUT = httpx.Timeout(connect=5.0, read=60.0, write=30.0, pool=30.0)
_REDIRECTS, _ATTEMPTS = 5, 3
_BUCKETS = ("s3", "gs", "gcs", "azure-blob", "az", "abfs")
_NO_TOKEN = "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY for autolabel serve"


@dataclass(frozen=True, slots=True)
class Host:
    """A Label Studio server and its token; ``known_as`` are other addresses it gives for itself."""

    url: str
    token: str = field(repr=False)
    known_as: tuple[str, ...] = ()

    def own_path(self, address: str) -> str | None:
        """Return an address of this server as a full one at ``url``, or None if it is another's."""
        parts = urlsplit(address)
        if not parts.netloc:
            prefix = urlsplit(self.url).path.rstrip("/")
            inside = bool(prefix) and address.startswith(f"{prefix}/")
            return urljoin(self.url, address) if inside else f"{self.url}/{address.lstrip('/')}"
        for base in (self.url, *self.known_as):
            here = urlsplit(base)
            if (here.scheme, here.netloc) == (parts.scheme, parts.netloc):
                origin = urlsplit(self.url)
                return parts._replace(scheme=origin.scheme, netloc=origin.netloc).geturl()
        return None


class Fetcher:
    """Reads images over kept connections; safe between threads. At most ``max_bytes`` of an image are read."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._clients: dict[tuple[str, str], httpx.Client] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def read(self, task: Mapping[str, Any], key: str, host: Host | None) -> ReadImage:
        """Read a task's image from field ``key``; what goes wrong becomes the image's failure."""
        data = task.get("data")
        data = data if isinstance(data, Mapping) else {}
        value = data.get(key)
        given = data.get(PATH)
        path = given if isinstance(given, str) and given else _name(value)
        row = ImageRow(path, "", "")
        try:
            if not isinstance(value, str) or not value.strip():
                raise ImageError(f"the task's data has no image in {key!r}; the label config names that field")
            return from_bytes(self.bytes_of(value.strip(), task.get("id"), host), row)
        except (AutolabelError, httpx.HTTPError) as error:
            message = str(error) if isinstance(error, AutolabelError) else f"{_name(value)}: {_words(error)}"
            failure = Failure(path, "read", type(error).__name__, message)
            return ReadImage(ImageRow(path, "", "", failure=failure), None)

    def bytes_of(self, address: str, task: object, host: Host | None) -> bytes:
        """Return the bytes behind an address in a task; raises ImageError with the remedy, or httpx.HTTPError."""
        scheme = urlsplit(address).scheme.lower()
        if scheme == "data":
            return self._limited(_data_uri(address))
        if scheme in _BUCKETS and "::" not in address:
            return self._bucket(address, task, host)
        if scheme not in ("", "http", "https"):
            raise ImageError(f"images at {scheme}:// are not read here; use uploads, local-files storage, a bucket")
        own = None if host is None else host.own_path(address)
        if own is not None and host is not None:
            return self._get(own, host)
        if not scheme:
            raise ImageError(f"{_name(address)} is a file of Label Studio, and its address is not known; {_NO_TOKEN}")
        return self._get(address, None)

    def _bucket(self, address: str, task: object, host: Host | None) -> bytes:
        """Read from a bucket through Label Studio, which has the project's keys, else with keys of our own."""
        if host is not None and task is not None:
            code = base64.urlsafe_b64encode(address.encode()).decode()
            try:
                return self._get(f"{host.url}/tasks/{task}/resolve/?fileuri={code}", host)
            except (AutolabelError, httpx.HTTPError):
                pass  # the project may have no storage for it: our own keys may do
        return self._limited(read_bytes(Source(_name(address), address, "")))

    def _get(self, address: str, host: Host | None) -> bytes:
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            try:
                answer = self._once(address, host, last=last)
            except httpx.TransportError:
                if last:
                    raise
            else:
                if answer is not None:
                    return answer
            time.sleep(0.3 * 2**attempt)
        raise AssertionError("unreachable")

    def _once(self, address: str, host: Host | None, *, last: bool) -> bytes | None:
        """Follow redirects to the bytes; None where the server is in trouble and may be asked again."""
        for _ in range(_REDIRECTS):
            if host is None:
                _refuse_link_local(address)
            with self._client(host).stream("GET", address) as response:
                if response.is_redirect:
                    address = urljoin(address, response.headers.get("location", ""))
                    host = host if host is not None and host.own_path(address) == address else None
                    if urlsplit(address).scheme not in ("http", "https"):
                        raise ImageError(f"{_name(address)}: a redirect leads away from the web")
                    continue
                if not last and (response.status_code == 429 or response.status_code >= 500):
                    return None
                if response.is_error:
                    raise ImageError(
                        f"{_name(address)}: the server answers {response.status_code}; "
                        f"{'see that the token may see the project' if host else _NO_TOKEN}"
                    )
                data = bytearray()
                for part in response.iter_bytes():
                    data += part
                    if len(data) > self._max_bytes:
                        raise ImageError(f"{_name(address)} has more than {self._max_bytes} bytes; raise --max-bytes")
                return bytes(data)
        raise ImageError(f"{_name(address)}: more than {_REDIRECTS} redirects")

    def _limited(self, data: bytes) -> bytes:
        if len(data) > self._max_bytes:
            raise ImageError(f"an image has {len(data)} bytes, more than {self._max_bytes}; raise --max-bytes")
        return data

    def _client(self, host: Host | None) -> httpx.Client:
        key = (host.url, host.token) if host else ("", "")
        with self._lock:
            if key not in self._clients:
                self._clients[key] = httpx.Client(
                    auth=_Signed(host.token, host.url) if host else None,
                    timeout=_TIMEOUT,
                    headers={"User-Agent": "autolabel"},
                )
            return self._clients[key]


class _Signed(TokenAuth):
    """Signs as the sync does, and leaves the bodies of images to be read in pieces."""

    requires_response_body = False

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Read whole what the flow looks into: errors, and the exchange of tokens."""
        flow = super().auth_flow(request)
        asked = next(flow)
        while True:
            response = yield asked
            if response.is_error or asked is not request:
                response.read()
            try:
                asked = flow.send(response)
            except StopIteration:
                return


def _refuse_link_local(address: str) -> None:
    """Refuse what only this machine's cloud should be asked: its keys lie at a link-local address."""
    parts = urlsplit(address)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return  # the request itself says what is wrong
    for *_, place in found:
        ip = ipaddress.ip_address(str(place[0]).partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip
        if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
            raise ImageError(f"{_name(address)} lies at {ip}, which is not read; put the image where others can be")


def _data_uri(address: str) -> bytes:
    """Decode a ``data:`` address."""
    head, _, body = address.partition(",")
    if not head.endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode(body, validate=False)
    except (binascii.Error, ValueError):
        raise ImageError("the task's data: address is not base64") from None


def _name(value: object) -> str:
    """Name an address without what may be secret in it: its file's name."""
    if not isinstance(value, str) or not value:
        return "no image"
    if value.startswith("data:"):
        return "data:"
    parts = urlsplit(value)
    inner = parse_qs(parts.query).get("d", [""])[0] if parts.path.endswith("/local-files/") else ""
    return (inner or parts.path).rstrip("/").rpartition("/")[2] or parts.netloc or "no image"


def _words(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: it cannot be reached; check the address and that the server runs"

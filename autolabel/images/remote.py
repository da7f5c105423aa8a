"""Images behind an fsspec URI: object stores, web servers, archives, memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from autolabel.errors import UsageError
from autolabel.images import uris
from autolabel.images.found import Found, is_image_name, is_skipped, natural_parts

_CLOUD_SCHEMES = ("s3", "s3a", "gs", "gcs", "http", "https")
_STAMPS = (
    "ETag",
    "etag",
    "md5Hash",
    "Content-MD5",
    "checksum",
    "CRC",
    "LastModified",
    "last_modified",
    "Last-Modified",
)
_TIMES = ("updated", "mtime", "modified", "created", "date_time")
_archive_lock = threading.Lock()


def forget() -> None:
    """Drop what is remembered of archives, so that a new listing sees their new content."""
    _archive.cache_clear()


def has_magic(uri: str) -> bool:
    """Tell a glob; in an http(s) URI ``?`` begins the query."""
    _, scheme, rest = uris.link(uri)
    if scheme in ("http", "https"):
        return "*" in rest.partition("?")[0]
    return any(character in rest for character in "*?[")


def search(uri: str) -> list[Found]:
    """List a file, a folder (prefix) or a glob; raises UsageError without a driver, and the file system's errors."""
    system, path = _open(uri)
    system.invalidate_cache()
    glob = has_magic(uri)
    if not glob and not path.endswith("/") and path:
        info = system.info(path)
        if info["type"] != "directory":
            return [_found(uri, info, uris.parts(uri)[:-1])]
    listing: Mapping[str, Mapping[str, Any]] = (
        system.glob(path, detail=True) if glob else system.find(path, detail=True)
    )
    root = _fixed_parts(uri) if glob else uris.parts(uri)
    if not listing and not glob and not system.exists(path):
        raise FileNotFoundError(path)
    found = []
    for name, info in listing.items():
        item = _found(uris.rebuild(uri, path, name), info, root)
        inner = item.parts[len(root) :] or item.parts[-1:]
        if info["type"] == "file" and is_image_name(inner[-1]) and not is_skipped(inner[:-1], inner[-1]):
            found.append(item)
    return sorted(found, key=lambda item: natural_parts(item.parts))


def named(uri: str, root: tuple[str, ...]) -> Found:
    """Take one file without asking for it; its fingerprint is not known yet. Raises UsageError without a driver."""
    _open(uri)
    return _found(uri, {}, root)


def read(uri: str) -> bytes:
    """Read one file; raises the file system's errors, whose texts may hold secrets."""
    system, path = _open(uri)
    if uris.link(uri)[1] in uris.ARCHIVES:
        with _archive_lock:  # members share one file handle
            return bytes(system.cat_file(path))
    return bytes(system.cat_file(path))


def fingerprint(uri: str) -> str:
    """Ask the file system for what changes when the file does."""
    system, path = _open(uri)
    return _stamp(system.info(path))


def _open(uri: str) -> tuple[Any, str]:
    position, scheme, rest = uris.link(uri)
    try:
        if scheme in uris.ARCHIVES and position == 0:
            return _archive(f"{scheme}://::" + uri.partition("::")[2]), rest
        system, path = url_to_fs(uri)
    except ImportError as error:
        remedy = 'pip install "autolabel-vision[cloud]"' if scheme in _CLOUD_SCHEMES else str(error)
        raise UsageError(
            f"'{uris.shown(uri)}' needs a driver for {scheme}:// that is not installed: {remedy}"
        ) from None
    except ValueError as error:
        if scheme in fsspec.available_protocols():
            raise
        raise UsageError(f"'{uris.shown(uri)}': {scheme}:// is not a known protocol of fsspec") from error
    return system, str(path)


@lru_cache(maxsize=8)
def _archive(uri: str) -> Any:
    """Open an archive once, not once a member."""
    return url_to_fs(uri)[0]


def _fixed_parts(uri: str) -> tuple[str, ...]:
    """Return the folder above a glob's first wildcard."""
    position, scheme, rest = uris.link(uri)
    fixed = []
    for part in rest.split("/")[:-1]:
        if any(character in part for character in "*?["):
            break
        fixed.append(part)
    links = uri.split("::")
    links[position] = f"{scheme}://{'/'.join(fixed)}"
    return uris.parts("::".join(links))


def _found(uri: str, info: Mapping[str, Any], root: tuple[str, ...]) -> Found:
    parts = uris.parts(uri)
    return Found(uri=uri, key="\0".join(parts), root=root, parts=parts, fingerprint=_stamp(info))


def _stamp(info: Mapping[str, Any]) -> str:
    """Join what a listing tells: size, then a checksum or a time; "" if the size is all there could be and is not."""
    known = [str(info[key]) for key in ("size", *_STAMPS) if info.get(key) is not None]
    if len(known) < 2:
        times = [info[key] for key in _TIMES if info.get(key) is not None]
        known += [str(time.timestamp() if isinstance(time, datetime) else time) for time in times]
    return "-".join(known)

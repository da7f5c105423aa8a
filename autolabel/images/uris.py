"""Where an image lies, as text: splitting URIs, showing them without their secrets, joining them."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode

ARCHIVES = ("zip", "tar", "libarchive")
_WITHOUT_AUTHORITY = (*ARCHIVES, "file", "local", "memory")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>()]+")
_USER = re.compile(r"//[^/\s]+@")
_CHAIN = re.compile(r"::(?=[A-Za-z][\w+.-]*://|/|$)")
_SECRET_PARAMETER = re.compile(
    r"^(x-amz-|x-goog-|x-oss-|x-ms-)|sig|token|secret|passw|credential|key|auth|expires|session|policy"
    r"|^(se|sp|sv|sr|st|spr|ske|skt|sks|skv|skoid|sktid|pwd|pw|code|hmac|hash)$",
    re.IGNORECASE,
)


def is_uri(text: str) -> bool:
    """Tell an fsspec URI or chain (``s3://…``, ``zip://…::…``) from a local path."""
    return "://" in text or "::" in text


def redact(text: str) -> str:
    """Return ``text`` with the user names, passwords and query strings of every URL in it taken out."""
    return _URL.sub(lambda match: shown(match.group()), _USER.sub("//", text))


def shown(uri: str) -> str:
    """Return one URI or chain without its users, passwords and queries; a local path stays as it is."""
    if not is_uri(uri):
        return uri
    return "::".join(_shown_link(part) for part in _CHAIN.split(uri))


def _shown_link(part: str) -> str:
    scheme, separator, rest = part.partition("://")
    if not separator:
        return part
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def link(uri: str) -> tuple[int, str, str]:
    """Find what a chain addresses: ``(position, scheme, rest)`` of its first link that has an address."""
    for position, part in enumerate(uri.split("::")):
        scheme, separator, rest = part.partition("://")
        if separator:
            return position, scheme.lower(), rest
    return 0, "file", uri.rsplit("::", 1)[-1]


def strip_query(uri: str) -> str:
    """Drop the query of an http(s) URI; other schemes may have ``?`` in their names."""
    return uri.partition("?")[0] if link(uri)[1] in ("http", "https") else uri


def parts(uri: str) -> tuple[str, ...]:
    """Split a path or URI into what may be shown: scheme, host or bucket and folders, without secrets or ``..``.

    An archive counts as a folder: ``zip://a/b.png::/data/x.zip`` is ``("/", "data", "x.zip", "a", "b.png")``. A query
    that selects the picture (``?id=7``) becomes a short hash in the name.
    """
    if not is_uri(uri):
        return tuple(_printable(part) for part in Path(os.path.abspath(uri)).parts)  # noqa: PTH100  (drops "..")
    position, scheme, rest = link(uri)
    rest, _, query = rest.partition("?") if scheme in ("http", "https") else (rest, "", "")
    authority, _, path = rest.partition("/")
    host = authority if scheme in _WITHOUT_AUTHORITY else authority.rpartition("@")[2]
    segments = [host, *path.split("/")]
    if scheme in ("http", "https"):
        segments = [unquote(segment).replace("/", "%2F") for segment in segments]
    shown = [_printable("__" if segment == ".." else segment) for segment in segments if segment not in ("", ".")]
    if shown and (wanted := _public_query(query)):
        shown[-1] = with_hash(shown[-1], wanted)
    container = "::".join(uri.split("::")[position + 1 :])
    if container:
        return (*parts(container), *shown)
    return parts("/" + "/".join(shown)) if scheme in ("file", "local") else (scheme, *shown)


def with_hash(name: str, text: str) -> str:
    """Put eight hex digits of ``text``'s sha256 before the extension of ``name``."""
    stem, dot, suffix = name.rpartition(".")
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{stem}~{digest}{dot}{suffix}" if stem else f"{name}~{digest}"


def rebuild(pattern: str, stripped: str, name: str) -> str:
    """Turn a name that a file system lists into a URI that can be opened.

    ``pattern`` is the URI the file system was made from and ``stripped`` what it made of it. Some schemes keep the
    authority in their names (buckets), others do not (hosts): it is put back where it is missing.
    """
    if "://" in name:
        return name
    position, scheme, rest = link(pattern)
    authority = rest.partition("/")[0]
    user = authority.rpartition("@")[0]
    first = stripped.strip("/").partition("/")[0]
    if user and first == user:  # abfs://container@account/…
        target = f"{authority}/{name.strip('/').partition('/')[2]}"
    elif stripped.startswith("/") and authority and first != authority:
        target = f"{authority}{name}"
    else:
        target = name.lstrip("/")
    links = pattern.split("::")
    links[position] = f"{scheme}://{target}"
    return "::".join(links)


def _public_query(query: str) -> str:
    """Return the parameters that choose a picture, without those that only sign the request."""
    pairs = parse_qsl(query, keep_blank_values=True)
    return urlencode(sorted(pair for pair in pairs if not _SECRET_PARAMETER.search(pair[0])))


def _printable(name: str) -> str:
    """Make a file name safe to store and print: undecodable bytes and control characters become U+FFFD."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)

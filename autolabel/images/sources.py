"""Which files the inputs name (folders, globs, manifests, URIs), and their bytes."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from autolabel.errors import ImageError, UsageError
from autolabel.images import local, remote, uris
from autolabel.images.found import IMAGE_EXTENSIONS, Found
from autolabel.images.manifests import MANIFEST_EXTENSIONS, read_entries

MISSING = "missing"
"""The fingerprint of a manifest's entry that could not be found; reading it raises ImageError."""

_REMOTE_THREADS = 16
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Source:
    """One file that should be an image.

    ``path`` is unique within a listing, POSIX, relative, free of secrets, and the same each time the same inputs are
    listed. ``uri`` says where to read and may hold credentials: never store or print it (``uris.redact`` it).
    ``fingerprint`` (size and time, or ETag) changes when the file does and costs no read; "" when nothing is known.
    """

    path: str
    uri: str = field(repr=False)
    fingerprint: str = ""


def list_sources(inputs: Sequence[str]) -> list[Source]:
    """List the images that files, folders, globs, manifests and fsspec URIs name: inputs in order, files naturally.

    Folders are searched recursively for the known image extensions, without hidden files and ``runs`` folders; a file
    named outright is taken whatever its extension. ``path`` is relative to the folder if one is given, and to the
    common parent if there are several. A file reached twice is listed once.

    Raises UsageError if an input is missing or holds no image, or if a driver for a URI is not installed.
    """
    if not inputs:
        raise UsageError("no input given: name image files, folders, globs, a manifest or a URI")
    remote.forget()
    first: dict[str, Found] = {}
    for text in inputs:
        for item in _expand(str(text)):
            first.setdefault(item.key, item)
    return _named(list(first.values()))


def read_bytes(source: Source) -> bytes:
    """Return a source's bytes; raises ImageError with the path and the reason, never a URI's secrets."""
    try:
        if not uris.is_uri(source.uri):
            return Path(source.uri).read_bytes()
        return _with_retries(source.uri)
    except Exception as error:
        raise ImageError(
            f"cannot read '{source.path}': {_why(error, source.uri)}; check that it exists and may be read"
        ) from None


def _with_retries(uri: str) -> bytes:
    """Read over a network that may hiccup; what will not change (missing, forbidden) is not tried again."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return remote.read(uri)
        except (FileNotFoundError, PermissionError, IsADirectoryError, ImportError, ValueError):
            raise
        except Exception as error:
            if attempt == _ATTEMPTS or 400 <= getattr(error, "status", 500) < 500:
                raise
            time.sleep(0.2 * attempt)
    raise AssertionError("unreachable")


def _expand(text: str) -> list[Found]:
    """List what one input names; raises UsageError if that is nothing."""
    if not text.strip():
        raise UsageError("an input is empty: name image files, folders, globs, a manifest or a URI")
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    try:
        if uris.is_uri(text):
            manifest = uris.strip_query(text).lower().endswith(MANIFEST_EXTENSIONS)
            found = _from_manifest(text) if manifest and not remote.has_magic(text) else remote.search(text)
        else:
            path = local.absolute(text)
            if path.suffix.lower() in MANIFEST_EXTENSIONS and path.is_file():
                found = _from_manifest(str(path))
            elif path.suffix.lower() == ".zip" and path.is_file():
                found = remote.search(f"zip://::{path}")
            else:
                found = local.search(text)
    except UsageError:
        raise
    except FileNotFoundError as error:
        reason = f"cannot be reached ({_why(error.__cause__, text)})" if error.__cause__ else "does not exist"
        raise UsageError(
            f"input '{uris.shown(text)}' {reason}: name an image file, a folder, a glob in quotes, "
            f"a manifest ({', '.join(MANIFEST_EXTENSIONS)}) or a URI"
        ) from None
    except Exception as error:
        raise UsageError(f"input '{uris.shown(text)}' cannot be listed: {_why(error, text)}") from None
    if not found:
        raise UsageError(
            f"input '{uris.shown(text)}' holds no image: looked for {', '.join(sorted(IMAGE_EXTENSIONS))} "
            "in it and its folders, leaving out hidden files and 'runs' folders; "
            "name files of another extension outright or in a manifest"
        )
    return found


def _from_manifest(uri: str) -> list[Found]:
    """List a manifest's entries; those that are missing are kept, for the failure ledger."""
    shown = uris.shown(uri)
    is_local = not uris.is_uri(uri)
    entries = read_entries(Path(uri).read_bytes() if is_local else remote.read(uri), uris.strip_query(shown))
    folder = uris.strip_query(uri).rpartition("/")[0]
    root = uris.parts(uri)[:-1]
    absolute = [
        entry if uris.is_uri(entry) or (is_local and entry.startswith(("/", "~"))) else f"{folder}/{entry}"
        for entry in entries
    ]
    found = [_entry(entry.removeprefix("file://"), root) for entry in absolute]
    if all(item.fingerprint == MISSING for item in found):
        raise UsageError(
            f"manifest '{shown}' names {len(found)} files, and none of them exists (first: "
            f"'{uris.shown(found[0].uri)}'): relative entries are relative to the manifest"
        )
    return found


def _entry(entry: str, root: tuple[str, ...]) -> Found:
    if uris.is_uri(entry):
        return remote.named(entry, root)
    try:
        return local.named(local.absolute(entry), root)
    except OSError:
        path = str(local.absolute(entry))
        return Found(uri=path, key=path, root=root, parts=uris.parts(path), fingerprint=MISSING)


def _named(found: Sequence[Found]) -> list[Source]:
    """Give each file its unique path: relative to what all roots and all files have in common.

    If local and remote files are mixed, the remote ones keep their scheme and host as folders.
    """
    kinds: dict[bool, list[Found]] = {}
    for item in found:
        kinds.setdefault(_is_local(item), []).append(item)
    bases = {
        kind: _common([item.root for item in items] + [item.parts[:-1] for item in items])
        for kind, items in kinds.items()
        if kind or len(kinds) == 1
    }
    paths = ["/".join(item.parts[len(bases.get(_is_local(item), ())) :]) for item in found]
    count = Counter(paths)
    sources = [
        Source(path if count[path] == 1 else uris.with_hash(path, item.key), item.uri, item.fingerprint)
        for path, item in zip(paths, found, strict=True)
    ]
    unknown = [place for place, item in enumerate(found) if not item.fingerprint]
    with ThreadPoolExecutor(_REMOTE_THREADS) as pool:
        for place, fingerprint in zip(unknown, pool.map(_fingerprint, (found[i].uri for i in unknown)), strict=True):
            sources[place] = replace(sources[place], fingerprint=fingerprint)
    return sources


def _is_local(item: Found) -> bool:
    return item.parts[0] == "/"


def _fingerprint(uri: str) -> str:
    """Ask a server about one file that a listing told nothing about."""
    try:
        return remote.fingerprint(uri)
    except FileNotFoundError:
        return MISSING
    except Exception:
        return ""  # the read will say what is wrong, in the failure ledger


def _common(paths: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    iterator: Iterator[tuple[str, ...]] = iter(set(paths))
    common = next(iterator)
    for path in iterator:
        length = next((i for i, (a, b) in enumerate(zip(common, path, strict=False)) if a != b), None)
        common = common[: min(len(common), len(path)) if length is None else length]
    return common


def _why(error: BaseException, uri: str) -> str:
    """Say in one line, without secrets, what a file system complains about."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = re.sub(r"\s+", " ", uris.redact(str(error).replace(uri, uris.shown(uri)))).strip()
    if isinstance(error, FileNotFoundError):
        return "not found"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

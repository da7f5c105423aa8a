"""File names for exported images: derived from the path, unique in a flat folder, and writable anywhere."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath

# Also lone surrogates: they stand for bytes of a file name that are not UTF-8.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\\ud800-\udfff]')
_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")
_MAX_BYTES = 180


class Names:
    """Hands out names; of two that would be equal (also ``a.jpg`` and ``a.png``) the later one gets a path hash.

    Stems are compared without case, since label files share one folder and may land on a file system that ignores it.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def flat(self, path: str) -> str:
        """Name for one folder: ``line 1/a.jpg`` becomes ``line 1__a.jpg``."""
        plain = unicodedata.normalize("NFC", _SCHEME.sub("", path)).lstrip("/").replace("/", "__")
        safe = _UNSAFE.sub("_", plain).lstrip(".").strip()
        stem, suffix = PurePosixPath(safe).stem, PurePosixPath(safe).suffix
        if len(safe.encode()) > _MAX_BYTES:
            stem = stem.encode()[-(_MAX_BYTES - len(suffix.encode())) :].decode(errors="ignore")
        changed = safe != plain or stem + suffix != safe
        if changed or not stem or stem.casefold() in self._taken:
            stem = f"{stem}-{_short_hash(path)}"
        self._taken.add(stem.casefold())
        return stem + suffix

    def nested(self, path: str) -> str:
        """Name that keeps the folders where that is safe, otherwise the flat one."""
        parts = path.split("/")
        unsafe = _SCHEME.match(path) or _UNSAFE.search(path) or any(p in ("", ".", "..") for p in parts)
        if unsafe or path.casefold() in self._taken:
            return self.flat(path)
        self._taken.add(path.casefold())
        return path


def _short_hash(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:8]

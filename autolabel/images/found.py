"""What a search finds, before it is given its name in the run."""

from __future__ import annotations

import re
from dataclasses import dataclass

_COMMON = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".gif", ".avif")
_RARE = (".heic", ".heif", ".jp2", ".j2k", ".pbm", ".pgm", ".ppm", ".pnm")
IMAGE_EXTENSIONS = frozenset((*_COMMON, *_RARE))
"""Extensions that folders and globs are searched for. HEIC is listed so that it fails aloud instead of vanishing."""

SKIPPED_FOLDERS = frozenset({"runs"})


@dataclass(frozen=True, slots=True)
class Found:
    """A file: where to read it, what makes it the same file, its root's and its own parts for display."""

    uri: str
    key: str
    root: tuple[str, ...]
    parts: tuple[str, ...]
    fingerprint: str = ""


def is_image_name(name: str) -> bool:
    """Tell by the extension."""
    dot = name.rfind(".")
    return dot > 0 and name[dot:].lower() in IMAGE_EXTENSIONS


def is_skipped(folders: tuple[str, ...], name: str) -> bool:
    """Tell files that a search leaves out: hidden ones, and those in hidden or ``runs`` folders."""
    return name.startswith(".") or any(folder.startswith(".") or folder in SKIPPED_FOLDERS for folder in folders)


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key that puts ``img2`` before ``img10``; the name itself breaks ties."""
    pieces = re.split(r"(\d+)", name)
    key = tuple((0, int(piece), "") if piece.isdecimal() else (1, 0, piece.casefold()) for piece in pieces if piece)
    return key, name


def natural_parts(parts: tuple[str, ...]) -> tuple[tuple[tuple[tuple[int, int, str], ...], str], ...]:
    """Sort key of a path, folder by folder."""
    return tuple(natural(part) for part in parts)

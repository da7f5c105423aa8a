"""Images on this machine: files, folders and globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from autolabel.images import uris
from autolabel.images.found import SKIPPED_FOLDERS, Found, is_image_name, is_skipped, natural, natural_parts


def absolute(text: str) -> Path:
    """Make a path absolute without following links, so that files keep the names they are known by."""
    return Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100  (Path.absolute keeps "..")


def search(text: str) -> list[Found]:
    """List a file, a folder or a glob; raises FileNotFoundError or another OSError."""
    path = absolute(text)
    if path.is_dir():
        return list(_folder(path, path))
    if path.exists() or not glob.has_magic(text):
        current = Path.cwd()
        root = current if path.is_relative_to(current) else path.parent
        return [named(path, root.parts)]
    return _glob(path)


def named(path: Path, root: tuple[str, ...]) -> Found:
    """Take one file whatever its extension; raises FileNotFoundError if there is none."""
    if not path.is_file():
        raise IsADirectoryError(f"{path} is a folder") if path.is_dir() else FileNotFoundError(str(path))
    return _found(path, root, path.resolve(), path.stat())


def _folder(folder: Path, root: Path, seen: frozenset[Path] = frozenset()) -> Iterator[Found]:
    """Walk a folder depth first in natural order; links are followed, but never in a circle."""
    real = folder.resolve()
    if real in seen:
        return
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: natural(entry.name))
    for entry in ordered:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if entry.name not in SKIPPED_FOLDERS:
                yield from _folder(folder / entry.name, root, seen | {real})
        elif is_image_name(entry.name):
            path = folder / entry.name
            if entry.is_symlink():
                status = path.stat() if path.exists() else entry.stat(follow_symlinks=False)
                yield _found(path, root.parts, path.resolve(), status)
            elif entry.is_file():
                yield _found(path, root.parts, real / entry.name, entry.stat())


def _glob(pattern: Path) -> list[Found]:
    """List a glob's files, and the images in the folders that it matches."""
    fixed = next(place for place, part in enumerate(pattern.parts) if glob.has_magic(part))
    root = Path(*pattern.parts[:fixed])
    wanted = pattern.name.rpartition(".")[2]
    any_extension = "." in pattern.name and not glob.has_magic(wanted)
    literal = SKIPPED_FOLDERS & set(pattern.parts[fixed:])
    found: dict[str, Found] = {}
    for text in glob.iglob(str(pattern), recursive=True):  # noqa: PTH207  (Path.glob lists hidden files)
        path = Path(text)
        inner = path.relative_to(root).parts
        if not literal and is_skipped(inner[:-1], inner[-1] if inner else ""):
            continue
        if path.is_file() and (any_extension or is_image_name(path.name)):
            found[text] = named(path, root.parts)
        elif path.is_dir() and "**" not in pattern.parts and path.name not in SKIPPED_FOLDERS:
            found |= {item.uri: item for item in _folder(path, root)}
    return sorted(found.values(), key=lambda item: natural_parts(item.parts))


def _found(path: Path, root: tuple[str, ...], real: Path, status: os.stat_result) -> Found:
    return Found(
        uri=str(path),
        key=str(real),
        root=root,
        parts=uris.parts(str(path)),
        fingerprint=f"{status.st_size}-{status.st_mtime_ns}",
    )

"""An output folder that appears all at once: written beside its place, listed, then renamed into it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autolabel.errors import UsageError

LISTING = ".autolabel-export"


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces ``out`` on success and vanishes on any error.

    Raises UsageError if ``out`` holds anything that an earlier export did not write: work of others is not deleted.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100 - resolve() would follow a link and replace its target
    check_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        work.chmod(0o777 & ~_umask())
        yield work
        written = sorted(path.relative_to(work).as_posix() for path in _files(work))
        (work / LISTING).write_text("".join(f"{name}\n" for name in written), encoding="utf-8")
        check_replaceable(out)
        _swap(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_replaceable(out: Path) -> None:
    """Raise UsageError unless ``out`` is absent, empty, or exactly what an earlier export wrote."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise UsageError(f"out is a file: {out}; name a folder")
    listing = out / LISTING
    known = set(listing.read_text(encoding="utf-8").splitlines()) if listing.is_file() else set()
    for path in _files(out):
        name = path.relative_to(out).as_posix()
        # Trainers leave label caches behind; they describe the labels that are about to change.
        if name != LISTING and name not in known and path.suffix != ".cache":
            raise UsageError(f"out holds {name!r}, which no export wrote: {out}; move it away or choose another folder")


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            yield path


def _swap(work: Path, out: Path) -> None:
    if not out.exists():
        work.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.parent))
    out.rename(old / "export")
    try:
        work.rename(out)
    except OSError:
        (old / "export").rename(out)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

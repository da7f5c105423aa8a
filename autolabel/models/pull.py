"""Downloading models: just the files that are needed, checked against the hub's hashes, and locked."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from autolabel.errors import ModelError
from autolabel.models.hub import (
    LAYOUTS,
    PROBE_SECONDS,
    Located,
    cached,
    canonical,
    endpoint,
    hub_reachable,
    on_disk,
    remedy,
    repository,
)
from autolabel.models.registry import backend_names, resolve
from autolabel.models.sets import SETS, named_set, part_of
from autolabel.models.weights import read_lock, write_lock
from autolabel.protocols import ENTRY_POINT_GROUPS, ModelRef, Task

Progress = Callable[[str], None]


def _silent(message: str) -> None:
    """Progress that nobody reads."""


def pull(what: str, to: Path | None = None, progress: Progress = _silent) -> tuple[Path, ...]:
    """Fetch a named set or one spec into the hub's cache; with ``to`` also copy it there, ready to be carried away.

    Returns the folders, one for each model. A copy is a plain folder that a spec may name.
    """
    folders = []
    for task, ref in _refs(what):
        found = on_disk(ref) or _locked(cached(ref))
        if found is not None:
            progress(f"{ref}: already here, {found.folder}")
        else:
            found = download(ref, progress)
        folders.append(_copy(found, to / task, progress) if to else found.folder)
    return tuple(folders)


def download(ref: ModelRef, progress: Progress = _silent) -> Located:
    """Download the files that ``ref`` needs, compare their hashes with the hub's, and write the lock beside them.

    Raises ModelError, after seconds and not minutes, when the hub is out of reach.
    """
    from huggingface_hub import snapshot_download

    if not hub_reachable():
        raise ModelError(f"{ref} is not on this disk, and the hub ({endpoint()}) does not answer. {remedy(ref)}")
    name, _ = repository(ref)
    try:
        files = _remote_files(ref)
        wanted = _wanted(ref, list(files))
        progress(f"{ref}: {len(wanted)} files, {sum(files[each].size or 0 for each in wanted) / 1e6:.0f} MB")
        folder = Path(
            snapshot_download(name, revision=ref.revision, allow_patterns=wanted, etag_timeout=2 * PROBE_SECONDS)
        )
    except ModelError:
        raise
    except Exception as error:  # the client raises its HTTP library's errors as they come
        raise _explained(ref, error) from error
    _lock(ref, folder, wanted, files)
    progress(f"{ref}: revision {folder.name}, in {folder}")
    found = cached(ref)
    if found is None:
        raise ModelError(f"{ref} was downloaded to {folder}, but not all of it is there; pull again")
    return found


def _refs(what: str) -> list[tuple[Task, ModelRef]]:
    if what in SETS:
        return [(part.task, part.ref) for part in named_set(what).parts]
    backend = what.partition(":")[0]
    for task in ENTRY_POINT_GROUPS:
        if backend in LAYOUTS and backend in backend_names(task):
            return [(task, canonical(resolve(task, what)))]
    raise ModelError(f"{what!r} is no model set ({', '.join(SETS)}) and no spec of {', '.join(LAYOUTS)}")


def _locked(found: Located | None) -> Located | None:
    return found if found is not None and read_lock(found.folder) else None


def _remote_files(ref: ModelRef) -> dict[str, Any]:
    from huggingface_hub import HfApi

    name, _ = repository(ref)
    info = HfApi().model_info(name, revision=ref.revision, files_metadata=True, timeout=2 * PROBE_SECONDS)
    return {each.rfilename: each for each in info.siblings or ()}


def _wanted(ref: ModelRef, names: Sequence[str]) -> list[str]:
    """Of a repository's files, those to fetch: configuration, tokenizer, and the best kind of weights there is."""
    _, file = repository(ref)
    if file is not None and file in names:
        return [file]
    layout = LAYOUTS[ref.backend]
    others = [name for name in names if any(fnmatch(name, pattern) for pattern in layout.needs + layout.extras)]
    for pattern in layout.weights:
        weights = [name for name in names if fnmatch(name, pattern) and "/" not in name]
        if weights and file is None:
            return others + weights
    raise ModelError(f"{ref}: the repository has none of {file or ', '.join(layout.weights)}")


def _lock(ref: ModelRef, folder: Path, names: Sequence[str], remote: dict[str, Any]) -> None:
    path = write_lock(folder, repository(ref)[0], folder.name, [folder / name for name in names])
    here = read_lock(folder)["files"]
    part = part_of(ref)
    pinned = part.weights_sha256 if part and part.ref.revision == ref.revision else None
    for name in names:
        stated = remote[name].lfs.sha256 if remote[name].lfs else None
        known = pinned if any(fnmatch(name, pattern) for pattern in LAYOUTS[ref.backend].weights) else None
        arrived = here[Path(name).name]["sha256"]
        for expected, source in ((stated, "the hub states"), (known, "this version of autolabel pins")):
            if expected not in (None, arrived):
                path.unlink()
                raise ModelError(f"{ref}: {name} arrived with sha256 {arrived}, {source} {expected}; pull again")


def _explained(ref: ModelRef, error: Exception) -> ModelError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return ModelError(f"{ref}: accept the model's terms on its page of the hub, then set HF_TOKEN")
    if isinstance(error, RepositoryNotFoundError):
        return ModelError(f"{ref}: the hub has no such repository, or it is private and HF_TOKEN is not set")
    if isinstance(error, RevisionNotFoundError):
        return ModelError(f"{ref}: the repository has no revision {ref.revision!r}")
    return ModelError(f"{ref} could not be downloaded ({type(error).__name__}: {error}). {remedy(ref)}")


def _copy(found: Located, folder: Path, progress: Progress) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for source in (path for path in found.folder.iterdir() if path.is_file()):
        # The cache holds links to blobs; a folder to carry away needs the files themselves.
        shutil.copyfile(source.resolve(), folder / source.name)
    progress(f"copied to {folder}")
    return folder

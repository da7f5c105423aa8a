"""Weight files: their hashes, the lock that pins them, and reading them without running code."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolabel.errors import ModelError

if TYPE_CHECKING:
    import torch

LOCK_NAME = "autolabel.lock.json"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits; a file that has not changed since is not read again."""
    state = path.stat()
    return _sha256(path.resolve(), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def weights_sha256(files: Sequence[Path]) -> str:
    """Hash of a model's weights: the file's own SHA-256, or of several files the SHA-256 of their sorted listing.

    Raises ModelError when a lock beside a file states another hash.
    """
    hashes = {path.name: _checked_sha256(path) for path in files}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def _checked_sha256(path: Path) -> str:
    digest = file_sha256(path)
    locked = read_lock(path.parent).get("files", {}).get(path.name)
    if locked is not None and locked["sha256"] != digest:
        raise ModelError(
            f"{path} has sha256 {digest}, but {LOCK_NAME} beside it says {locked['sha256']}: the file is damaged or "
            "was replaced; delete the folder and pull the model again, or delete the lock if the change is yours"
        )
    return digest


def read_lock(folder: Path) -> dict[str, Any]:
    """Read the lock of a model folder: repository, resolved revision, and each file's size and hash; {} if none."""
    path = folder / LOCK_NAME
    if not path.is_file():
        return {}
    try:
        lock: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}); delete it and pull the model again") from error
    return lock


def write_lock(folder: Path, repository: str, revision: str, files: Sequence[Path]) -> Path:
    """Write the lock of a model folder and return its path."""
    entries = {f.name: {"bytes": f.stat().st_size, "sha256": file_sha256(f)} for f in sorted(files)}
    path = folder / LOCK_NAME
    content = {"repository": repository, "revision": revision, "files": entries}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    part.replace(path)
    return path


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read named tensors from safetensors, or from a PyTorch file that holds nothing but data.

    Raises ModelError for a file that would have to run code to be read.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors, and reading it could run code; convert it to safetensors first ({error})"
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise ModelError(f"{path} holds no table of named tensors; is it a checkpoint of this model?")
    return dict(content)


def load_strict(model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load ``state`` into ``model``; raises ModelError that names missing, unknown and misshapen tensors."""
    own = model.state_dict()
    problems = {
        "missing": [k for k in own if k not in state],
        "unknown": [k for k in state if k not in own],
        "of another shape": [k for k in own if k in state and own[k].shape != state[k].shape],
    }
    wrong = [f"{len(keys)} {what} ({', '.join(keys[:3])} …)" for what, keys in problems.items() if keys]
    if wrong:
        raise ModelError(f"{path} does not fit this model's configuration: tensors {'; '.join(wrong)}")
    model.load_state_dict(dict(state))

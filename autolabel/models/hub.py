"""From a reference to local files: the bundled starter, a path, the hub's cache, or a download."""

from __future__ import annotations

import os
import re
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

from autolabel.errors import ModelError
from autolabel.models.sets import SETS
from autolabel.models.weights import read_lock
from autolabel.protocols import ModelRef, Runtime

STARTER = Path(__file__).parent.parent / "starter"
PROBE_SECONDS = 5.0
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json")
OPEN_CLIP_CONFIG = "open_clip_config.json"
_REPOSITORY = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:/(?P<file>[\w.-]+(?:/[\w.-]+)*))?")


@dataclass(frozen=True, slots=True)
class Layout:
    """A backend's files: its part of the starter, what must be there, what is fetched with it, weights best first."""

    starter: str
    needs: tuple[str, ...]
    extras: tuple[str, ...]
    weights: tuple[str, ...]


LAYOUTS: dict[str, Layout] = {
    "grounding-dino": Layout(
        "detector",
        ("config.json",),
        ("preprocessor_config.json", *TOKENIZER_FILES),
        ("model*.safetensors*", "pytorch_model.bin"),
    ),
    "groundingdino-py": Layout("", (), (), ("groundingdino*.pth",)),
    "sam2": Layout("segmenter", (), ("config.yaml",), ("sam2*.pt", "model.safetensors")),
    "open-clip": Layout(
        "classifier",
        (OPEN_CLIP_CONFIG,),
        TOKENIZER_FILES,
        ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
    ),
}


@dataclass(frozen=True, slots=True)
class Located:
    """Where a model lies: its folder, the weight files in it, and the revision its lock states."""

    folder: Path
    weights: tuple[Path, ...]
    revision: str | None = None


def locate(ref: ModelRef, runtime: Runtime) -> Located:
    """Return the local files of ``ref``, downloading them when they are missing and the runtime allows it.

    Raises ModelError that says what to do when they cannot be had.
    """
    ref = canonical(ref)
    local = on_disk(ref)
    if local is not None:
        return local
    found = cached(ref)
    if found is not None:
        return found
    if runtime.offline:
        raise ModelError(f"{ref} is not on this disk, and offline nothing is downloaded. {remedy(ref)}")
    from autolabel.models.pull import download

    return download(ref)


def canonical(ref: ModelRef) -> ModelRef:
    """Replace open_clip's own ``ARCHITECTURE/TAG`` by the repository that holds it, and a ``weights`` option by it."""
    if ref.backend != "open-clip" or ref.reference == "starter":
        return ref
    weights = dict(ref.options).get("weights")
    if weights is not None:
        if not Path(weights).expanduser().is_file():
            raise ModelError(f"{ref}: no weights file {weights}")
        return replace(ref, reference=weights)
    if Path(ref.reference).expanduser().exists():
        return ref
    from autolabel.models.open_clip import hub_ref

    return hub_ref(ref)


def on_disk(ref: ModelRef) -> Located | None:
    """Return the files of the starter or of a path; None when the reference is neither."""
    layout = LAYOUTS[ref.backend]
    if ref.reference == "starter" and layout.starter:
        folder = STARTER / layout.starter
        if not folder.is_dir():
            raise ModelError(f"the bundled starter {layout.starter} is missing ({folder}); reinstall autolabel-vision")
        return in_folder(folder, layout)
    path = Path(ref.reference).expanduser()
    if path.is_file():
        return Located(path.parent, (path,), read_lock(path.parent).get("revision"))
    return in_folder(path, layout) if path.is_dir() else None


def in_folder(folder: Path, layout: Layout) -> Located:
    """Return a model folder's files; raises ModelError that names the first one missing."""
    missing = [name for name in layout.needs if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder} is no model folder: it has no {', '.join(missing)}")
    for pattern in layout.weights:
        files = tuple(sorted(folder.glob(pattern)))
        if files:
            return Located(folder, files, read_lock(folder).get("revision"))
    raise ModelError(f"{folder} has no weights: it holds none of {', '.join(layout.weights)}")


def repository(ref: ModelRef) -> tuple[str, str | None]:
    """Split a reference into the hub's repository and, where it is named, one file in it."""
    match = _REPOSITORY.fullmatch(ref.reference)
    if match is None:
        raise ModelError(f"{ref}: {ref.reference!r} is no file, no folder and no repository (owner/name)")
    return match["id"], match["file"]


def cached(ref: ModelRef) -> Located | None:
    """Return the hub cache's copy of ``ref`` (``HF_HOME`` is honoured), or None when it is not whole."""
    name, file = repository(ref)
    layout = LAYOUTS[ref.backend]
    folder = _snapshot(name, ref.revision, [file] if file else list(layout.needs or layout.extras))
    if folder is None:
        return None
    if file is not None:
        path = folder / file
        return Located(path.parent, (path,), folder.name) if path.is_file() else None
    try:
        return in_folder(folder, layout)
    except ModelError:
        return None


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=patterns))
    except OSError:  # what the hub's client raises for a missing entry is a FileNotFoundError
        return None


def tokenizer_files(name: str, option: str, runtime: Runtime) -> Path:
    """Return a folder with a repository's configuration and tokenizer, without its weights."""
    from huggingface_hub import snapshot_download

    patterns = ["config.json", *TOKENIZER_FILES]
    folder = _snapshot(name, None, patterns)
    if folder is not None and any((folder / file).is_file() for file in ("tokenizer.json", "vocab.txt")):
        return folder
    if runtime.offline or not hub_reachable():
        raise ModelError(
            f"the tokenizer of {name} is not on this disk and the hub is out of reach; give it as {option}"
        )
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, etag_timeout=2 * PROBE_SECONDS))
    except OSError as error:
        raise ModelError(f"the tokenizer of {name} could not be downloaded ({error}); give it as {option}") from error


def remedy(ref: ModelRef) -> str:
    """Say how to bring a model to a machine that cannot download it."""
    owners = [s.name for s in SETS.values() for part in s.parts if part.ref.reference == ref.reference]
    option = {"sam2": "segmenter", "open-clip": "classifier"}.get(ref.backend, "detector")
    return (
        f"On a connected machine run: autolabel models pull {owners[0] if owners else repr(str(ref))} --to models; "
        f"copy the folder here and say --{option} models/{option}. "
        "The bundled models need no download: --models starter"
    )


def endpoint() -> str:
    """Address of the hub, or of the mirror that ``HF_ENDPOINT`` names."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def hub_reachable(seconds: float = PROBE_SECONDS) -> bool:
    """Whether the hub answers within ``seconds``; any answer counts, also an error page."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(endpoint(), method="HEAD")
            urllib.request.urlopen(request, timeout=seconds).close()
        except urllib.error.HTTPError:
            answers.append(True)
        except (OSError, ValueError):
            answers.append(False)
        else:
            answers.append(True)

    # In a thread, because looking up a name has no time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds + 1)
    return bool(answers) and answers[0]

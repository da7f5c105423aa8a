"""Model specs as text: ``backend:reference[@revision][?option=value&…]``, or a bare local file or folder.

``grounding-dino:IDEA-Research/grounding-dino-base@main?batch=4`` names a backend, what it loads, and how. A backend
reads its options through ``Options``, so that a misspelt one is an error and not a silent default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from autolabel.errors import ModelError
from autolabel.protocols import ModelRef, Task

_BACKEND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]+")
_REVISION = re.compile(r"(?P<reference>.+)@(?P<revision>[A-Za-z0-9][A-Za-z0-9_.-]*)")
_WEIGHT_SUFFIXES = (".pt", ".pth", ".safetensors")


def parse_spec(text: str, task: Task, installed: Iterable[str]) -> ModelRef:
    """Parse ``text`` for ``task``; ``installed`` are the backends there are.

    A bare file or folder is given the backend that its layout shows. Raises ModelError with what would be right.
    """
    spec = text.strip()
    known = sorted(set(installed))
    head, colon, rest = spec.partition(":")
    if colon and _BACKEND.fullmatch(head) and not Path(spec.partition("?")[0]).exists():
        if head not in known:
            raise ModelError(
                f"{task} backend {head!r} is not installed (in {text!r}); installed: {', '.join(known) or 'none'}"
            )
        if not rest.partition("?")[0]:
            raise ModelError(f"{task} spec {text!r} names no model; write {head}:<folder or repository>")
        return _reference(head, rest)
    body = _reference("", spec)
    path = Path(body.reference).expanduser()
    if not path.exists():
        hint = f"; for a repository of the hub write {known[0]}:{spec}" if known and "/" in spec else ""
        raise ModelError(f"{task} spec {text!r} is neither backend:reference nor a file or folder that exists{hint}")
    backend = infer_backend(path, task)
    if backend not in known:
        raise ModelError(f"{path} needs the {task} backend {backend!r}; installed: {', '.join(known) or 'none'}")
    return ModelRef(backend, str(path), body.revision, body.options)


def infer_backend(path: Path, task: Task) -> str:
    """Name the backend whose files lie at ``path``, by suffix or by the configuration file in the folder."""
    if path.is_dir():
        found = {
            "detector": ("config.json", "grounding-dino"),
            "segmenter": ("config.yaml", "sam2"),
            "classifier": ("open_clip_config.json", "open-clip"),
        }[task]
        if (path / found[0]).is_file():
            return found[1]
        raise ModelError(f"{path} holds no {found[0]}, so it is no {task} folder; name the backend: backend:{path}")
    if path.suffix not in _WEIGHT_SUFFIXES:
        raise ModelError(f"{path} is no weights file ({', '.join(_WEIGHT_SUFFIXES)}) and no folder")
    by_task: dict[Task, dict[str, str]] = {
        "detector": {".pth": "groundingdino-py"},
        "segmenter": {".pt": "sam2", ".pth": "sam2", ".safetensors": "sam2"},
        "classifier": {},
    }
    backend = by_task[task].get(path.suffix)
    if backend is None:
        raise ModelError(f"{path}: a {task} is not loaded from a bare {path.suffix} file; give its folder")
    return backend


def _reference(backend: str, text: str) -> ModelRef:
    """Split ``reference[@revision][?options]``; an "@" in the path of an existing file is no revision."""
    reference, _, query = text.partition("?")
    revision = None
    match = _REVISION.fullmatch(reference)
    if match and not Path(reference).expanduser().exists():
        reference, revision = match["reference"], match["revision"]
    options = []
    for item in query.split("&") if query else ():
        name, equals, value = item.partition("=")
        if not name or not equals:
            raise ModelError(f"option {item!r} of {text!r} is not written name=value")
        options.append((name, value))
    return ModelRef(backend, reference, revision, tuple(options))


class Options:
    """A ref's options, read by name; ``done`` raises for one that nobody asked for.

    ``defaults`` are what the model's own folder says of itself; the spec's options go before them.
    """

    def __init__(self, ref: ModelRef, defaults: dict[str, str] | None = None) -> None:
        self._ref = ref
        self._given = {**(defaults or {}), **dict(ref.options)}
        self._asked: set[str] = set()

    def text(self, name: str, default: str) -> str:
        """Return option ``name`` as it is written."""
        self._asked.add(name)
        return self._given.get(name, default)

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """Return option ``name``, one of ``choices``."""
        value = self.text(name, default)
        if value not in choices:
            raise ModelError(f"{self._ref}: option {name} must be one of {', '.join(choices)}, got {value!r}")
        return value

    def integer(self, name: str, default: int, low: int = 1) -> int:
        """Return option ``name`` as a whole number of at least ``low``."""
        value = self.text(name, str(default))
        if not value.isdecimal() or int(value) < low:
            raise ModelError(f"{self._ref}: option {name} must be a whole number >= {low}, got {value!r}")
        return int(value)

    def optional_integer(self, name: str) -> int | None:
        """Return option ``name`` as a whole number of at least 1, or None where it is not given."""
        return self.integer(name, 1) if self.text(name, "") else None

    def number(self, name: str, default: float) -> float:
        """Return option ``name`` as a number that is not negative."""
        value = self.text(name, str(default))
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0.0 <= number < float("inf"):
            raise ModelError(f"{self._ref}: option {name} must be a number >= 0, got {value!r}")
        return number

    def optional_number(self, name: str, low: float = 0.0) -> float | None:
        """Return option ``name`` as a number of at least ``low``, or None where it is not given."""
        if not self.text(name, ""):
            return None
        value = self.number(name, low)
        if value < low:
            raise ModelError(f"{self._ref}: option {name} must be at least {low:g}, got {value:g}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Return option ``name`` as true or false."""
        return self.choice(name, "true" if default else "false", ("true", "false")) == "true"

    def done(self) -> None:
        """Raise ModelError when the spec holds an option that was never asked for."""
        unknown = [name for name, _ in self._ref.options if name not in self._asked]
        if unknown:
            raise ModelError(
                f"{self._ref}: unknown option {', '.join(unknown)}; known: {', '.join(sorted(self._asked)) or 'none'}"
            )


def least_probability(options: Options) -> float:
    """Read a classifier's option ``min_prob``, 0 where it is not given: below it, its label is not to be trusted."""
    least = options.optional_number("min_prob") or 0.0
    if least > 1:
        raise ModelError(f"option min_prob must be in [0, 1], got {least:g}")
    return least


def folder_defaults(config: Path) -> dict[str, str]:
    """Options that a model folder states for itself, in the table ``autolabel`` of its JSON configuration file.

    A model trained on crops of a certain shape says so here, and is then used on the same.
    """
    if not config.is_file():
        return {}
    table = json.loads(config.read_text("utf-8")).get("autolabel", {})
    return {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in table.items()}

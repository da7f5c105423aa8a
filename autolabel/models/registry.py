"""Which backends are installed, and how one is loaded: by entry points, the built-in ones like anyone's.

An entry point names a function ``load(ref, runtime)``, or a class with ``predict_batch`` that is made without
arguments or with ``(ref, runtime)``. ``info`` is optional, and what ``predict_batch`` returns is checked.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from autolabel.errors import AutolabelError, ModelError
from autolabel.models.imports import heavy_imports_later, import_light
from autolabel.models.sets import SET_NAMES, named_set
from autolabel.models.specs import parse_spec
from autolabel.protocols import ENTRY_POINT_GROUPS, Classifier, Detector, ModelRef, Runtime, Segmenter, Task
from autolabel.types import ModelInfo

DISTRIBUTION = "autolabel-vision"


@dataclass(frozen=True, slots=True)
class Backend:
    """One installed backend: its name, what it loads, and the distribution it came with."""

    task: Task
    name: str
    target: str
    distribution: str
    version: str

    @property
    def builtin(self) -> bool:
        """Whether it ships with autolabel."""
        return self.distribution.lower().replace("_", "-") == DISTRIBUTION


def _points(task: Task) -> list[tuple[Backend, EntryPoint]]:
    found: dict[tuple[str, str, str], tuple[Backend, EntryPoint]] = {}
    for point in entry_points(group=ENTRY_POINT_GROUPS[task]):
        name, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "unknown")
        # One distribution can lie on the path twice (an editable install beside a wheel); that is one backend.
        found.setdefault(
            (point.name, point.value, name), (Backend(task, point.name, point.value, name, version), point)
        )
    return sorted(found.values(), key=lambda pair: (not pair[0].builtin, pair[0].name, pair[0].distribution))


def backends(task: Task | None = None) -> tuple[Backend, ...]:
    """List installed backends, of one task or of all; the built-in ones first."""
    tasks: Sequence[Task] = (task,) if task else tuple(ENTRY_POINT_GROUPS)
    return tuple(backend for each in tasks for backend, _ in _points(each))


def backend_names(task: Task) -> tuple[str, ...]:
    """Names of the installed backends of ``task``."""
    return tuple(dict.fromkeys(backend.name for backend in backends(task)))


def resolve(task: Task, spec: str | None = None, models: str = "starter") -> ModelRef:
    """Return what to load for ``task``: ``spec`` where it is given (text, or the name of a set), else the set's."""
    name = spec if spec in SET_NAMES else models if spec is None else None
    if name is not None:
        return named_set(name).part(task).ref
    text = cast(str, spec)
    if any(backend.name == text and not backend.builtin for backend in backends(task)):
        return ModelRef(text, "")  # a plug-in that has but one model needs no name for it
    return parse_spec(text, task, backend_names(task))


def load(task: Task, ref: ModelRef | str, runtime: Runtime) -> Detector | Segmenter | Classifier:
    """Load the model that ``ref`` names; raises ModelError that says what is missing and how to get it."""
    if isinstance(ref, str):
        ref = resolve(task, ref)
    matches = [(b, p) for b, p in _points(task) if b.name == ref.backend]
    if not matches:
        names = ", ".join(backend_names(task)) or "none"
        raise ModelError(f"{task} backend {ref.backend!r} is not installed; installed: {names}")
    if len(matches) > 1:
        owners = " and ".join(f"{b.distribution} {b.version}" for b, _ in matches)
        raise ModelError(f"{task} backend {ref.backend!r} is offered by {owners}; uninstall one of them")
    backend, point = matches[0]
    if backend.builtin:
        import_light(point.module)
    try:
        with heavy_imports_later() if backend.builtin else nullcontext():
            model = _make(point.load(), ref, runtime)
    except AutolabelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{task} backend {ref.backend!r} of {backend.distribution} {backend.version} failed to load {ref}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(getattr(model, "predict_batch", None)):
        raise ModelError(f"{task} backend {ref.backend!r} of {backend.distribution} has no predict_batch method")
    if not backend.builtin or not isinstance(getattr(model, "info", None), ModelInfo):
        model = Checked(model, backend, ref, runtime)
    else:
        from autolabel.models.accelerate import apply  # it imports torch

        apply(task, model, ref, runtime)
    return cast("Detector | Segmenter | Classifier", model)


def load_detector(ref: ModelRef | str, runtime: Runtime) -> Detector:
    """Load a detector."""
    return cast(Detector, load("detector", ref, runtime))


def load_segmenter(ref: ModelRef | str, runtime: Runtime) -> Segmenter:
    """Load a segmenter."""
    return cast(Segmenter, load("segmenter", ref, runtime))


def load_classifier(ref: ModelRef | str, runtime: Runtime) -> Classifier:
    """Load a classifier."""
    return cast(Classifier, load("classifier", ref, runtime))


def _make(loader: Any, ref: ModelRef, runtime: Runtime) -> Any:
    """Call what an entry point names: a function, or a class with or without ``(ref, runtime)``."""
    if inspect.isclass(loader):
        made: Any = loader
        required = [
            p
            for p in inspect.signature(loader).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        return made(ref, runtime) if len(required) == 2 else made()
    return loader(ref, runtime)


class Checked:
    """A third party's model with an ``info`` of our own and its answers checked: one for each image."""

    def __init__(self, model: Any, backend: Backend, ref: ModelRef, runtime: Runtime) -> None:
        self._model = model
        self._backend = backend
        own = getattr(model, "info", None)
        self.info = (
            own if isinstance(own, ModelInfo) else ModelInfo(str(ref), None, None, runtime.device, runtime.dtype)
        )

    def __getattr__(self, name: str) -> Any:
        """Pass on what a model offers beside its batch method, such as prompts for a segmenter."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._model, name)

    def predict_batch(self, images: Sequence[Any], *args: Any, **kwargs: Any) -> Sequence[Any]:
        """Pass the call on; raises ModelError when the number of answers is wrong."""
        answers = list(self._model.predict_batch(images, *args, **kwargs))
        if len(answers) != len(images):
            raise ModelError(
                f"{self._backend.task} backend {self._backend.name!r} of {self._backend.distribution} gave "
                f"{len(answers)} answers for {len(images)} images"
            )
        return answers

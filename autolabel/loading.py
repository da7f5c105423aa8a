"""The models of a run: what they are is known at once, they are loaded when the first batch needs them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolabel.config import Recipe
from autolabel.errors import ConfigError
from autolabel.manifest import fingerprint
from autolabel.models import hub, registry
from autolabel.models.hub import OPEN_CLIP_CONFIG
from autolabel.models.runtime import keep_memory, on_gpu, pick_runtime
from autolabel.models.specs import Options, folder_defaults, least_probability
from autolabel.models.weights import file_sha256, weights_sha256
from autolabel.protocols import Runtime, Task
from autolabel.types import ModelInfo

NONE = "none"
# One at a time: the packages that models come with are imported on the way, and not all bear two threads at that.
_LOADING = threading.RLock()


class LazyModel:
    """A model that is loaded on first use.

    ``spec`` is what people read; ``identity`` enters the keys of stored results, so it must change whenever the
    model's answers could, and must not change when its folder is moved. ``given`` models were loaded by the caller.
    ``min_prob`` is the probability below which a classifier says that its label is not to be trusted. Safe between
    threads.
    """

    def __init__(
        self,
        spec: str,
        identity: str,
        load: Callable[[], Any],
        *,
        device: str = "cpu",
        given: bool = False,
        min_prob: float = 0.0,
    ) -> None:
        self.spec = spec
        self.identity = identity
        self.device = device
        self.given = given
        self.min_prob = min_prob
        self._load = load
        self._loaded: list[Any] = []
        self._lock = threading.Lock()
        self.load_seconds = 0.0

    @property
    def model(self) -> Any:
        """The loaded model; threads that ask for it at once load it once."""
        with self._lock:
            if not self._loaded:
                with _LOADING:
                    started = time.perf_counter()
                    self._loaded.append(self._load())
                    self.load_seconds = time.perf_counter() - started
            return self._loaded[0]

    @property
    def loaded(self) -> bool:
        """Tell whether the model is in memory."""
        return bool(self._loaded)

    @property
    def info(self) -> ModelInfo:
        """What is recorded about the model; loads it."""
        info = getattr(self.model, "info", None)
        return info if isinstance(info, ModelInfo) else ModelInfo(spec=self.spec)


@dataclass(frozen=True, slots=True)
class Models:
    """Detector, and where wanted segmenter and classifier."""

    detector: LazyModel
    segmenter: LazyModel | None = None
    classifier: LazyModel | None = None

    @property
    def min_prob(self) -> float:
        """Least probability that the classifier asks for; 0 where it says nothing or there is none."""
        return self.classifier.min_prob if self.classifier else 0.0

    def parts(self) -> dict[str, LazyModel]:
        """Return the models there are, by task."""
        named = {"detector": self.detector, "segmenter": self.segmenter, "classifier": self.classifier}
        return {task: model for task, model in named.items() if model is not None}


def models_for(recipe: Recipe, *, offline: bool = False, given: Mapping[str, object] | None = None) -> Models:
    """Find the models that a recipe names; ``given`` are loaded ones to use instead, by task.

    Raises ModelError when a backend is not installed or its weights cannot be had.
    """
    given = {task: model for task, model in (given or {}).items() if model is not None}
    runtime = None

    def find(task: Task, spec: str | None) -> LazyModel | None:
        nonlocal runtime
        if task in given:
            return already_loaded(given[task])
        if spec == NONE:
            return None
        # Choosing a device imports torch, which a run with models of its own may not need.
        if runtime is None:
            runtime = pick_runtime(recipe.device, recipe.dtype, offline, recipe.cpu, recipe.compile)
            if not on_gpu(runtime):
                # Now, since threads that a run starts later take over what is set here.
                keep_memory()
        return lazily(task, spec, recipe.models, runtime)

    detector = find("detector", recipe.detector)
    if detector is None:
        raise ConfigError('detector = "none": a run needs a detector; leave the setting out for the default')
    return Models(detector, find("segmenter", recipe.segmenter), find("classifier", recipe.classifier))


def lazily(task: Task, spec: str | None, models: str, runtime: Runtime) -> LazyModel:
    """Find one model's files and hash them, and load it only when it is needed."""
    ref = registry.resolve(task, spec, models)
    options = "&".join(f"{name}={value}" for name, value in ref.options)
    min_prob = 0.0
    if ref.backend in hub.LAYOUTS:
        found = hub.locate(ref, runtime)
        if task == "classifier":
            min_prob = least_probability(Options(ref, folder_defaults(found.folder / OPEN_CLIP_CONFIG)))
        identity = (
            f"{ref.backend}?{options}#{weights_sha256(found.weights)} {_configuration(ref.backend, found.folder)}"
        )
    else:
        owner = next((b for b in registry.backends(task) if b.name == ref.backend), None)
        identity = f"{ref}#{owner.distribution} {owner.version}" if owner else str(ref)
    # The dtype changes answers beyond rounding; the device alone does not.
    if runtime.dtype != "float32":
        identity += f" {runtime.dtype}"
    return LazyModel(
        str(ref), identity, lambda: registry.load(task, ref, runtime), device=runtime.device, min_prob=min_prob
    )


def _configuration(backend: str, folder: Path) -> str:
    """Fingerprint the small files beside the weights: image sizes, tokenizer, a model's own options."""
    layout = hub.LAYOUTS[backend]
    files = sorted({path for pattern in (*layout.needs, *layout.extras) for path in folder.glob(pattern)})
    return fingerprint([[path.name, file_sha256(path)] for path in files])


def already_loaded(model: object) -> LazyModel:
    """Wrap a loaded model, for example a detector of your own."""
    info = getattr(model, "info", None)
    spec = info.spec if isinstance(info, ModelInfo) else f"{type(model).__module__}.{type(model).__qualname__}"
    weights = info.weights_sha256 if isinstance(info, ModelInfo) else None
    device = info.device if isinstance(info, ModelInfo) else "cpu"
    min_prob = float(getattr(model, "min_prob", None) or 0.0)
    identity = f"{spec}#{weights}" if weights else spec
    return LazyModel(spec, identity, lambda: model, device=device, given=True, min_prob=min_prob)

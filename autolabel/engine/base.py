"""What an engine is given and what it answers. All of it can be pickled, so that other processes can do the work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from autolabel.config import Recipe
from autolabel.errors import ModelError
from autolabel.images import Admit, Source, redact
from autolabel.labeling import NOTHING, Batch, Known, Plan, ReadImage, read, reread
from autolabel.loading import Models, models_for
from autolabel.shards import ImageRow
from autolabel.types import ModelInfo

_STAGES = {"detector": "detect", "segmenter": "segment", "classifier": "classify"}


@dataclass(frozen=True, slots=True)
class Work:
    """Images that make one shard, and what is stored about them already.

    ``sources`` says for each row where to read its image, None where it shall not be read. ``shard`` is the number of
    a shard that lacks a stage, None for new images; ``known`` are the stages that it has.
    """

    rows: tuple[ImageRow, ...]
    sources: tuple[Source | None, ...] = field(repr=False)
    shard: int | None = None
    known: Known = NOTHING

    @classmethod
    def new(cls, sources: Sequence[Source]) -> Work:
        """Name images that are not stored yet."""
        rows = tuple(ImageRow(source.path, redact(source.uri), source.fingerprint) for source in sources)
        return cls(rows, tuple(sources))

    def read(self, place: int, admit: Admit | None = None) -> ReadImage:
        """Read and decode one image; what goes wrong is in the answer. ``admit`` may hold up the decoding."""
        source = self.sources[place]
        if self.shard is None and source is not None:
            return read(source, admit)
        return reread(self.rows[place], source, admit)


@dataclass(frozen=True, slots=True)
class Held(Work):
    """Images that are in memory already."""

    images: tuple[ReadImage, ...] = ()

    @classmethod
    def of(cls, images: Sequence[ReadImage]) -> Held:
        """Take images as they are."""
        return cls(tuple(image.row for image in images), (None,) * len(images), images=tuple(images))

    def read(self, place: int, admit: Admit | None = None) -> ReadImage:
        """Return one of the images."""
        image = self.images[place]
        if admit is not None and image.pixels is not None:
            admit(image.pixels.shape[0] * image.pixels.shape[1])
        return image


@dataclass(frozen=True, slots=True)
class Done:
    """A `Work` with all that the stages say about it; ``read_seconds`` is what reading and decoding took."""

    rows: tuple[ImageRow, ...]
    batch: Batch
    read_seconds: float = 0.0
    shard: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What an engine can tell at the end, beside the seconds that the stages noted themselves.

    ``models`` are those that were loaded, by task, ``load_seconds`` what that took on the clock (of several processes
    the slowest). ``forward_seconds`` were spent in forward passes, by stage and summed over ``processes``; they are
    empty where that is not known: a GPU works on after a pass was launched, and a third party's model need not tell.
    """

    models: Mapping[str, ModelInfo] = field(default_factory=dict)
    load_seconds: float = 0.0
    forward_seconds: Mapping[str, float] = field(default_factory=dict)
    processes: int = 1


class Engine(Protocol):
    """Labels works in any way it likes and answers in their order; it never touches the run folder.

    What follows from that: every engine gives the same shards, and a kill costs what is in flight.
    """

    def label(self, works: Iterable[Work]) -> Generator[Done, None, None]:
        """Answer for each work, in order, until an error: what is in flight then may be lost, what was answered is not.

        The iterator is a generator: closing it stops everything that the engine started. ``works`` is taken from as
        there is room, perhaps from another thread, and may be long.
        """
        ...

    def facts(self) -> Facts:
        """Tell about models and time, once the answers are through."""
        ...


@dataclass(frozen=True, slots=True)
class Setup:
    """What another process needs to label as this one would. Picklable; loaded models are not.

    ``identities`` are the models' own by task: a process that finds other weights must say so and not label.
    """

    recipe: Recipe
    plan: Plan
    offline: bool = False
    identities: Mapping[str, str] = field(default_factory=dict)

    def load(self, device: str | None = None) -> Models:
        """Find the same models in this process, to be loaded on first use; ``device`` overrides the recipe's.

        Raises ModelError where the weights are not those that the run was started with.
        """
        models = models_for(self.recipe.merged({"device": device}), offline=self.offline)
        for task, model in models.parts().items():
            expected = self.identities.get(task, model.identity)
            if model.identity != expected:
                raise ModelError(
                    f"the {task} here is {model.identity!r}, the run was started with {expected!r}; "
                    "install the same weights and packages wherever it is labelled"
                )
        return models


class OneModelSet:
    """What engines that label in this process share: their models, and what they note about them."""

    def __init__(self, models: Models, plan: Plan) -> None:
        self._models = models
        self._plan = plan
        self._forward: Counter[str] = Counter()
        self._before = loaded_tasks(models)

    def facts(self) -> Facts:
        """Tell about the models that were loaded."""
        return facts_of(self._models, self._forward, self._before)


def facts_of(models: Models, forward_seconds: Mapping[str, float], before: frozenset[str] = frozenset()) -> Facts:
    """Collect what the models of this process tell; those of ``before`` were loaded earlier, which took no time now."""
    loaded = {task: model for task, model in models.parts().items() if model.loaded}
    seconds = sum(model.load_seconds for task, model in loaded.items() if task not in before)
    infos = {task: model.info for task, model in loaded.items()}
    on_gpu = any(info.device.startswith("cuda") for info in infos.values())
    # A third party's model need not tell; a part of the truth would look like time lost.
    told = all(forward_seconds.get(_STAGES[task], 0.0) > 0 for task in loaded)
    return Facts(infos, seconds, dict(forward_seconds) if told and not on_gpu else {})


def loaded_tasks(models: Models) -> frozenset[str]:
    """Name the tasks whose models are in memory."""
    return frozenset(task for task, model in models.parts().items() if model.loaded)

"""The engine of this process: images are decoded ahead, and each stage works while the next ones do.

The detector looks at one portion of images while the segmenter has the one before and the classifier the one before
that; whoever takes the answers writes them meanwhile. On a CPU the forward passes take turns, so that all cores are
theirs; on a GPU the launches overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from autolabel.engine.base import Done, OneModelSet, Work, loaded_tasks
from autolabel.engine.crew import Crew
from autolabel.engine.portions import part_of, together
from autolabel.engine.reading import PixelBudget, Portion, Reader
from autolabel.labeling import Known, Staged, finish, run_classify, run_detect, run_segment
from autolabel.shards import ImageRow

Item = TypeVar("Item")
Answer = TypeVar("Answer")
_CPU_PORTION = 4
"""Images that go from stage to stage together on a CPU, where larger batches do not pay and only make others wait."""


@dataclass(frozen=True, slots=True)
class _Item:
    """A portion on its way, and what was said about it so far."""

    portion: Portion
    staged: Staged


@dataclass(frozen=True, slots=True)
class _Part:
    """What is left of a portion when its pixels are gone."""

    rows: tuple[ImageRow, ...]
    staged: Staged
    read_seconds: float
    last: bool
    shard: int | None


class LocalEngine(OneModelSet):
    """One model set in this process, with threads around it."""

    def label(self, works: Iterable[Work]) -> Generator[Done, None, None]:
        """Answer for each work, in order."""
        self._before = loaded_tasks(self._models)
        crew = Crew()
        reader = Reader(crew)

        def classify(item: _Item) -> _Part:
            return self._classify(item, reader.budget)

        # Known before anything is loaded, so that a resumed run forms the same portions.
        size = _CPU_PORTION if self._models.detector.device.startswith("cpu") else None
        try:
            portions = reader.portions(works, size)
            detected = crew.ahead(_each(self._detect, portions), 1, "detect")
            segmented = crew.ahead(_each(self._segment, detected), 1, "segment")
            yield from crew.ahead(self._complete(_each(classify, segmented)), 1, "classify")
        finally:
            reader.close()
            crew.close()

    def _detect(self, portion: Portion) -> _Item:
        return _Item(portion, run_detect(portion.images, self._models, self._plan, _known(portion)))

    def _segment(self, item: _Item) -> _Item:
        images, known = item.portion.images, _known(item.portion)
        return _Item(item.portion, run_segment(images, item.staged, self._models, self._plan, known))

    def _classify(self, item: _Item, budget: PixelBudget) -> _Part:
        portion = item.portion
        staged = run_classify(portion.images, item.staged, self._models, self._plan, _known(portion))
        rows, seconds = tuple(image.row for image in portion.images), sum(image.seconds for image in portion.images)
        budget.give_back(portion.pixels)
        return _Part(rows, staged, seconds, portion.last, portion.work.shard)

    def _complete(self, parts: Iterable[_Part]) -> Iterator[Done]:
        """Put the portions of a work together again."""
        so_far: list[_Part] = []
        for part in parts:
            so_far.append(part)
            if part.last:
                rows = [row for each in so_far for row in each.rows]
                staged = together([(len(each.rows), each.staged) for each in so_far])
                seconds = sum(each.read_seconds for each in so_far)
                so_far = []
                self._forward.update(staged.forward)  # a Counter adds floats as well
                yield Done(tuple(rows), finish(rows, staged, self._plan), seconds, part.shard)


def _each(step: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[Answer]:
    """Take each item a step further, and keep none: the last one's pixels must not stay while the next is awaited."""
    for item in items:
        answer = step(item)
        del item
        yield answer
        del answer


def _known(portion: Portion) -> Known:
    return part_of(portion.work.known, portion.start, portion.start + len(portion.images))

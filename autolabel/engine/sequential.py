"""One step after another in one thread: the engine that the others are measured against, and must agree with."""

from __future__ import annotations

from collections.abc import Generator, Iterable

from autolabel.engine.base import Done, OneModelSet, Work, loaded_tasks
from autolabel.engine.portions import part_of, portions, together
from autolabel.labeling import Staged, finish, run_classify, run_detect, run_segment
from autolabel.shards import ImageRow


class SequentialEngine(OneModelSet):
    """Reads, detects, segments and classifies in turn; nothing overlaps."""

    def label(self, works: Iterable[Work]) -> Generator[Done, None, None]:
        """Answer for each work, in order."""
        self._before = loaded_tasks(self._models)
        for work in works:
            yield self._label(work)

    def _label(self, work: Work) -> Done:
        rows, parts, seconds = list[ImageRow](), list[tuple[int, Staged]](), 0.0
        images = (work.read(place) for place in range(len(work.rows)))
        for portion in portions(images, len(work.rows)):
            seconds += sum(image.seconds for image in portion)
            known = part_of(work.known, len(rows), len(rows) + len(portion))
            staged = run_detect(portion, self._models, self._plan, known)
            staged = run_segment(portion, staged, self._models, self._plan, known)
            parts.append((len(portion), run_classify(portion, staged, self._models, self._plan, known)))
            rows += [image.row for image in portion]
        staged = together(parts)
        self._forward.update(staged.forward)  # a Counter adds floats as well
        return Done(tuple(rows), finish(rows, staged, self._plan), seconds, work.shard)

"""Thresholds that fit what people corrected: for each class, the detector's score from which boxes are worth showing.

Images that people finished are ground truth, and every proposal of theirs is still stored. So each threshold can be
tried without a model call, and the next batch starts with those that would have served best on this one.

A threshold that is best on some images is by luck a little too good on them. What is promised is therefore measured on
images that had no part in the choice (cross-validation, Stone 1974), and a class keeps its threshold where that shows
no gain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from autolabel.candidates import Candidates, candidates, gates_of
from autolabel.config import Recipe
from autolabel.corrections import standing
from autolabel.errors import UsageError
from autolabel.evaluate import compare
from autolabel.geometry import box_iou
from autolabel.ontology import normalise
from autolabel.stages.resolve import Gates
from autolabel.types import Float

if TYPE_CHECKING:
    from autolabel.dataset import Run

MATCH_IOU: Final = 0.5
LEAST_TRUTHS: Final = 10
"""Objects of a class that there must be; with fewer, a threshold follows single boxes."""
FOLDS: Final = 5
LEAST_GAIN: Final = 0.005
"""What F must gain on images that were not looked at, and what two thresholds may differ by and be as good."""
_STEPS: Final = 100

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Boxes at a threshold, matched with the objects one to one at IoU 0.5."""

    true_positives: int
    false_positives: int
    misses: int

    @property
    def precision(self) -> float | None:
        """Share of the boxes that are right; None without boxes."""
        found = self.true_positives + self.false_positives
        return self.true_positives / found if found else None

    @property
    def recall(self) -> float | None:
        """Share of the objects that are found; None without objects."""
        truths = self.true_positives + self.misses
        return self.true_positives / truths if truths else None

    def f(self, beta: float) -> float:
        """F-beta in [0, 1] (van Rijsbergen 1979)."""
        counts = np.array([self.true_positives, self.false_positives, self.misses])
        return float(_f(*counts, beta=beta))

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.misses + other.misses,
        )


@dataclass(frozen=True, slots=True)
class ClassTuning:
    """One class: its threshold and what that comes to, and the one suggested; None with the reason where none is.

    ``expected`` is what suggestions come to on images that had no part in making them.
    """

    name: str
    min_score: float
    now: Outcome
    suggested: float | None
    expected: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What corrected images say about a run's thresholds; ``beta`` is how many times recall counts as precision."""

    against: str
    images: int
    beta: float
    classes: tuple[ClassTuning, ...]

    @property
    def changed(self) -> dict[str, float]:
        """The suggested ``min_score`` by class."""
        return {row.name: row.suggested for row in self.classes if row.suggested is not None}

    @property
    def now(self) -> Outcome:
        """All classes together, as they are."""
        return sum((row.now for row in self.classes), Outcome(0, 0, 0))

    @property
    def expected(self) -> Outcome:
        """All classes together, with what is suggested, on images that had no part in it."""
        return sum((row.expected for row in self.classes), Outcome(0, 0, 0))

    def to_json(self) -> dict[str, Any]:
        """Return all figures as JSON-able values."""

        def values(outcome: Outcome) -> dict[str, Any]:
            ratios = {"precision": outcome.precision, "recall": outcome.recall, "f": outcome.f(self.beta)}
            return {**asdict(outcome), **ratios}

        rows = [{**asdict(row), "now": values(row.now), "expected": values(row.expected)} for row in self.classes]
        head = {"against": self.against, "images": self.images, "beta": self.beta}
        return {**head, "now": values(self.now), "expected": values(self.expected), "classes": rows}

    def recipe(self, run: Run) -> dict[str, Any]:
        """Return the run's recipe with what is suggested, as a recipe file holds it; without its images."""
        rows = [
            {name: value for name, value in asdict(label).items() if value is not None}
            for label in (
                replace(label, min_score=self.changed.get(label.name, label.min_score))
                for label in run.ontology.classes
            )
        ]
        recipe = Recipe.model_validate(run.manifest.recipe).merged({"classes": rows})
        return recipe.model_dump(mode="json", exclude_defaults=True, exclude_none=True, exclude={"images"})


@dataclass(frozen=True, slots=True)
class _Judged:
    """Candidates of one class: their images' folds ``(N,)``, scores ``(N,)``, whether right; objects by fold."""

    folds: NDArray[np.int64]
    scores: Float
    right: NDArray[np.bool_]
    truths: Counts

    def outcome(self, threshold: float) -> Outcome:
        """Count what a threshold leaves."""
        shown = self.right[self.scores >= np.float32(threshold)]
        hits = int(shown.sum())
        return Outcome(hits, len(shown) - hits, int(self.truths.sum()) - hits)

    def table(self, grid: Float) -> tuple[Counts, Counts]:
        """Count true and false positives by fold and threshold, each ``(FOLDS, G)``."""
        sides = []
        for side in (self.right, ~self.right):
            counts = np.zeros((FOLDS, len(grid) + 1), np.int64)
            np.add.at(counts, (self.folds[side], np.searchsorted(grid, self.scores[side], side="right")), 1)
            # A box that passes so many thresholds passes each lower one.
            sides.append(counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:])
        return sides[0], sides[1]


Truths = Mapping[str, tuple[Float, NDArray[np.int64]]]
"""By path of an image: boxes ``(N, 4)`` px of its objects and their label ids ``(N,)``."""


def tune(run: Run, against: Path | None = None, *, beta: float = 1.0) -> Tuning:
    """Find for each class the least detector's score with the best F-beta on corrected images.

    Ground truth are the images that people finished, or the COCO file ``against``. Raises UsageError where there are
    too few.
    """
    if not 0.1 <= beta <= 10:
        raise UsageError(f"beta must be in [0.1, 10], got {beta:g}; 2 lets a miss weigh more than a false box")
    truths = _of_people(run) if against is None else _of_file(run, against)
    if len(truths) < FOLDS:
        where = "that people have finished" if against is None else f"that are in {against} too"
        remedy = (
            "; 'autolabel pull' brings corrections home, --against takes a COCO file instead" if against is None else ""
        )
        raise UsageError(f"thresholds need at least {FOLDS} images {where}, and there are {len(truths)}{remedy}")
    gates, classes = gates_of(run), run.ontology.classes
    floor = float(run.manifest.resolved["floor"])
    lowest = gates.min_score.copy()
    lowest[: len(classes)] = floor  # negatives keep theirs: they would claim more boxes
    judged = _judge(run, replace(gates, min_score=lowest), truths)
    grid = np.arange(np.ceil(round(floor * _STEPS, 6)), _STEPS, dtype=np.float32) / np.float32(_STEPS)
    rows = [
        _tuned(label.name, float(gates.min_score[place]), judged[place], grid, beta)
        for place, label in enumerate(classes)
    ]
    return Tuning("corrections" if against is None else str(against), len(truths), beta, tuple(rows))


def _tuned(name: str, present: float, mine: _Judged, grid: Float, beta: float) -> ClassTuning:
    now = mine.outcome(present)
    count = int(mine.truths.sum())

    def unchanged(reason: str) -> ClassTuning:
        return ClassTuning(name, round(present, 4), now, None, now, reason)

    if count < LEAST_TRUTHS:
        return unchanged(f"{count} objects are too few to tell, {LEAST_TRUTHS} are needed")
    hits, false = mine.table(grid)
    expected = Outcome(0, 0, 0)
    for fold in range(FOLDS):
        others = np.arange(FOLDS) != fold
        chosen = _best(hits[others].sum(0), false[others].sum(0), int(mine.truths[others].sum()), beta)
        here = int(hits[fold, chosen])
        expected += Outcome(here, int(false[fold, chosen]), int(mine.truths[fold]) - here)
    best = _best(hits.sum(0), false.sum(0), count, beta)
    if expected.f(beta) < now.f(beta) + LEAST_GAIN or grid[best] == np.float32(present):
        return unchanged("no other threshold does better on images that had no part in choosing it")
    return ClassTuning(name, round(present, 4), now, round(float(grid[best]), 4), expected)


def _best(hits: Counts, false: Counts, truths: int, beta: float) -> int:
    """Place of the threshold to take: the middle of those round the best that are as good."""
    f = _f(hits, false, truths - hits, beta=beta)
    top = int(f.argmax())
    worse = np.flatnonzero(f < f[top] - LEAST_GAIN)
    first = int(worse[worse < top].max(initial=-1)) + 1
    last = int(worse[worse > top].min(initial=len(f))) - 1
    return (first + last) // 2


def _f(hits: Any, false: Any, misses: Any, *, beta: float) -> Any:
    weight = 1 + beta**2
    return weight * hits / np.maximum(weight * hits + beta**2 * misses + false, 1)


def _judge(run: Run, gates: Gates, truths: Truths) -> list[_Judged]:
    """Match the candidates of all images with their objects: one entry for each class."""
    classes = len(run.ontology.classes)
    images: list[list[str]] = [[] for _ in range(classes)]
    scores: list[list[float]] = [[] for _ in range(classes)]
    right: list[list[bool]] = [[] for _ in range(classes)]
    objects: dict[str, Counts] = {}
    for one in candidates(run, gates, truths):
        boxes, labels = truths[one.image.path]
        here = np.array([(labels == place).sum() for place in range(classes)])
        objects[one.image.id] = objects.get(one.image.id, 0) + here
        for place in range(classes):
            mine = one.label_ids == place
            images[place] += [one.image.id] * int(mine.sum())
            scores[place] += one.scores[mine].tolist()
            right[place] += _matched(one, mine, boxes[labels == place])
    fold_of = _folds(objects)
    truths_of = np.zeros((classes, FOLDS), np.int64)
    for uid, count in objects.items():
        truths_of[:, fold_of[uid]] += count
    return [
        _Judged(
            np.array([fold_of[uid] for uid in images[k]], np.int64),
            np.array(scores[k], np.float32),
            np.array(right[k], np.bool_),
            truths_of[k],
        )
        for k in range(classes)
    ]


def _matched(one: Candidates, mine: NDArray[np.bool_], wanted: Float) -> list[bool]:
    """Say which of one class's boxes are right: the best scored takes its object first, as in COCO."""
    free = np.ones(len(wanted), np.bool_)
    found = []
    for overlaps in box_iou(one.boxes_xyxy[mine], wanted):
        open_to = np.where(free, overlaps, 0.0)
        hit = len(wanted) > 0 and float(open_to.max()) >= MATCH_IOU
        if hit:
            free[int(open_to.argmax())] = False
        found.append(hit)
    return found


def _folds(contents: Iterable[str]) -> dict[str, int]:
    """Deal images into folds by their contents: the same each time, and equal pictures go together."""
    ordered = sorted(contents, key=lambda uid: (crc32(uid.encode()), uid))
    return {uid: place % FOLDS for place, uid in enumerate(ordered)}


def _of_people(run: Run) -> Truths:
    """Objects of the images that people finished."""
    places = {normalise(name): place for place, name in enumerate(run.ontology.names)}
    truths = {}
    for (path, uid), decided in standing([*run.corrections(), *run.reviews()]).items():
        if decided.review is None or decided.review.state != "complete":
            continue
        try:
            item = run[path]
        except KeyError:  # the image is no longer part of the run
            continue
        if item.image.id != uid:
            continue  # the file has changed since
        known = [a for a in item.annotations if normalise(a.label) in places]
        boxes = np.array([a.box.xyxy for a in known], np.float32).reshape(-1, 4)
        truths[path] = boxes, np.array([places[normalise(a.label)] for a in known], np.int64)
    return truths


def _of_file(run: Run, against: Path) -> Truths:
    """Objects of the images that a COCO file knows too; crowds are left out."""
    both = compare(run, against)
    records: dict[int, list[dict[str, Any]]] = {number: [] for number in range(1, len(both.paths) + 1)}
    for record in both.truths:
        if not record["iscrowd"]:
            records[record["image_id"]].append(record)
    truths = {}
    for number, path in enumerate(both.paths, start=1):
        boxes = np.array([record["bbox"] for record in records[number]], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        truths[path] = boxes, np.array([record["category_id"] for record in records[number]], np.int64)
    return truths

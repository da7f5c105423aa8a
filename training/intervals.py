"""95 % intervals by bootstrap over pictures: what is measured would vary so much with other pictures of the kind."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ROUNDS: Final = 200
SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return plain values for JSON."""
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def figure(pictures: int, statistic: Callable[[NDArray[np.int64]], float], rounds: int = ROUNDS) -> Figure:
    """Take ``statistic`` of all ``pictures`` and of ``rounds`` samples with replacement; it gets their indices.

    Samples of which it is not defined (NaN) are left out of the interval.
    """
    rng = np.random.default_rng(SEED)
    drawn = [statistic(rng.integers(0, pictures, pictures)) for _ in range(rounds)]
    known = [value for value in drawn if not np.isnan(value)]
    low, high = np.percentile(known, [2.5, 97.5]) if known else (np.nan, np.nan)
    return Figure(statistic(np.arange(pictures)), float(low), float(high))


def mean_of(per_picture: Sequence[Sequence[float]]) -> Figure:
    """Mean of all values, which are sampled together as their pictures are."""
    sums = np.array([sum(values) for values in per_picture])
    counts = np.array([len(values) for values in per_picture])

    def mean(chosen: NDArray[np.int64]) -> float:
        return float(sums[chosen].sum() / counts[chosen].sum()) if counts[chosen].any() else float("nan")

    return figure(len(per_picture), mean)


class Precisions:
    """AP of one kind of region (``bbox`` or ``segm``), from records of pycocotools, matched once and sampled often."""

    def __init__(
        self,
        kind: str,
        images: Sequence[dict[str, Any]],
        labels: Sequence[int],
        truths: Sequence[dict[str, Any]],
        found: Sequence[dict[str, Any]],
    ) -> None:
        sides = []
        with contextlib.redirect_stdout(io.StringIO()):
            for records in (truths, found):
                side = COCO()
                side.dataset = {
                    "images": list(images),
                    "categories": [{"id": label, "name": str(label)} for label in labels],
                    "annotations": [dict(r) for r in records if kind == "bbox" or "segmentation" in r],
                }
                side.createIndex()
                sides.append(side)
            self._run = COCOeval(*sides, kind)
            self._run.params.catIds = list(labels)
            self._run.params.areaRng, self._run.params.areaRngLbl = [[0, 1e10]], ["all"]
            self._run.params.maxDets = [100]
            self._run.evaluate()
        self._images = len(images)
        self._matches = self._run.evalImgs

    def of(self, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        """AP over all IoUs and AP at 0.50 of the pictures at ``chosen``, per class: ``(2, K)``, NaN without truths."""
        rows = range(0, len(self._matches), self._images)
        # pycocotools counts by place: each drawn picture is one of its own.
        self._run.params.imgIds = self._run._paramsEval.imgIds = list(range(len(chosen)))
        self._run.evalImgs = [self._matches[start + int(i)] for start in rows for i in chosen]
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.accumulate()
        precision = self._run.eval["precision"][:, :, :, 0, 0]
        precision = np.where(precision < 0, np.nan, precision)
        return np.stack([precision.mean(axis=(0, 1)), precision[0].mean(axis=0)])

    def figures(self, rounds: int = ROUNDS) -> dict[str, Figure]:
        """Mean AP and AP50 over the classes with ground truth, with intervals."""
        return {
            name: figure(self._images, lambda chosen, row=row: _mean(self.of(chosen)[row]), rounds)  # type: ignore[misc]
            for row, name in enumerate(("ap", "ap50"))
        }


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")

"""AP, AR and one-to-one matches by pycocotools, from records in its own format."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_DETECTIONS = 100


@dataclass(frozen=True, slots=True)
class Precision:
    """COCO figures in [0, 1]: AP over IoU 0.50 to 0.95, AP at 0.50 and 0.75, AR with at most 100 an image."""

    ap: float
    ap50: float
    ap75: float
    ar: float


class Scores:
    """One pass of pycocotools over one kind of region; classes are addressed by their place in ``labels``."""

    def __init__(
        self,
        kind: str,
        images: list[dict[str, Any]],
        labels: list[int],
        truths: list[dict[str, Any]],
        found: list[dict[str, Any]],
    ) -> None:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        key = "segmentation" if kind == "segm" else "bbox"
        sides = []
        with contextlib.redirect_stdout(io.StringIO()):
            for records in (truths, found):
                side = COCO()
                side.dataset = {
                    "images": images,
                    "categories": [{"id": label, "name": str(label)} for label in labels],
                    "annotations": [dict(record) for record in records if key in record],
                }
                side.createIndex()
                sides.append(side)
            run = COCOeval(*sides, kind)
            run.params.catIds = labels
            run.params.maxDets = [1, 10, _MAX_DETECTIONS]
            self._precision = np.full((10, 101, len(labels)), -1.0)
            self._recall = np.full((10, len(labels)), -1.0)
            self._matches: list[dict[str, Any] | None] = []
            if images and labels:
                run.evaluate()
                run.accumulate()
                self._precision = run.eval["precision"][:, :, :, 0, -1]
                self._recall = run.eval["recall"][:, :, 0, -1]
                self._matches = run.evalImgs
        self._images = len(images)
        self._areas = len(run.params.areaRng)

    def overall(self) -> Precision | None:
        """Mean over the classes that have ground truth."""
        return self._figures(slice(None))

    def of(self, place: int) -> Precision | None:
        """Figures of one class."""
        return self._figures(slice(place, place + 1))

    def counts(self, place: int) -> Counter[str]:
        """Count the matches of one class at IoU 0.5; crowds, and what lies on them, do not count."""
        total: Counter[str] = Counter()
        # evalImgs runs over classes, then area ranges (all of them first), then images.
        start = place * self._areas * self._images
        for image in self._matches[start : start + self._images]:
            if image is None:
                continue
            counted = ~np.asarray(image["dtIgnore"][0], np.bool_)
            matched = np.asarray(image["dtMatches"][0]) > 0
            total["tp"] += int((matched & counted).sum())
            total["fp"] += int((~matched & counted).sum())
            total["truths"] += int((~np.asarray(image["gtIgnore"], np.bool_)).sum())
        return total

    def _figures(self, places: slice) -> Precision | None:
        precision, recall = self._precision[:, :, places], self._recall[:, places]
        if not (precision > -1).any():
            return None
        ap, ap50, ap75 = (_mean(p) for p in (precision, precision[0], precision[5]))
        return Precision(ap, ap50, ap75, _mean(recall))


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of what was measured; pycocotools writes -1 where there is no ground truth."""
    return round(float(values[values > -1].mean()), 6)

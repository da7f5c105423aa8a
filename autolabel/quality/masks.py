"""Quality of masks: what the segmenter thinks of it, how it fits its box, holes and specks, and another's mask.

cleanlab.segmentation asks for class probabilities of every pixel, which no run stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autolabel.runlengths import crop_of, runs_of
from autolabel.types import Box, Mask

_LEAST_FIT = 0.5
_LEAST_CLEAN = 0.85
_LEAST_SCORE = 0.5
_LEAST_AGREEMENT = 0.5
_SPECK = 0.05
"""A part smaller than this share of the largest is a speck; larger ones are parts of an object seen through another."""


@dataclass(frozen=True, slots=True)
class MaskQuality:
    """Quality in [0, 1], the reason for it, and whether a person should look."""

    quality: float
    flagged: bool
    reason: str


def as_mask(shape: Any, size_wh: tuple[int, int]) -> Mask | None:
    """Read a COCO segmentation: polygons, or run lengths with a list or compressed; None where there is none."""
    from pycocotools import mask as coco_mask

    if shape is None or isinstance(shape, Mask):
        return shape
    width, height = size_wh
    if isinstance(shape, list):
        polygons = [part for part in shape if isinstance(part, list) and len(part) >= 6]
        if not polygons:
            return None
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    elif isinstance(shape, dict) and isinstance(shape.get("counts"), list):
        rle = coco_mask.frPyObjects(shape, *shape["size"])
    elif isinstance(shape, dict) and "counts" in shape:
        counts = shape["counts"]
        rle = {"size": shape["size"], "counts": counts.encode() if isinstance(counts, str) else counts}
    else:
        return None
    return Mask(int(rle["size"][0]), int(rle["size"][1]), bytes(rle["counts"]))


def mask_quality(mask: Mask, box: Box, score: float | None = None, agreement: float | None = None) -> MaskQuality:
    """Judge one mask.

    ``score`` is the segmenter's predicted IoU where it did not make the label alone, ``agreement`` the IoU with a mask
    that another made, divided by what is usual for the class.
    """
    from pycocotools import mask as coco_mask

    area = mask.area
    if area == 0:
        return MaskQuality(0.0, True, "the mask is empty")
    x, y, w, h = (float(value) for value in coco_mask.toBbox(mask.to_coco()))
    around = Box(x, y, x + w, y + h)
    fit = _iou(around, box)
    holes, specks = _defects(mask, around)
    clean = 1.0 - min(1.0, holes + specks)
    terms = [(fit, _LEAST_FIT, f"mask and box overlap by {fit:.0%} only")]
    terms.append((clean, _LEAST_CLEAN, _mess(holes, specks)))
    if score is not None and np.isfinite(score):
        terms.append((float(score), _LEAST_SCORE, f"the segmenter expects an IoU of {score:.2f}"))
    if agreement is not None:
        terms.append(
            (min(agreement, 1.0), _LEAST_AGREEMENT, f"another mask agrees {agreement:.0%} as well as is usual here")
        )
    quality = min(value for value, _, _ in terms)
    reason = min(terms, key=lambda term: term[0] / term[1])[2]
    return MaskQuality(float(np.clip(quality, 0, 1)), any(value < least for value, least, _ in terms), reason)


def mask_iou(pairs: Sequence[tuple[Mask, Mask]]) -> NDArray[np.float64]:
    """IoU of mask pairs ``(P,)``; 0 where the sizes differ."""
    from pycocotools import mask as coco_mask

    values = [
        float(coco_mask.iou([a.to_coco()], [b.to_coco()], [0])[0, 0])
        if (a.height, a.width) == (b.height, b.width)
        else 0.0
        for a, b in pairs
    ]
    return np.array(values, np.float64)


def _defects(mask: Mask, around: Box) -> tuple[float, float]:
    """Area of holes and of specks, as shares of the mask's."""
    import cv2

    x0, y0, x1, y1 = (int(v) for v in (around.x_min, around.y_min, around.x_max, around.y_max))
    runs = runs_of(mask)
    if len(runs[0]) == x1 - x0:
        return 0.0, 0.0  # one run in each column leaves no room for a hole, and is one piece or nearly so
    inner = crop_of(mask, runs, (x0, y0, x1, y1))
    crop = np.zeros((inner.shape[0] + 2, inner.shape[1] + 2), np.uint8)
    crop[1:-1, 1:-1] = inner
    total = float((runs[1] - runs[0]).sum())
    count, part_of = cv2.connectedComponents(crop, connectivity=8)
    specks = 0.0
    if count > 2:
        parts = np.bincount(part_of.ravel())[1:]
        specks = float(parts[parts < _SPECK * parts.max()].sum())
    outside = cv2.floodFill(crop, None, (0, 0), 2, flags=4)[0]  # what the border's background does not reach is a hole
    holes = float(crop.size - outside) - total
    return holes / total, specks / total


def _mess(holes: float, specks: float) -> str:
    parts = [f"{share:.0%} {name}" for share, name in ((holes, "holes"), (specks, "specks")) if share >= 0.005]
    return f"the mask has {' and '.join(parts) or 'no holes or specks'}"


def _iou(a: Box, b: Box) -> float:
    width = max(0.0, min(a.x_max, b.x_max) - max(a.x_min, b.x_min))
    height = max(0.0, min(a.y_max, b.y_max) - max(a.y_min, b.y_min))
    union = a.area + b.area - width * height
    return width * height / union if union > 0 else 0.0

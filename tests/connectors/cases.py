"""What the tests of conversions share: annotations, odd masks, and pixels decided straight from the definition."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from autolabel.types import Annotation, Box, Image, Mask

MASKS = arrays.arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24)))


def picture(width: int, height: int) -> Image:
    return Image("0" * 64, "photo.jpg", width, height)


def annotation(
    box: tuple[float, float, float, float] = (1, 1, 5, 5),
    mask: np.ndarray | None = None,
    label: str = "scratch",
    score: float = 0.75,
    id: str = "5f0c7f9e-8a1b-5c3d-9e2f-112233445566",
) -> Annotation:
    coded = None if mask is None else Mask.encode(mask)
    return Annotation(id, "0" * 64, Box(*map(float, box)), 0, label, score, (score,), mask=coded)


def disc(size: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size] + 0.5
    return np.hypot(x - size / 2, y - size / 2) <= radius


def ring(size: int, outer: float, inner: float) -> np.ndarray:
    return disc(size, outer) & ~disc(size, inner)


def blank(height: int, width: int, *pixels: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((height, width), np.bool_)
    for y, x in pixels:
        mask[y, x] = True
    return mask


def odd_masks() -> dict[str, np.ndarray]:
    """Shapes that conversions tend to lose or to fail on."""
    line, column, frame = np.zeros((9, 12), np.bool_), np.zeros((9, 12), np.bool_), np.ones((9, 12), np.bool_)
    line[4, 1:11], column[1:8, 5] = True, True
    frame[1:-1, 1:-1] = False
    return {
        "one pixel": blank(9, 12, (4, 5)),
        "one pixel in the corner": blank(9, 12, (0, 0)),
        "one pixel in the last corner": blank(9, 12, (8, 11)),
        "one pixel is the image": np.ones((1, 1), np.bool_),
        "a line": line,
        "a column": column,
        "all pixels": np.ones((9, 12), np.bool_),
        "the border": frame,
        "two that touch at a corner": blank(9, 12, (3, 3), (4, 4)),
        "a diagonal": np.eye(9, 12, dtype=np.bool_),
        "a chessboard": np.indices((9, 12)).sum(axis=0) % 2 == 0,
        "a row as high as the image": np.ones((1, 12), np.bool_),
        "a column as wide as the image": np.ones((9, 1), np.bool_),
    }


def even_odd(rings: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Decide every pixel centre by crossings of a ray."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] + 0.5
    inside = np.zeros(shape, np.bool_)
    for points in rings:
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if y0 != y1:
                crosses = (y >= min(y0, y1)) & (y < max(y0, y1)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
                inside ^= crosses
    return inside


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())

"""Large images in pieces: the detector also looks at overlapping tiles (the segmenter at `windows` round the boxes).

A model shrinks what it is given to its input size, so a scratch one pixel wide disappears from a large photograph
before the model sees it. Tiles are ``(left, top, right, bottom)`` in whole px of the image, half-open.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from autolabel.config import TileMode
from autolabel.geometry import box_areas, box_iou, intersections
from autolabel.types import RGB, Detections, Float

Window = tuple[int, int, int, int]
VIEWS_AT_ONCE: Final = 32
"""Views handed to a model in one call: the memory of a call is bounded however large an image is."""
_TOUCHES_PX: Final = 0.02
"""A box this near to a tile's inner border, as a share of the tile's side, is taken as cut by it."""
_INSIDE: Final = 0.8
"""A cut piece with this share of its area in a whole box of its phrase says nothing new."""
_SAME: Final = 0.5
"""Boxes of one phrase in different views that overlap more than this IoU are one box."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """How large images are looked at.

    ``auto`` shows the detector tiles of an image whose longer side is more than ``factor`` times its input, ``on`` of
    every image larger than a tile, ``off`` of none. ``size`` is a tile's side in px (None: ``zoom`` times the
    detector's input), ``overlap`` the share of a tile that it has in common with the next. Masks are made in windows
    where the image is more than ``mask_factor`` times the segmenter's input, ``on`` wherever it is larger.
    """

    mode: TileMode
    size: int | None
    overlap: float
    factor: float = 6.0
    zoom: float = 2.0
    mask_factor: float = 2.0

    def side(
        self, size_wh: tuple[int, int], input_px: int | None, factor: float | None = None, zoom: float | None = None
    ) -> int | None:
        """Side px of the tiles of an image, or None where it is looked at whole.

        A model may ask for a ``factor`` and a ``zoom`` of its own.
        """
        if self.mode == "off" or (input_px is None and (self.size is None or self.mode == "auto")):
            return None
        side = self.size or round((zoom or self.zoom) * (input_px or 0))
        least = side if self.mode == "on" else max(side, (factor or self.factor) * (input_px or 0))
        return side if max(size_wh) > least else None

    def windows(self, size_wh: tuple[int, int], input_px: int | None) -> bool:
        """Tell whether the segmenter looks at windows of an image."""
        if self.mode == "off" or input_px is None:
            return False
        return max(size_wh) > (self.mask_factor if self.mode == "auto" else 1.0) * input_px


def layout(size_wh: tuple[int, int], side: int, overlap: float) -> list[Window]:
    """Tiles of one size that cover an image, evenly spread, neighbours sharing at least ``overlap`` of their side."""
    starts = []
    for extent in size_wh:
        length = min(side, extent)
        step = max(1.0, side * (1 - overlap))
        count = 1 if extent <= side else int(np.ceil((extent - side) / step)) + 1
        starts.append([round(at) for at in np.linspace(0, extent - length, count)])
    width, height = (min(side, extent) for extent in size_wh)
    return [(x, y, x + width, y + height) for y in starts[1] for x in starts[0]]


def detect_in_views(
    model: Any, images: Sequence[RGB], phrases: Sequence[str], min_score: float, tiles: Tiles
) -> list[Detections]:
    """Detect in whole images, and in the tiles of large ones; boxes of all views are merged to one per object.

    A detector that brings masks of its own is not shown tiles: its masks belong to whole images. One may ask for tiles
    of smaller images, ``tile_from``, and of another side, ``tile_zoom``, both in times its input.
    """
    whole: list[Detections] = list(model.predict_batch(images, phrases, min_score))
    input_px: int | None = getattr(model, "input_px", None)
    factor, zoom = getattr(model, "tile_from", None), getattr(model, "tile_zoom", None)
    for place, image in enumerate(images[: len(whole)]):
        size_wh = (image.shape[1], image.shape[0])
        side = tiles.side(size_wh, input_px, factor, zoom)
        if side is None or whole[place].masks is not None:
            continue
        windows = layout(size_wh, side, tiles.overlap)
        found: list[Detections] = []
        for part in chunks(windows):
            found += model.predict_batch([cut(image, window) for window in part], phrases, min_score)
        whole[place] = merge(whole[place], windows, found, size_wh)
    return whole


def merge(
    whole: Detections, windows: Sequence[Window], found: Sequence[Detections], size_wh: tuple[int, int]
) -> Detections:
    """Merge what was found in an image and in its ``windows``; an object cut by tile borders becomes one box.

    Pieces that touch the borders their tiles share, overlap, and agree in their best phrase are joined. Then, best
    first, a box that a better one of its phrase covers is dropped; so is a cut piece that lies in an uncut box.
    """
    boxes: list[Float] = [np.asarray(whole.boxes_xyxy, np.float32).reshape(-1, 4)]
    scores: list[Float] = [np.asarray(whole.phrase_scores, np.float32)]
    cuts: list[NDArray[np.bool_]] = [np.zeros((len(boxes[0]), 4), np.bool_)]
    view = [np.full(len(boxes[0]), -1)]
    for number, (window, detections) in enumerate(zip(windows, found, strict=True)):
        moved = np.asarray(detections.boxes_xyxy, np.float32).reshape(-1, 4) + np.array(window[:2] * 2, np.float32)
        boxes.append(moved)
        scores.append(np.asarray(detections.phrase_scores, np.float32).reshape(len(moved), scores[0].shape[1]))
        cuts.append(cut_sides(moved, window, size_wh))
        view.append(np.full(len(moved), number))
    all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
    all_cuts, views = np.concatenate(cuts), np.concatenate(view)
    if all_scores.shape[1] == 0 or len(all_boxes) == 0:
        return Detections(all_boxes, all_scores)
    joined_boxes, joined_scores = _join(all_boxes, all_scores, all_cuts, views)
    cut = np.concatenate([all_cuts.any(axis=1), np.zeros(len(joined_boxes), np.bool_)])
    all_boxes = np.concatenate([all_boxes, joined_boxes])
    all_scores = np.concatenate([all_scores, joined_scores])
    kept = _best_of_views(all_boxes, all_scores, cut)
    return Detections(all_boxes[kept], all_scores[kept])


def cut_sides(boxes_xyxy: Float, window: Window, size_wh: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell for ``(N, 4)`` px boxes which sides (left, top, right, bottom) lie on a border of the tile's own."""
    reach = _TOUCHES_PX * max(window[2] - window[0], window[3] - window[1])
    limits = (0, 0, *size_wh)
    near = np.abs(boxes_xyxy - np.array(window, np.float32)) <= reach
    inner = np.array([edge != limit for edge, limit in zip(window, limits, strict=True)])
    cut: NDArray[np.bool_] = near & inner
    return cut


def _join(boxes: Float, scores: Float, cuts: NDArray[np.bool_], views: NDArray[np.int64]) -> tuple[Float, Float]:
    """Boxes and scores of objects whose pieces were found in several tiles."""
    places = np.flatnonzero(cuts.any(axis=1))
    phrase, best = scores[places].argmax(axis=1), scores[places].max(axis=1)
    facing = np.zeros((len(places), len(places)), np.bool_)
    for one, other in ((0, 2), (1, 3)):
        facing |= cuts[places][:, None, one] & cuts[places][None, :, other]
        facing |= cuts[places][:, None, other] & cuts[places][None, :, one]
    alike = np.minimum(best[:, None], best[None, :]) >= 0.5 * np.maximum(best[:, None], best[None, :])
    linked = facing & alike & (phrase[:, None] == phrase[None, :]) & (views[places][:, None] != views[places][None, :])
    linked &= intersections(boxes[places], boxes[places]) > 0
    made_boxes, made_scores = [], []
    for group in _components(linked):
        if len(group) < 2:
            continue
        mine = places[group]
        low, high = boxes[mine, :2].min(axis=0), boxes[mine, 2:].max(axis=0)
        weights = np.maximum(box_areas(boxes[mine]), 1.0)
        made_boxes.append(np.concatenate([low, high]))
        made_scores.append((scores[mine] * weights[:, None]).sum(axis=0) / weights.sum())
    if not made_boxes:
        return np.zeros((0, 4), np.float32), np.zeros((0, scores.shape[1]), np.float32)
    return np.stack(made_boxes).astype(np.float32), np.stack(made_scores).astype(np.float32)


def _components(linked: NDArray[np.bool_]) -> list[list[int]]:
    """Find the connected components of a symmetric ``(N, N)`` relation."""
    waiting = set(range(len(linked)))
    groups = []
    while waiting:
        group, edge = [], [min(waiting)]
        waiting.discard(edge[0])
        while edge:
            place = edge.pop()
            group.append(place)
            near = [n for n in np.flatnonzero(linked[place]).tolist() if n in waiting]
            waiting.difference_update(near)
            edge += near
        groups.append(sorted(group))
    return groups


def _best_of_views(boxes: Float, scores: Float, cut: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Places of the boxes to keep, best first: greedy, per phrase, whole boxes before cut pieces of them."""
    phrase, best = scores.argmax(axis=1), scores.max(axis=1)
    kept: list[int] = []
    for place in np.lexsort((-best, cut)):  # what is whole comes first, the better before the worse
        rivals = np.array([k for k in kept if phrase[k] == phrase[place]], np.int64)
        if len(rivals):
            box = boxes[place][None]
            if (box_iou(box, boxes[rivals]) > _SAME).any():
                continue
            share = intersections(box, boxes[rivals])[0] / max(float(box_areas(box)[0]), 1e-6)
            if cut[place] and (share > _INSIDE).any():
                continue
        kept.append(int(place))
    order = np.argsort(-best[kept], kind="stable")
    return np.array(kept, np.int64)[order]


def cut(image: RGB, window: Window) -> RGB:
    """Return a copy of a part of an image."""
    left, top, right, bottom = window
    return np.ascontiguousarray(image[top:bottom, left:right])


def chunks(items: Iterable[Any]) -> Iterable[list[Any]]:
    """Split views into calls of a model."""
    coming = iter(items)
    while part := list(islice(coming, VIEWS_AT_ONCE)):
        yield part

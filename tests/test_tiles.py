"""Tiles: they cover the image, boxes come back in its pixels, and what a border cut becomes one box."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import autolabel
from autolabel.config import Recipe
from autolabel.geometry import mask_boxes
from autolabel.stages import windows
from autolabel.stages.tiles import (
    VIEWS_AT_ONCE,
    Tiles,
    Window,
    cut_sides,
    detect_in_views,
    layout,
    merge,
)
from autolabel.stages.windows import parts_of_thin, segment_in_views, share_windows
from autolabel.types import RGB, Detections, Float, Mask, Segments

ON = Tiles("on", 100, 0.2)
WHOLE = Tiles("off", None, 0.2)


def block(width: int, height: int, xyxy: tuple[int, int, int, int]) -> np.ndarray:
    """A mask of one rectangle, ``(height, width)``."""
    mask = np.zeros((height, width), np.bool_)
    mask[xyxy[1] : xyxy[3], xyxy[0] : xyxy[2]] = True
    return mask


class BrightThings:
    """A detector and segmenter that sees runs of bright pixels, but only at full resolution, up to 100 px."""

    input_px = 100

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.sizes: set[tuple[int, ...]] = set()

    def predict_batch(self, images: Sequence[RGB], second: object, min_score: float = 0.0) -> list[object]:
        self.calls.append(len(images))
        self.sizes |= {image.shape[:2] for image in images}
        if isinstance(second, list) and len(second) and isinstance(second[0], np.ndarray):
            return [self._segment(image, boxes) for image, boxes in zip(images, second, strict=True)]
        return [self._detect(image) for image in images]

    def _detect(self, image: RGB) -> Detections:
        bright = image[..., 0] > 128
        if max(image.shape) > self.input_px or not bright.any():
            return Detections.empty(1)
        rows, cols = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        box = [cols[0], rows[0], cols[-1] + 1, rows[-1] + 1]
        return Detections(np.array([box], np.float32), np.array([[0.9]], np.float32))

    def _segment(self, image: RGB, boxes: Float) -> Segments:
        bright = image[..., 0] > 128
        return Segments(tuple(Mask.encode(bright) for _ in boxes), np.ones(len(boxes), np.float32))


def picture(width: int, height: int, *boxes: tuple[int, int, int, int]) -> RGB:
    image = np.zeros((height, width, 3), np.uint8)
    for x0, y0, x1, y1 in boxes:
        image[y0:y1, x0:x1] = 255
    return image


@given(st.integers(1, 500), st.integers(1, 500), st.integers(10, 200), st.floats(0, 0.5))
def test_tiles_cover_the_image_and_overlap(width: int, height: int, side: int, overlap: float) -> None:
    windows = layout((width, height), side, overlap)
    seen = np.zeros((height, width), bool)
    for left, top, right, bottom in windows:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert (right - left, bottom - top) == (min(side, width), min(side, height))
        seen[top:bottom, left:right] = True
    assert seen.all()
    lefts = sorted({w[0] for w in windows})
    for first, second in pairwise(lefts):
        assert first + min(side, width) - second >= overlap * side - 1


def test_no_tiles_for_an_image_that_fits_and_none_when_off() -> None:
    assert ON.side((100, 100), 50) is None
    assert ON.side((101, 20), 50) == 100
    assert WHOLE.side((9000, 9000), 50) is None
    assert Tiles("on", None, 0.2).side((9000, 9000), None) is None


def test_auto_waits_for_images_much_larger_than_the_input() -> None:
    auto = Tiles("auto", None, 0.2)
    limit = auto.factor * 320
    assert auto.side((round(limit), 100), 320) is None
    assert auto.side((round(limit) + 1, 100), 320) == round(auto.zoom * 320)


def test_off_calls_the_detector_exactly_as_without_tiles() -> None:
    model = BrightThings()
    images = [picture(300, 200, (5, 5, 9, 9)), picture(50, 50)]
    found = detect_in_views(model, images, ["a"], 0.1, WHOLE)
    assert model.calls == [2]
    assert [len(f.boxes_xyxy) for f in found] == [0, 0]


def test_a_small_thing_in_a_large_image_is_found_in_its_pixels() -> None:
    found = detect_in_views(BrightThings(), [picture(390, 260, (250, 130, 255, 140))], ["a"], 0.1, ON)[0]
    assert found.boxes_xyxy.tolist() == [[250, 130, 255, 140]]


def test_a_thing_cut_by_several_tiles_becomes_one_box() -> None:
    found = detect_in_views(BrightThings(), [picture(390, 260, (20, 50, 370, 53))], ["a"], 0.1, ON)[0]
    assert found.boxes_xyxy.tolist() == [[20, 50, 370, 53]]
    assert found.phrase_scores.tolist() == [[pytest.approx(0.9)]]


def test_two_things_side_by_side_stay_two() -> None:
    boxes = [(10, 10, 40, 20), (150, 10, 175, 20)]
    found = detect_in_views(BrightThings(), [picture(260, 90, *boxes)], ["a"], 0.1, ON)[0]
    assert sorted(found.boxes_xyxy.tolist()) == [[float(v) for v in box] for box in boxes]


def test_a_border_of_the_image_cuts_nothing() -> None:
    box = np.array([[0, 0, 100, 10]], np.float32)
    assert cut_sides(box, (0, 0, 100, 100), (300, 100)).tolist() == [[False, False, True, False]]


def test_pieces_of_other_phrases_are_not_joined() -> None:
    windows: list[Window] = [(0, 0, 100, 100), (80, 0, 180, 100)]
    pieces = [
        Detections(np.array([[50, 40, 100, 50]], np.float32), np.array([[0.8, 0.1]], np.float32)),
        Detections(np.array([[0, 40, 60, 50]], np.float32), np.array([[0.1, 0.8]], np.float32)),
    ]
    merged = merge(Detections.empty(2), windows, pieces, (180, 100))
    assert len(merged.boxes_xyxy) == 2


def test_a_piece_inside_a_whole_box_says_nothing_new() -> None:
    whole = Detections(np.array([[10, 10, 170, 90]], np.float32), np.array([[0.5]], np.float32))
    piece = Detections(np.array([[40, 20, 100, 80]], np.float32), np.array([[0.9]], np.float32))
    merged = merge(whole, [(0, 0, 100, 100)], [piece], (180, 100))
    assert merged.boxes_xyxy.tolist() == whole.boxes_xyxy.tolist()


def test_nothing_found_anywhere() -> None:
    merged = merge(Detections.empty(3), [(0, 0, 10, 10)], [Detections.empty(3)], (20, 10))
    assert merged.boxes_xyxy.shape == (0, 4)
    assert merged.phrase_scores.shape == (0, 3)


def test_a_call_shows_the_model_a_bounded_number_of_tiles() -> None:
    model = BrightThings()
    detect_in_views(model, [picture(2000, 500)], ["a"], 0.1, ON)
    assert max(model.calls) == VIEWS_AT_ONCE
    assert model.sizes == {(500, 2000), (100, 100)}


@given(st.lists(st.tuples(*[st.integers(0, 400)] * 4), max_size=8))
def test_every_box_gets_a_window_that_holds_it(corners: list[tuple[int, int, int, int]]) -> None:
    boxes = np.array([[min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1] for a, b, c, d in corners], np.float32)
    windows, owners = share_windows(boxes.reshape(-1, 4), (401, 401), 64)
    assert len(owners) == len(boxes)
    for box, owner in zip(boxes, owners, strict=True):
        left, top, right, bottom = windows[owner]
        assert left <= box[0]
        assert top <= box[1]
        assert box[2] <= right
        assert box[3] <= bottom
        assert left >= 0
        assert top >= 0
        assert right <= 401
        assert bottom <= 401
    assert sorted(set(owners.tolist())) == list(range(len(windows)))


def test_masks_from_windows_lie_where_the_thing_is() -> None:
    image = picture(600, 400, (500, 300, 520, 303), (30, 30, 40, 40))
    boxes = np.array([[498, 298, 522, 305], [28, 28, 42, 42]], np.float32)
    segments = segment_in_views(BrightThings(), [image], [boxes], ON)[0]
    assert segments.masks[0].decode().sum() == 60
    assert segments.masks[0].decode()[301, 510]
    assert segments.masks[1].decode().sum() == 100
    assert segments.masks[1].decode()[35, 35]


class Flood(BrightThings):
    """A segmenter that leaks into all it is shown."""

    def _segment(self, image: RGB, boxes: Float) -> Segments:
        return Segments((Mask.encode(np.ones(image.shape[:2], np.bool_)),) * len(boxes), np.ones(len(boxes)))


@given(st.integers(101, 400), st.integers(60, 400), st.tuples(*[st.floats(0, 1)] * 4))
def test_a_mask_from_a_window_never_leaves_the_image(width: int, height: int, at: tuple[float, ...]) -> None:
    x0, x1 = sorted((int(at[0] * (width - 1)), int(at[1] * width)))
    y0, y1 = sorted((int(at[2] * (height - 1)), int(at[3] * height)))
    boxes = np.array([[x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)]], np.float32)
    image = picture(width, height)
    (window,), _ = share_windows(boxes, (width, height), 100)
    (segments,) = segment_in_views(Flood(), [image], [boxes], ON)
    assert (segments.masks[0].height, segments.masks[0].width) == image.shape[:2]
    assert mask_boxes(segments.masks).tolist() == [list(window)]
    assert 0 <= window[0] < window[2] <= width
    assert 0 <= window[1] < window[3] <= height


class Close(BrightThings):
    """A segmenter that wants small windows close round its boxes."""

    window_px = 40
    window_zoom = 1.5


def test_a_segmenter_may_ask_for_small_windows_close_round_its_boxes() -> None:
    image = picture(600, 400, (500, 300, 560, 330), (30, 30, 40, 40))
    boxes = np.array([[500, 300, 560, 330], [30, 30, 40, 40]], np.float32)
    model = Close()
    segments = segment_in_views(model, [image], [boxes], Tiles("auto", None, 0.2))[0]
    assert model.sizes == {(90, 90), (40, 40)}
    assert [int(mask.decode().sum()) for mask in segments.masks] == [1800, 100]
    (whole,) = segment_in_views(model, [image[:80, :80]], [boxes[1:]], Tiles("auto", None, 0.2))
    assert int(whole.masks[0].decode().sum()) == 100
    assert model.calls[-1] == 1


class Coarse(BrightThings):
    """A segmenter whose masks have 84 × 84 cells, as it is shown images or windows; a cell is bright or dark."""

    def _segment(self, image: RGB, boxes: Float) -> Segments:
        bright = image[..., 0] > 128
        height, width = bright.shape
        rows, cols = (np.arange(length) * 84 // length for length in (height, width))
        cells = np.zeros((84, 84), np.bool_)
        cells[rows[np.nonzero(bright)[0]], cols[np.nonzero(bright)[1]]] = True
        return Segments(tuple(Mask.encode(cells[rows][:, cols]) for _ in boxes), np.full(len(boxes), 0.5, np.float32))


def diagonal(width: int, height: int) -> RGB:
    image = np.zeros((height, width, 3), np.uint8)
    for x in range(100, 500):
        image[x // 2 : x // 2 + 3, x] = 255
    return image


def test_a_long_thin_mask_is_made_again_in_closer_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    image, box = diagonal(1600, 1200), np.array([[100, 50, 500, 253]], np.float32)
    model = Coarse()
    (segments,) = segment_in_views(model, [image], [box], ON)
    monkeypatch.setattr(windows, "THIN", 0.0)
    (once,) = segment_in_views(Coarse(), [image], [box], ON)
    true = image[..., 0] > 128

    def iou(mask: Mask) -> float:
        found = mask.decode()
        return float((found & true).sum() / (found | true).sum())

    assert model.calls == [1, 3]  # the box, then parts of the line, two of which share a window
    assert iou(segments.masks[0]) > 1.25 * iou(once.masks[0])
    assert segments.scores.tolist() == [0.5]


@pytest.mark.parametrize(
    ("mask", "parts"),
    [
        (block(300, 200, (50, 50, 250, 150)), 0),  # long, but not thin
        (block(300, 200, (50, 50, 120, 52)), 0),  # thin, but hardly longer than a part
        (block(300, 200, (0, 0, 0, 0)), 0),  # empty
        (block(300, 200, (50, 50, 250, 52)), 2),  # halves
        (block(300, 200, (50, 10, 52, 190)), 2),
        (block(300, 200, (20, 20, 220, 22)) | block(300, 200, (20, 20, 22, 180)), 3),  # an L: nothing in one quarter
    ],
)
def test_parts_of_a_thin_mask_hold_all_of_it(mask: np.ndarray, parts: int) -> None:
    found = parts_of_thin(Mask.encode(mask), 100)
    assert len(found) == parts
    inside = np.zeros_like(mask)
    for x0, y0, x1, y1 in (part.astype(int).tolist() for part in found):
        assert 0 <= x0 < x1 <= 300
        assert 0 <= y0 < y1 <= 200
        inside[y0:y1, x0:x1] = True
    assert not parts or inside[mask].all()


def test_a_thin_mask_that_a_closer_look_does_not_find_again_stays() -> None:
    class Shy(Coarse):
        def _segment(self, image: RGB, boxes: Float) -> Segments:
            segments = super()._segment(image, boxes)
            if len(self.calls) == 1:
                return segments
            return Segments(tuple(Mask.encode(np.zeros(image.shape[:2], np.bool_)) for _ in boxes), segments.scores)

    image, box = diagonal(600, 400), np.array([[100, 50, 500, 253]], np.float32)
    (segments,) = segment_in_views(Shy(), [image], [box], ON)
    assert segments.masks[0].area > 0


class Eager(BrightThings):
    """A detector that wants tiles soon, and small ones."""

    tile_from = 2.0
    tile_zoom = 1.0


def test_a_detector_may_ask_for_tiles_sooner_and_of_another_size() -> None:
    auto = Tiles("auto", None, 0.2)
    image = picture(250, 90, (200, 30, 220, 33))
    assert detect_in_views(BrightThings(), [image], ["thing"], 0.1, auto)[0].boxes_xyxy.tolist() == []
    model = Eager()
    assert detect_in_views(model, [image], ["thing"], 0.1, auto)[0].boxes_xyxy.tolist() == [[200, 30, 220, 33]]
    assert model.sizes == {(90, 250), (90, 100)}
    detect_in_views(model, [image[:, :200]], ["thing"], 0.1, auto)
    assert model.calls == [1, 3, 1]


def test_an_image_without_boxes_costs_the_segmenter_nothing() -> None:
    model = BrightThings()
    segments = segment_in_views(model, [picture(600, 400)], [np.zeros((0, 4), np.float32)], ON)
    assert [len(s.masks) for s in segments] == [0]
    assert model.calls == []


def test_tile_settings_are_part_of_what_a_result_depends_on(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), picture(390, 260, (20, 50, 370, 53)))
    call = {"prompt": "thing.", "detector": BrightThings(), "segmenter": "none", "classifier": "none"}
    run = autolabel.run(tmp_path / "a.png", path=tmp_path / "run", tiles={"mode": "off"}, **call)
    assert run.manifest.counts["annotations"] == 0
    keys = run.manifest.keys
    run = autolabel.run(tmp_path / "a.png", path=tmp_path / "run", tiles={"mode": "on", "size": 100}, **call)
    assert run.manifest.keys.detect != keys.detect
    (item,) = run
    assert [a.box.xyxy for a in item.annotations] == [(20, 50, 370, 53)]
    run = autolabel.run(tmp_path / "a.png", path=tmp_path / "run", tiles={"mode": "off"}, **call)
    assert run.manifest.keys == keys


def test_a_recipe_with_a_wrong_tile_setting_says_so() -> None:
    from autolabel.config import parse_recipe
    from autolabel.errors import ConfigError

    assert Recipe().tiles.size is None
    with pytest.raises(ConfigError, match=r"tiles\.overlap"):
        parse_recipe({"tiles": {"overlap": 0.9}}, "test")
    with pytest.raises(ConfigError, match="known keys are mode, size, overlap"):
        parse_recipe({"tiles": {"side": 3}}, "test")

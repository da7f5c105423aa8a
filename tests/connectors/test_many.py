"""Many masks read at once say what each says alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.errors import AutolabelError
from autolabel.types import Mask
from autolabel_connectors import many, rle
from autolabel_connectors.label_studio.brush import encode_brush, encode_brushes
from autolabel_connectors.shapes import draw, draw_all
from tests.connectors.cases import MASKS, annotation, blank, disc, odd_masks

SOME = st.lists(st.one_of(MASKS, st.sampled_from(list(odd_masks().values())), st.just(blank(5, 7))), max_size=6)


def test_no_masks_have_no_crops_and_no_codes():
    assert list(many.read_masks([]).crops()) == []
    assert encode_brushes([]) == []
    assert draw_all([]) == []


@settings(max_examples=150, deadline=None)
@given(SOME, st.sampled_from([1, 60, 2**18]))
def test_boxes_pixels_and_runs_are_those_of_each_mask_alone(masks, at_once):
    coded = [Mask.encode(mask) for mask in masks]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many, "_CHUNK_PX", at_once)
        read = many.read_masks(coded)
        seen = 0
        for crops in read.crops():
            starts, ends, numbers = crops.row_runs()
            borders = np.concatenate([[0], np.cumsum(numbers)])
            for place in range(len(numbers)):
                pixels, left, top = rle.crop(coded[seen])
                assert np.array_equal(crops.crop(place), pixels)
                x0, y0, x1, y1 = read.boxes_xyxy[seen].tolist()
                assert (x0, y0, x1, y1) == (left, top, left + pixels.shape[1], top + pixels.shape[0])
                mine = slice(borders[place], borders[place + 1])
                for found, alone in zip((starts[mine], ends[mine]), rle.row_runs(coded[seen]), strict=True):
                    assert np.array_equal(found, alone)
                seen += 1
        assert seen == len(masks)
        assert [list(code) for code in encode_brushes(coded)] == [encode_brush(mask) for mask in coded]


def test_empty_runs_are_seen_through_and_told_of():
    plain = Mask.encode(disc(9, 3))
    counts = [*np.diff([0, *np.flatnonzero(np.diff(plain.decode().T.ravel())) + 1, 81])]
    split = rle.from_row_runs(*rle.row_runs(plain), (9, 9))
    assert split == plain
    written = Mask(9, 9, _uncanonical(counts))
    read = many.read_masks([plain, written, plain])
    assert read.canonical.tolist() == [True, False, True]
    assert read.boxes_xyxy[0].tolist() == read.boxes_xyxy[1].tolist()
    assert [drawing.mask for drawing in draw_all([_with(plain), _with(written)], "mask")] == [plain, plain]


def _with(mask: Mask):
    from dataclasses import replace

    return replace(annotation(), mask=mask)


def _uncanonical(counts: list[int]) -> bytes:
    """Write the first run of pixels as two with an empty run between; every count is in [0, 15]."""
    runs = [int(count) for count in counts]
    runs[1:2] = [1, 0, runs[1] - 1]
    runs = [part for run in runs for part in ([run] if run < 16 else [15, 0, run - 15])]
    letters = [run - (runs[place - 2] if place > 2 else 0) for place, run in enumerate(runs)]
    assert all(-16 <= letter < 16 for letter in letters)
    return bytes((letter & 31) + 48 for letter in letters)


@pytest.mark.parametrize("shape", ["auto", "polygon", "mask", "box"])
def test_regions_drawn_together_are_drawn_as_alone(shape):
    masks = [*odd_masks().values(), blank(4, 4), disc(60, 25), disc(300, 140)]
    given_ = [annotation(mask=mask) for mask in masks] + [annotation()]
    for together, one in zip(draw_all(given_, shape), given_, strict=True):
        alone = draw(one, shape)
        assert (together.kind, together.box, together.mask, together.iou) == (
            alone.kind,
            alone.box,
            alone.mask,
            alone.iou,
        )
        assert [ring.tolist() for ring in together.rings] == [ring.tolist() for ring in alone.rings]


def test_a_code_that_is_cut_off_does_not_spill_into_the_next():
    whole = Mask.encode(disc(200, 80))
    cut = Mask(200, 200, whole.counts[:1] if ord(whole.counts[:1]) - 48 & 32 else whole.counts[:2])
    with pytest.raises(AutolabelError, match="middle of a number"):
        many.read_masks([cut, whole])

"""Masks, conflicts, outliers and pictures, on shapes that can be worked out by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from autolabel.quality.conflicts import find_conflicts
from autolabel.quality.masks import as_mask, mask_quality
from autolabel.quality.material import Pictures
from autolabel.quality.outliers import find_outliers
from autolabel.quality.pictures import find_picture_issues
from autolabel.runlengths import crop_of, runs_of
from autolabel.types import Box, Mask
from tests.quality.sets import NAMES, labels_of


def square(x0, y0, x1, y1, side=100):
    mask = np.zeros((side, side), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 30))
def test_runs_and_crop_are_the_mask(seed, height, width):
    rng = np.random.default_rng(seed)
    pixels = rng.random((height, width)) < rng.random()
    pixels[:, rng.integers(width)] |= rng.random() < 0.3
    mask = Mask.encode(pixels)
    starts, ends = runs_of(mask)
    assert (ends - starts).sum() == pixels.sum()
    if pixels.any():
        rows, columns = np.nonzero(pixels)
        box = int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
        crop = crop_of(mask, (starts, ends), box)
        np.testing.assert_array_equal(crop, pixels[box[1] : box[3], box[0] : box[2]])


def test_a_tidy_mask_is_good():
    found = mask_quality(Mask.encode(square(20, 20, 60, 60)), Box(20, 20, 60, 60), 0.9)
    assert not found.flagged
    assert found.quality == pytest.approx(0.9)


def test_bad_masks_say_what_is_wrong():
    assert mask_quality(Mask.encode(np.zeros((9, 9), np.bool_)), Box(1, 1, 5, 5)).reason == "the mask is empty"
    off = mask_quality(Mask.encode(square(20, 20, 40, 60)), Box(30, 20, 90, 60))
    assert off.flagged
    assert "overlap" in off.reason
    holed = square(20, 20, 60, 60) & ~square(30, 30, 50, 50)
    found = mask_quality(Mask.encode(holed), Box(20, 20, 60, 60))
    assert found.flagged
    assert found.quality == pytest.approx(1 - 400 / 1200)
    assert "33% holes" in found.reason
    assert mask_quality(Mask.encode(square(20, 20, 60, 60)), Box(20, 20, 60, 60), 0.2).flagged
    assert mask_quality(Mask.encode(square(20, 20, 60, 60)), Box(20, 20, 60, 60), agreement=0.1).flagged


def test_coco_shapes():
    polygon = as_mask([[10, 10, 30, 10, 30, 30, 10, 30]], (50, 50))
    assert polygon is not None
    assert polygon.area == pytest.approx(400, abs=45)
    assert as_mask(None, (5, 5)) is None
    assert as_mask([[1, 2]], (5, 5)) is None
    uncompressed = as_mask({"size": [2, 2], "counts": [1, 2, 1]}, (2, 2))
    assert uncompressed is not None
    assert uncompressed.area == 2


def test_conflicts():
    labels = labels_of(
        [0, 0, 1, 1, 2, 2, 3],
        [
            (0, 0, 100, 100),
            (2, 0, 100, 100),
            (0, 0, 100, 100),
            (0, 0, 99, 100),
            (0, 0, 100, 100),
            (10, 10, 90, 90),
            (0, 0, 100, 100),
        ],
        [0, 1, 2, 2, 1, 1, 0],
    )
    found = find_conflicts(labels, 4, NAMES)
    assert list(zip(found.first, found.second, strict=True)) == [(0, 1), (2, 3), (4, 5)]
    assert "both scratch and dent" in found.reasons[0]
    assert "twice" in found.reasons[1]
    assert "inside" in found.reasons[2]
    assert len(find_conflicts(labels_of([], [], []), 3, NAMES).first) == 0


def test_the_odd_one_out():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(0, 0.02, (200, 8))
    embeddings[:, 0] += 1
    embeddings[17] = [0, 0, 0, 1, 0, 0, 0, 0]
    found = find_outliers(embeddings.astype(np.float16))
    assert found is not None
    quality, flagged = found
    assert quality.argmin() == 17
    assert flagged[17]
    assert flagged.sum() <= 4
    assert find_outliers(embeddings[:10]) is None


def test_many_regions_are_scored_as_cleanlab_scores_them(monkeypatch):
    from cleanlab.outlier import OutOfDistribution

    from autolabel.quality import outliers

    monkeypatch.setattr(outliers, "_REFERENCE", 60)
    rng = np.random.default_rng(0)
    embeddings = rng.normal(0, 0.3, (300, 8)).astype(np.float32)
    embeddings[::9] = 0  # evidence without an embedding
    found = find_outliers(embeddings)
    assert found is not None
    rows = np.sort(np.random.default_rng(0).permutation(300)[:60])
    model = OutOfDistribution({"k": 10})
    model.fit(features=embeddings[rows])
    others = np.setdiff1d(np.arange(300), rows)
    np.testing.assert_allclose(found[0][others], model.score(features=embeddings[others]), atol=1e-5)


def test_picture_problems():
    pytest.importorskip("cleanvision")
    rng = np.random.default_rng(0)

    def encode(pixels, fmt="PNG"):
        buffer = io.BytesIO()
        Pillow.fromarray(pixels.astype(np.uint8)).save(buffer, fmt)
        return buffer.getvalue()

    def scene(seed):
        coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3)).astype(np.uint8)
        return np.asarray(Pillow.fromarray(coarse).resize((160, 120), Pillow.Resampling.NEAREST))

    good = [encode(np.clip(scene(n) + rng.normal(0, 8, (120, 160, 3)), 0, 255)) for n in range(6)]
    again = encode(scene(0), "JPEG")
    files = [*good, encode(np.full((120, 160, 3), 128)), encode(scene(7) // 12), again, b"not an image"]
    sizes = np.full((len(files), 2), (160, 120), np.float32)
    ids = tuple("same" if n in (1, 2) else str(n) for n in range(len(files)))
    listed = Pictures(tuple(f"{n}.png" for n in range(len(files))), ids, sizes)
    issues, unread = find_picture_issues(listed, lambda place: files[place])
    found = {(issue.kind, issue.place) for issue in issues}
    assert unread == 1
    assert {("blank", 6), ("dark", 7), ("duplicate", 1), ("duplicate", 2), ("near-duplicate", 0)} <= found
    assert ("near-duplicate", 8) in found
    assert not [issue for issue in issues if issue.place in (3, 4, 5)]
    assert [i.flagged for i in issues if i.kind == "duplicate"] == [False, True]

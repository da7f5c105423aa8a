from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from autolabel.models import masks
from autolabel.models.masks import encode_masks, encode_on_device
from autolabel.types import Mask

SIDE = st.integers(1, 40)


def assert_same(found: list[Mask], logits: torch.Tensor, size_hw: tuple[int, int], windows=None, near=1e-5) -> None:
    """Compare with upsampling everything; only where a value is all but 0 may rounding decide."""
    full = F.interpolate(logits[:, None], size_hw, mode="bilinear", align_corners=False)[:, 0].numpy()
    assert len(found) == len(full)
    for place, (mask, values) in enumerate(zip(found, full, strict=True)):
        expected = np.zeros(size_hw, bool)
        window = (slice(None), slice(None)) if windows is None else windows[place]
        expected[window] = values[window] > 0
        pixels = mask.decode()
        assert (pixels == expected)[np.abs(values) > near].all()
        assert mask == Mask.encode(pixels)  # equal masks have equal counts


def logits_of(kind: str, count: int, height: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((count, height, width), generator=generator)
    if kind == "smooth":
        return F.avg_pool2d(noise[None], 3, 1, 1)[0]
    if kind == "spot":
        noise = torch.full_like(noise, -1.0)
        noise[:, height // 2, width // 3] = 3.0
    return noise


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(["noise", "smooth", "spot"]),
    small=st.tuples(SIDE, SIDE),
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    window=st.none() | st.tuples(*(st.floats(0, 1) for _ in range(4))),
    share=st.sampled_from([0.0, 0.2, 2.0]),
    seed=st.integers(0, 9),
)
def test_masks_are_those_of_upsampling_the_whole(kind, small, size, window, share, seed):
    logits = logits_of(kind, 2, *small, seed)
    windows = None
    if window is not None:
        bounds = (window[:2], window[2:])
        rows, columns = ([int(p * extent) for p in pair] for pair, extent in zip(bounds, size, strict=True))
        windows = [tuple(slice(min(p), min(max(p) + 1, e)) for p, e in zip((rows, columns), size, strict=True))] * 2
    before = masks._SMALL
    masks._SMALL = share
    try:
        assert_same(encode_masks(logits, size, windows), logits, size, windows)
    finally:
        masks._SMALL = before
    assert_same(encode_on_device(logits, size, windows), logits, size, windows)


def test_no_masks_and_masks_of_nothing_or_everything():
    assert encode_masks(torch.zeros(0, 8, 8), (20, 30), None) == []
    for value, expected in ((-1.0, np.zeros((20, 30), bool)), (1.0, np.ones((20, 30), bool))):
        logits = torch.full((1, 8, 8), value)
        assert encode_masks(logits, (20, 30), None) == encode_on_device(logits, (20, 30), None)
        assert encode_masks(logits, (20, 30), None) == [Mask.encode(expected)]


def test_only_where_a_mask_can_be_is_upsampled(monkeypatch):
    monkeypatch.setattr(masks.F, "interpolate", lambda *a, **k: pytest.fail("upsampled the whole image"))
    logits = logits_of("spot", 1, 32, 32, 0)
    (mask,) = encode_masks(logits, (3200, 3200), None)
    ys, xs = np.nonzero(mask.decode())
    assert abs(ys.mean() - 1650) < 1
    assert abs(xs.mean() - 1050) < 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_makes_the_same_masks():
    logits = logits_of("smooth", 5, 64, 64, 3)
    assert_same(encode_masks(logits.cuda(), (480, 640), None), logits, (480, 640), near=1e-4)

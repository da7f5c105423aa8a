from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.errors import AutolabelError
from autolabel.types import Mask
from autolabel_connectors.label_studio.brush import decode_bitmask, decode_brush, encode_bitmask, encode_brush
from tests.connectors.cases import MASKS, blank, disc, odd_masks

sdk = pytest.importorskip("label_studio_sdk.converter.brush")


def written(
    values: np.ndarray, word: int = 8, sizes: tuple[int, ...] = (3, 4, 8, 16), longest: int = 10**6
) -> list[int]:
    """Write a code as the editor's library does: equal neighbours as a run, others as they are, in blocks."""
    bits = f"{len(values):032b}{word - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    limits = [min(2**size, longest) for size in sizes]
    place = 0
    while place < len(values):
        run = 1
        while place + run < len(values) and values[place + run] == values[place] and run < limits[-1]:
            run += 1
        if run == 1:
            while place + run < len(values) and values[place + run] != values[place + run - 1] and run < limits[0]:
                run += 1
        same = len(set(values[place : place + run])) == 1
        which = next(i for i, limit in enumerate(limits) if run <= limit)
        bits += f"{int(same)}{which:02b}{run - 1:0{sizes[which]}b}"
        bits += "".join(f"{value:0{word}b}" for value in values[place : place + (1 if same else run)])
        place += run
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_the_code_is_the_sdks_to_the_bit_and_reads_back_exactly(mask):
    code = encode_brush(Mask.encode(mask))
    assert code == sdk.mask2rle(mask.astype(np.uint8) * 255)
    assert np.array_equal(sdk.decode_rle(code).reshape(*mask.shape, 4)[..., 3] > 0, mask)
    assert np.array_equal(decode_brush(code, *mask.shape).decode(), mask)


@pytest.mark.parametrize("name", odd_masks())
def test_odd_masks_are_exact(name):
    mask = odd_masks()[name]
    assert decode_brush(encode_brush(Mask.encode(mask)), *mask.shape) == Mask.encode(mask)


@pytest.mark.parametrize("shape", [(1, 16384), (1, 16385), (128, 128), (300, 400), (1, 4000), (4000, 1)])
@pytest.mark.parametrize("value", [False, True])
def test_runs_longer_than_a_block_are_cut_as_the_sdk_cuts_them(shape, value):
    mask = np.full(shape, value)
    code = encode_brush(Mask.encode(mask))
    assert code == sdk.mask2rle(mask.astype(np.uint8) * 255)
    assert decode_brush(code, *shape) == Mask.encode(mask)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=60),
    st.sampled_from([8, 9, 16]),
    st.sampled_from([(3, 4, 8, 16), (1, 2, 3, 4), (16, 16, 16, 16)]),
)
def test_soft_edges_count_from_half_on_whatever_the_sizes_of_words_and_lengths(alpha, word, sizes):
    # The editor greys the pixels: all four bytes of a pixel are its alpha.
    mask = decode_brush(written(np.repeat(alpha, 4), word, sizes), 1, len(alpha)).decode()[0]
    half = 128 if max(alpha) >= 128 else 1
    assert mask.tolist() == [value >= half for value in alpha]


def test_values_that_are_not_runs_are_read_as_they_are():
    values = np.array([9, 8, 7, 200, 1, 2, 3, 4, 0, 0, 0, 255, 255, 0, 255, 128])
    assert decode_brush(written(values), 2, 2).decode().tolist() == [[True, False], [True, True]]


def test_masks_written_with_ones_do_not_vanish():
    mask = disc(20, 7)
    assert decode_brush(sdk.mask2rle(mask.astype(np.uint8)), 20, 20) == Mask.encode(mask)


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ([], "header"),
        ([1, 2, 3], "header"),
        ([0, 0, 0, 144, 57, 27, 248], "ends after"),
        (encode_brush(Mask.encode(blank(6, 7)))[:8], "ends after"),
        (encode_brush(Mask.encode(blank(5, 7))), "another size"),
    ],
)
def test_damaged_codes_and_other_sizes_are_errors_that_say_so(rle, message):
    with pytest.raises(AutolabelError, match=message):
        decode_brush(rle, 6, 6)


@pytest.mark.parametrize("name", odd_masks())
def test_bitmasks_are_exact(name):
    mask = odd_masks()[name]
    assert np.array_equal(decode_bitmask(encode_bitmask(Mask.encode(mask))), mask)


@pytest.mark.parametrize(
    "url", ["", "data:image/png;base64,", "data:image/png;base64,????", "data:image/png;base64,aGFs"]
)
def test_a_bitmask_that_is_no_picture_is_an_error(url):
    with pytest.raises(AutolabelError, match="imageDataURL"):
        decode_bitmask(url)

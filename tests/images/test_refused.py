"""What is not a picture, or not all of one, is refused and says why."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from autolabel.errors import ImageError
from autolabel.images import decode, image_size
from tests.images.pictures import CODECS, encoded, png_of, scene


def test_no_bytes():
    with pytest.raises(ImageError, match=r"cannot decode 'a\.jpg': the file is empty"):
        decode(b"", "a.jpg")
    with pytest.raises(ImageError, match="empty"):
        image_size(b"", "a.jpg")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\0", "not an image"),
        (b"hello, world", "not an image"),
        (b"<!DOCTYPE html><html>404", "a web page or XML"),
        (b"%PDF-1.7\n", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0heic", "HEIC"),
        (b"\xff\xd8\xff", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"GIF89a", "damaged"),
        (b"BM", "damaged"),
        (b"II*\0", "damaged"),
        (b"RIFF\0\0\0\0WEBP", "damaged"),
        (b"P6\n0 0\n255\n", "damaged|no pixels"),
        (png_of(b"", (0, 5), 8, 2), "damaged|no pixels"),
    ],
)
def test_not_a_picture(data: bytes, why: str):
    with pytest.raises(ImageError, match=why):
        decode(data, "x.jpg")


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM"])
)
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_give_pixels_or_an_image_error(body: bytes, head: bytes):
    try:
        pixels = decode(head + body, "x", max_pixels=1_000_000)
    except ImageError:
        return
    assert pixels.ndim == 3


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_truncated_file_is_refused_wherever_it_is_cut(codec: str):
    noise = np.random.default_rng(0).integers(0, 255, (61, 83, 3), dtype=np.uint8)
    kind, options = CODECS[codec]
    data = encoded(noise, kind, **options)
    whole = decode(data, "whole")
    for share in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97):
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            decode(data[: int(len(data) * share)], "cut")
    with contextlib.suppress(ImageError):  # a missing last byte may be harmless, but then the picture is whole
        np.testing.assert_array_equal(decode(data[:-1], "cut"), whole)


@pytest.mark.parametrize("codec", ["jpeg", "progressive jpeg", "png", "gif", "lzw tiff"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_download_that_stopped_in_a_preallocated_file_is_refused(codec: str):
    noise = np.random.default_rng(1).integers(0, 255, (61, 83, 3), dtype=np.uint8)
    kind, options = CODECS[codec]
    data = encoded(noise, kind, **options)
    half = len(data) // 2
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        decode(data[:half] + bytes(len(data) - half), "half.jpg")


def test_a_flipped_bit_in_a_png_is_noticed():
    data = bytearray(encoded(scene(), "PNG"))
    data[data.index(b"IDAT") + 40] ^= 1
    with pytest.raises(ImageError, match="damaged"):
        decode(bytes(data), "a.png")


def test_padding_after_the_end_of_a_jpeg_is_harmless():
    data = encoded(scene(), "JPEG")
    np.testing.assert_array_equal(decode(data + bytes(100), "a.jpg"), decode(data, "a.jpg"))


def test_a_jpeg_with_a_thumbnail_cut_after_the_thumbnail_is_refused():
    thumbnail = encoded(scene(), "JPEG")
    data = encoded(scene(90, 120), "JPEG")
    with_thumbnail = data[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + data[2:]
    decode(with_thumbnail, "a.jpg")
    cut = len(thumbnail) + 6 + len(data) * 3 // 4
    with pytest.raises(ImageError, match="truncated"):
        decode(with_thumbnail[:cut] + bytes(500), "a.jpg")


def test_pixel_limit_is_checked_before_allocating():
    bomb = png_of(bytes(100), (60_000, 60_000), 8, 2)
    with pytest.raises(ImageError, match=r"60000×60000 px are 3600 Mpx, above the limit of 200 Mpx"):
        decode(bomb, "bomb.png")
    data = encoded(scene(10, 10), "PNG")
    with pytest.raises(ImageError, match="limit"):
        decode(data, "a.png", max_pixels=99)
    assert decode(data, "a.png", max_pixels=100).shape == (10, 10, 3)


def test_limit_is_ours_and_not_pillows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode(encoded(scene(), "PNG"), "a.png").shape == (24, 40, 3)


def test_importing_leaves_pillow_as_it_was():
    assert Image.MAX_IMAGE_PIXELS == 89_478_485
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False

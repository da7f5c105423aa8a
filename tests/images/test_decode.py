"""Bytes to pixels: nothing half-read, nothing lying on its side."""

from __future__ import annotations

import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from autolabel.errors import ImageError
from autolabel.images import decode, image_id, image_size, list_sources, read_bytes
from tests.images.pictures import CODECS, encoded, png_of, scene

HARD = Path(__file__).parents[2] / "sample_data" / "hard"
BROKEN = {
    "zero_bytes.jpg": "empty",
    "truncated.jpg": "truncated",
    "not_an_image.jpg": "not an image",
    "huge_header.png": "above the limit",
}


def test_one_pixel():
    pixels = decode(encoded(Image.new("RGB", (1, 1), (10, 20, 30)), "PNG"), "a.png")
    assert pixels.tolist() == [[[10, 20, 30]]]


@pytest.mark.parametrize("codec", CODECS)
def test_formats(codec: str):
    kind, options = CODECS[codec]
    data = encoded(scene(48, 80), kind, **options)
    pixels = decode(data, "wrong.extension")
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert np.abs(pixels.astype(int) - scene(48, 80)).mean() < (14 if kind == "GIF" else 5)
    assert image_size(data, "a") == (80, 48)


def oriented(upright: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores so that the tag turns it into ``upright`` (TIFF 6.0, tag 274)."""
    return {
        1: lambda p: p,
        2: np.fliplr,
        3: lambda p: np.rot90(p, 2),
        4: np.flipud,
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),  # shown turned clockwise, so stored turned counter-clockwise
        7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }[orientation](upright)


@given(st.integers(1, 8), st.integers(1, 9), st.integers(1, 9), st.sampled_from(["PNG", "TIFF", "WEBP"]))
@settings(max_examples=60, deadline=None)
def test_every_orientation_comes_out_upright(orientation: int, height: int, width: int, kind: str):
    upright = scene(height, width)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encoded(np.ascontiguousarray(oriented(upright, orientation)), kind, exif=exif, **options)
    np.testing.assert_array_equal(decode(data, "a"), upright)
    assert image_size(data, "a") == (width, height)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_orientation(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(np.ascontiguousarray(oriented(scene(), orientation)), "JPEG", exif=exif, quality=95, subsampling=0)
    assert np.abs(decode(data, "a").astype(int) - scene()).mean() < 4


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_meaningless_orientation_counts_as_upright(value: int):
    exif = Image.Exif()
    exif[0x0112] = value
    np.testing.assert_array_equal(decode(encoded(scene(), "PNG", exif=exif), "a"), scene())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_cost_the_picture():
    data = encoded(scene(), "JPEG")
    broken = data[:2] + b"\xff\xe1\x00\x10Exif\x00\x00II*\x00\xff\xff\xff\xff" + data[2:]
    np.testing.assert_array_equal(decode(broken, "a"), decode(data, "a"))


@pytest.mark.parametrize(("top", "full"), [(200, 255), (1000, 1023), (4000, 4095), (16000, 16383), (65000, 65535)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_deep_grey_is_scaled_from_its_bit_depth(kind: str, top: int, full: int):
    grey = np.array([[0, top // 2, top]], np.uint16)
    pixels = decode(encoded(grey, kind), "a")
    np.testing.assert_array_equal(pixels[0, :, 0], np.rint(grey[0] * (255 / full)))
    assert (pixels[..., 0] == pixels[..., 1]).all()


def test_black_sixteen_bit_grey_stays_black():
    assert not decode(encoded(np.zeros((2, 2), np.uint16), "PNG"), "a").any()


def test_sixteen_bit_colour_keeps_its_high_byte():
    rows = b"\0" + struct.pack(">6H", 0, 257 * 10, 65535, 257 * 200, 300, 255)
    assert decode(png_of(rows, (2, 1), 16, 2), "a.png").tolist() == [[[0, 10, 255], [200, 1, 0]]]


def test_white_is_zero_sixteen_bit_tiff():
    grey = np.array([[0, 65535]], np.uint16)
    data = encoded(grey, "TIFF", tiffinfo={262: 0})
    if b"\x06\x01\x03\x00\x01\x00\x00\x00\x00\x00" not in data:
        pytest.skip("this Pillow does not write that tag")
    assert decode(data, "a")[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 0.25, 0.5], [0, 64, 128]),
        ([-10.0, 0.0, 10.0], [0, 128, 255]),
        ([0.0, float("nan"), 1.0], [0, 0, 255]),
        ([3.0, 3.0, 3.0], [0, 0, 0]),
    ],
)
def test_float_tiff(values: list[float], expected: list[int]):
    data = encoded(np.array([values], np.float32), "TIFF")
    assert decode(data, "a")[0, :, 0].tolist() == expected


def test_float_tiff_without_a_number():
    with pytest.raises(ImageError, match="no finite"):
        decode(encoded(np.full((2, 2), np.nan, np.float32), "TIFF"), "a")


def test_thirty_two_bit_tiff_is_stretched():
    data = encoded(np.array([[-70000, 0, 70000]], np.int32), "TIFF")
    assert decode(data, "a")[0, :, 0].tolist() == [0, 128, 255]


def test_first_page_and_first_frame():
    pages = [Image.fromarray(scene()), Image.new("RGB", (7, 9), "red")]
    np.testing.assert_array_equal(
        decode(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]), "a"), scene()
    )
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("#00f", "#f00")]
    for kind in ("GIF", "PNG", "WEBP"):
        data = encoded(
            frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert (decode(data, "a") == (0, 0, 255)).all()


def test_one_bit():
    bits = np.eye(9, dtype=bool)
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        assert (decode(encoded(Image.fromarray(bits), kind), "a")[..., 0] == bits * 255).all()


def test_transparent_pixels_become_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = (0, 51, 255)
    for kind in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        assert decode(encoded(rgba, kind, **options), "a")[0, :, 0].tolist() == [255, 204, 0]
    grey_alpha = Image.fromarray(rgba[..., 2:].copy(), "LA")
    assert decode(encoded(grey_alpha, "PNG"), "a")[0, :, 0].tolist() == [255, 204, 0]


def test_alpha_that_hides_everything_is_ignored():
    rgba = np.full((2, 2, 4), 90, np.uint8)
    rgba[..., 3] = 0
    assert (decode(encoded(rgba, "PNG"), "a") == 90).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "F", "CMYK"])
def test_pixels_are_the_callers_own(mode: str):
    pixels = decode(encoded(Image.new(mode, (1, 1)), "TIFF" if mode in ("F", "CMYK") else "PNG"), "a")
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


def test_unsupported_kind_is_not_called_damaged():
    shorts = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 110, 277: 7, 278: 1, 279: 7}  # seven bands
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in shorts.items())
    data = b"II*\0" + struct.pack("<IH", 8, len(shorts)) + entries + bytes(4)
    with pytest.raises(ImageError, match="unsupported kind of image"):
        decode(data.ljust(200, b"\1"), "a.tif")


def test_palette():
    palette = Image.fromarray(scene()).quantize(200, dither=Image.Dither.NONE)
    np.testing.assert_array_equal(decode(encoded(palette, "PNG"), "a"), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_transparency(kind: str):
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1])
    pixels = decode(encoded(palette, kind, transparency=0), "a")
    assert pixels.tolist() == [[[255, 255, 255], [0, 0, 255]]]


def test_transparent_colour_without_alpha_channel():
    pixels = decode(encoded(Image.fromarray(scene()), "PNG", transparency=(0, 0, 200)), "a")
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[-1, -1].tolist() == scene()[-1, -1].tolist()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str):
    expected = scene(48, 80)
    data = encoded(Image.fromarray(expected).convert("CMYK"), kind)
    assert np.abs(decode(data, "a").astype(int) - expected).mean() < 5


def test_threads_do_not_disturb_each_other():
    barrier = threading.Barrier(8)
    exif = Image.Exif()
    exif[0x0112] = 6
    good = encoded(np.ascontiguousarray(oriented(scene(), 6)), "PNG", exif=exif)
    bad = good[: len(good) // 2]

    def work(number: int) -> bool:
        barrier.wait()
        for _ in range(20):
            if number % 2:
                with pytest.raises(ImageError):
                    decode(bad, "bad")
            else:
                np.testing.assert_array_equal(decode(good, "good"), scene())
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_image_id_is_the_sha256_of_the_bytes():
    assert image_id(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert image_id(b"a") != image_id(b"b")


def hard_files() -> list[str]:
    return sorted(path.name for path in HARD.iterdir()) if HARD.is_dir() else []


def test_the_awkward_files_are_all_there():
    assert set(BROKEN) <= set(hard_files())
    assert len(list_sources([str(HARD)])) == len(hard_files()) >= 14


@pytest.mark.parametrize("name", hard_files())
def test_awkward_file(name: str):
    source = next(source for source in list_sources([str(HARD)]) if source.path == name)
    data = read_bytes(source)
    if name in BROKEN:
        with pytest.raises(ImageError, match=BROKEN[name]):
            decode(data, name)
        return
    pixels = decode(data, name)
    assert pixels.shape == (*image_size(data, name)[::-1], 3)
    assert name == "tiny_1x1.png" or pixels.std() > 5
    if name == "exif_rotated.jpg":
        assert pixels.shape == (320, 200, 3)

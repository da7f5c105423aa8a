"""Awkward picture files: broken, unusual or misnamed, as real folders hold them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from training.generator import SAMPLES, generate
from training.seeds import SAMPLE_DATA

FIRST_SEED = SAMPLE_DATA.start + 1_000


def _picture(number: int, size_wh: tuple[int, int] = (240, 180)) -> Image.Image:
    return Image.fromarray(generate(FIRST_SEED + number, size_wh, edition=SAMPLES).image)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_header_png(side_px: int = 60_000) -> bytes:
    """Build a PNG of a few bytes whose header promises ``side_px`` squared pixels (a decompression bomb's shape)."""
    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1_000))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def write_hard_files(folder: Path) -> None:
    """Write all of them; existing files of the same names are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = io.BytesIO()
    _picture(0).save(whole, "JPEG", quality=88)
    (folder / "truncated.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) * 2 // 5])
    (folder / "zero_bytes.jpg").write_bytes(b"")
    (folder / "not_an_image.jpg").write_text("This is a text file with a picture's name.\n", encoding="utf-8")
    (folder / "huge_header.png").write_bytes(huge_header_png())

    grey = np.asarray(_picture(1).convert("L"), np.uint16) * 257
    Image.fromarray(grey).save(folder / "gray16.png")
    Image.fromarray(grey).save(folder / "tiff16.tif")
    cut_out = _picture(2).convert("RGBA")
    across = np.linspace(0, 255, cut_out.width).astype(np.uint8)
    cut_out.putalpha(Image.fromarray(np.tile(across, (cut_out.height, 1))))
    cut_out.save(folder / "rgba.png")
    _picture(3).quantize(32).save(folder / "palette.png")
    _picture(4).convert("CMYK").save(folder / "cmyk.jpg", quality=88)

    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    _picture(5, (320, 200)).save(folder / "exif_rotated.jpg", quality=88, exif=orientation)
    Image.new("RGB", (1, 1), (128, 128, 128)).save(folder / "tiny_1x1.png")
    _picture(6).save(folder / "wrong_extension.jpg", "PNG")
    _picture(7).save(folder / "kratzer_größe_测试.png")
    _picture(8, (160, 120)).save(folder / "bitmap.bmp")
    _picture(9).save(folder / "picture.webp", quality=88)

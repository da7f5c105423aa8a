"""Pictures to decode and to list."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from autolabel.images import (
    list_sources,
)

CODECS = {
    "jpeg": ("JPEG", {}),
    "progressive jpeg": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "webp": ("WEBP", {}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "tiff": ("TIFF", {}),
    "lzw tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "deflate tiff": ("TIFF", {"compression": "tiff_deflate"}),
    "jpeg tiff": ("TIFF", {"compression": "jpeg"}),
    "ppm": ("PPM", {}),
    "jpeg 2000": ("JPEG2000", {}),
    "avif": ("AVIF", {}),
}


def scene(height: int = 24, width: int = 40) -> np.ndarray:
    """A picture without any symmetry: red grows to the right, green downwards, blue marks the top-left corner."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = np.linspace(0, 255, width).astype(np.uint8)[None, :]
    rgb[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    rgb[: height // 3, : width // 3, 2] = 200
    return rgb


def encoded(picture: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of(rows: bytes, size_wh: tuple[int, int], depth: int, colour: int, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", *size_wh, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def picture(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(buffer, "PNG")
    return buffer.getvalue()


def paths(*inputs: object) -> list[str]:
    return [source.path for source in list_sources([str(text) for text in inputs])]

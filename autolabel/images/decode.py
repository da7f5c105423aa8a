"""Bytes to upright RGB: strict about damage, tolerant about formats, and free of Pillow's process-wide switches.

The plugin classes are called directly instead of through ``PIL.Image.open``: the content decides (never the file's
extension), only the formats below can be reached (no PostScript interpreter, no PDF), and the pixel limit is ours
and per call, so that nothing depends on or changes ``MAX_IMAGE_PIXELS``, and threads cannot disturb each other.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from autolabel.errors import ImageError
from autolabel.types import RGB

DEFAULT_MAX_PIXELS = 200_000_000
"""Largest width × height that is decoded; 200 Mpx are 600 MB of RGB."""

_ORIENTATION_TAG = 0x0112
_PHOTOMETRIC_TAG = 262
_GREY_BIT_DEPTHS = (8, 10, 12, 14, 16)

_TRUNCATION_WORDS = ("truncated", "unexpected end", "not enough", "incomplete", "read past", "end of file")

_REPLACE = "replace the file with an intact copy, or remove it"

_Plugin = Callable[[io.BytesIO], Image.Image]
_SIGNATURES: tuple[tuple[bytes, _Plugin], ...] = (
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"II*\x00", TiffImagePlugin.TiffImageFile),
    (b"MM\x00*", TiffImagePlugin.TiffImageFile),
    (b"II+\x00", TiffImagePlugin.TiffImageFile),
    (b"MM\x00+", TiffImagePlugin.TiffImageFile),
    (b"GIF87a", GifImagePlugin.GifImageFile),
    (b"GIF89a", GifImagePlugin.GifImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"\xff\x4f\xff\x51", Jpeg2KImagePlugin.Jpeg2KImageFile),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", Jpeg2KImagePlugin.Jpeg2KImageFile),
    *((b"P" + bytes([kind]), PpmImagePlugin.PpmImageFile) for kind in b"123456"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


def image_id(data: bytes) -> str:
    """Return the sha256 of a file's bytes as 64 hex digits: the identity of an image wherever it lies."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes, path: str, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> RGB:
    """Decode a file's bytes to an upright ``(H, W, 3)`` uint8 RGB array; ``path`` only names it in errors.

    - EXIF orientation is applied; of several frames or pages the first is taken.
    - Transparent pixels are composited on white, as an annotation tool in a browser shows them; an alpha channel
      that is zero everywhere hides the whole picture, is an export mistake, and is ignored.
    - Grey deeper than 8 bits is scaled linearly from the smallest of 8, 10, 12, 14 or 16 bits that holds the
      brightest pixel, so that 12-bit camera data in a 16-bit file is not black. Colour of 16 bits keeps its high byte.
    - Floats within [0, 1] are scaled by 255; other floats from their finite minimum and maximum.
    - CMYK JPEGs are read with Adobe's inverted polarity; colour profiles are not applied.

    Raises ImageError for anything but a whole picture: empty, truncated, damaged, unknown or above ``max_pixels``.
    """
    picture = _open(data, path, max_pixels)
    try:
        picture.load()
        orientation = _orientation(picture)  # after the pixels: a PNG may bring its EXIF block last
        pixels = _to_rgb(picture)
    except MemoryError as error:
        raise _failure(path, f"out of memory at {picture.width}×{picture.height} px", "make it smaller") from error
    except Exception as error:
        raise _failure(path, _reason(error), _REPLACE) from error
    return np.ascontiguousarray(_upright(pixels, orientation))


def image_size(data: bytes, path: str, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, int]:
    """Return ``(width, height)`` px after EXIF rotation from the header alone; raises ImageError like ``decode``."""
    picture = _open(data, path, max_pixels)
    width, height = picture.size
    return (height, width) if _orientation(picture) >= 5 else (width, height)


def _open(data: bytes, path: str, max_pixels: int) -> Image.Image:
    """Read the header only, and refuse what is not a picture or would be too large to hold."""
    if not data:
        raise _failure(path, "the file is empty (0 bytes)", "copy it again, or remove it")
    plugin = _plugin(data, path)
    if (damage := _hidden_damage(data)) is not None:
        raise _failure(path, damage, _REPLACE)
    try:
        picture = plugin(io.BytesIO(data))
    except Exception as error:
        raise _failure(path, _reason(error), _REPLACE) from error
    width, height = picture.size
    if width < 1 or height < 1:
        raise _failure(path, f"it has no pixels ({width}×{height})", "remove the file")
    if width * height > max_pixels:
        raise _failure(
            path,
            f"{width}×{height} px are {width * height / 1e6:.0f} Mpx, above the limit of {max_pixels / 1e6:.0f} Mpx",
            "tile or shrink it, or raise the limit if the file is trusted",
        )
    return picture


def _plugin(data: bytes, path: str) -> _Plugin:
    """Choose the format by the first bytes; the extension is often wrong."""
    for signature, plugin in _SIGNATURES:
        if data.startswith(signature):
            return plugin
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    if data[4:8] == b"ftyp":
        brands = data[8:64]
        if b"avif" in brands or b"avis" in brands:
            return AvifImagePlugin.AvifImageFile
        if data[8:12] in _HEIF_BRANDS:
            raise _failure(path, "HEIC/HEIF is not supported", "convert it to JPEG or PNG first")
    head = data[:256].lstrip().lower()
    what = "a web page or XML" if head.startswith((b"<", b"\xef\xbb\xbf<")) else f"first bytes {data[:8].hex(' ')}"
    raise _failure(
        path,
        f"not an image ({what})",
        "JPEG, PNG, TIFF, BMP, WebP, GIF, AVIF, JPEG 2000 and PNM are read; remove or convert the file",
    )


def _hidden_damage(data: bytes) -> str | None:
    """Find what Pillow decodes without complaint to a picture that is part garbage; None if all is well.

    An interrupted download into a preallocated file ends in zeros: a JPEG then lacks its end marker, and a PNG's
    chunk checksums, which Pillow skips for pixel data, no longer hold.
    """
    if data.startswith(b"\xff\xd8") and data.endswith(bytes(16)):
        body = data.rstrip(b"\0")
        if body.rfind(b"\xff\xd9") <= body.rfind(b"\xff\xda"):
            return f"truncated file (the last {len(data) - len(body)} bytes are zero)"
    if data.startswith(b"\x89PNG"):
        at = 8
        while at + 12 <= len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            end = at + 8 + length
            if data[at + 4 : at + 8] == b"IEND" or end + 4 > len(data):
                break
            if (
                data[at + 4 : at + 8] == b"IDAT"
                and zlib.crc32(memoryview(data)[at + 4 : end]).to_bytes(4, "big") != data[end : end + 4]
            ):
                return f"damaged file (checksum of the pixel data at byte {at} is wrong)"
            at = end + 4
    return None


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation 1–8; a damaged EXIF block says nothing about the pixels and counts as upright."""
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return 1  # Pillow turns TIFFs itself, and tells their size as shown
    try:
        value = picture.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: RGB, orientation: int) -> RGB:
    """Undo what the EXIF orientation says was done: 2–4 mirror or turn by 180°, 5–8 also swap rows and columns."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _to_rgb(picture: Image.Image) -> RGB:
    mode = picture.mode
    if mode.startswith("I;16") or mode in ("I", "F"):
        grey = _grey_to_uint8(np.asarray(picture))
        if _min_is_white(picture):
            grey = 255 - grey
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        return _on_white(np.asarray(picture.convert("RGBA")))
    return np.array(picture.convert("RGB"))


def _grey_to_uint8(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale an ``(H, W)`` grey image deeper than 8 bits to uint8, by the rules in ``decode``."""
    if np.issubdtype(values.dtype, np.floating):
        return _float_to_uint8(values.astype(np.float64))
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 1 << _GREY_BIT_DEPTHS[-1]:
        return _float_to_uint8(values.astype(np.float64), unit_range=False)
    full = next((1 << bits) - 1 for bits in _GREY_BIT_DEPTHS if high < 1 << bits)
    scaled: NDArray[np.float32] = values.astype(np.float32) * np.float32(255 / full)
    return np.rint(scaled).astype(np.uint8)


def _float_to_uint8(values: NDArray[np.float64], *, unit_range: bool = True) -> NDArray[np.uint8]:
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("no finite pixel values")
    low, high = float(values[finite].min()), float(values[finite].max())
    if unit_range and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scaled = (np.where(finite, values, low) - low) * (255.0 / (high - low) if high > low else 0.0)
    return np.rint(scaled).astype(np.uint8)


def _min_is_white(picture: Image.Image) -> bool:
    """Pillow inverts white-is-zero TIFFs of up to 8 bits itself, but not deeper ones."""
    tags = getattr(picture, "tag_v2", None)
    return tags is not None and tags.get(_PHOTOMETRIC_TAG) == 0


def _on_white(rgba: NDArray[np.uint8]) -> RGB:
    """Composite straight-alpha ``(H, W, 4)`` on white."""
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    if not alpha.any() or (alpha == 255).all():
        return colour
    weight = alpha.astype(np.uint16)
    return ((colour * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


def _reason(error: Exception) -> str:
    """Say in the user's words what a plugin's exception means."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, EOFError) or any(word in text.lower() for word in _TRUNCATION_WORDS):
        return f"truncated file ({text})"
    return f"truncated or damaged file ({text})"


def _failure(path: str, reason: str, remedy: str) -> ImageError:
    return ImageError(f"cannot decode '{path}': {reason}; {remedy}")

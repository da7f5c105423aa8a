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

from autolabel.errors import ImageError, OutOfMemoryError
from autolabel.images.pixels import to_rgb, upright
from autolabel.types import RGB

DEFAULT_MAX_PIXELS = 200_000_000
"""Largest width × height that is decoded; 200 Mpx are 600 MB of RGB."""

Admit = Callable[[int], None]

_ORIENTATION_TAG = 0x0112

_TRUNCATION_WORDS = ("truncated", "unexpected end", "not enough", "incomplete", "read past", "end of file")

_UNSUPPORTED_WORDS = ("not supported", "unsupported", "unknown pixel mode", "samples per pixel", "unhandled")
_REPLACE = "replace the file with an intact copy, convert it to PNG, or remove it"

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


def decode(data: bytes, path: str, *, max_pixels: int = DEFAULT_MAX_PIXELS, admit: Admit | None = None) -> RGB:
    """Decode a file's bytes to an upright ``(H, W, 3)`` uint8 RGB array; ``path`` only names it in errors.

    ``admit`` is told the number of pixels once the header is read, and may wait until there is room for them.

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
    if admit is not None:
        admit(picture.width * picture.height)
    try:
        picture.load()
        orientation = _orientation(picture)  # after the pixels: a PNG may bring its EXIF block last
        pixels = to_rgb(picture)
    except MemoryError as error:
        raise OutOfMemoryError(
            f"cannot decode '{path}': out of memory at {picture.width}×{picture.height} px; make it smaller"
        ) from error
    except Exception as error:
        raise _failure(path, _reason(error), _REPLACE) from error
    return np.require(upright(pixels, orientation), np.uint8, ["C", "W"])


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


def _reason(error: Exception) -> str:
    """Say in the user's words what a plugin's exception means."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, EOFError) or any(word in text.lower() for word in _TRUNCATION_WORDS):
        return f"truncated file ({text})"
    if any(word in text.lower() for word in _UNSUPPORTED_WORDS):
        return f"unsupported kind of image ({text})"
    return f"truncated or damaged file ({text})"


def _failure(path: str, reason: str, remedy: str) -> ImageError:
    return ImageError(f"cannot decode '{path}': {reason}; {remedy}")

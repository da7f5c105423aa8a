"""Label Studio's brush format: a run-length code of RGBA bytes, written from runs and read without expanding pixels.

The code is a stream of bits: the number of values (32), the word size - 1 (5), four length sizes - 1 (4 each), then
blocks. A block starts with a flag and the number of its length size (2 bits), goes on with its length - 1, and holds
one value (a run) or that many values (as they are). Label Studio reads and writes four bytes a pixel, alpha last.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autolabel.errors import AutolabelError
from autolabel.runlengths import Bools, Ints
from autolabel.types import Mask
from autolabel_connectors.many import read_masks
from autolabel_connectors.rle import from_row_runs, row_runs

_SIZES = (3, 4, 8, 16)
_LIMIT = 2**16
_HALF = 128
_HEADER_END = int(f"{7:05b}" + "".join(f"{size - 1:04b}" for size in _SIZES), 2)
"""The bits of a header after the number of values: the size of a word and of the four lengths, each less one."""


def encode_brush(mask: Mask) -> list[int]:
    """Encode a mask as a list of bytes, the same to the bit as ``label_studio_sdk.converter.brush.mask2rle``."""
    starts, ends = row_runs(mask)
    return list(_encoded(starts, ends, np.array([len(starts)]), np.array([_total(mask)]))[0])


def encode_brushes(masks: Sequence[Mask]) -> list[bytes]:
    """Encode masks as `encode_brush` does, all at once: of small ones, a fifth of the time."""
    totals = np.array([_total(mask) for mask in masks], np.int64)
    many = read_masks(masks)
    return [
        code
        for crops in many.crops()
        for code in _encoded(*crops.row_runs(), totals[crops.first : crops.first + len(crops.widths)])
    ]


def _total(mask: Mask) -> int:
    """Return the number of bytes of an image's RGBA pixels."""
    total = mask.width * mask.height * 4
    if total >= 2**32:
        raise AutolabelError(
            f"a brush mask can have at most 2**30 pixels, got {mask.width}x{mask.height}; cut the image into tiles"
        )
    return total


def _encoded(starts: Ints, ends: Ints, numbers: Ints, totals: Ints) -> list[bytes]:
    """Encode masks of ``numbers`` runs each, row by row, in images of ``totals`` bytes."""
    count = len(totals)
    places = np.concatenate([[0], np.cumsum(2 * numbers + 2)])
    opening = 2 * np.arange(len(starts)) + 2 * np.repeat(np.arange(count), numbers) + 1
    bounds = np.zeros(int(places[-1]), np.int64)
    bounds[opening], bounds[opening + 1], bounds[places[1:] - 1] = starts * 4, ends * 4, totals
    runs = np.diff(bounds, append=0)
    alphas = np.zeros(len(runs), np.int64)
    alphas[opening] = 255
    runs[places[1:] - 1] = 0  # between one mask and the next
    of = np.repeat(np.arange(count), 2 * numbers + 2)
    lengths, values, cut, of = _split(runs, alphas, of)
    size: Ints = np.searchsorted([8, 16, 256], lengths)
    size[cut] = 3  # the SDK writes the rest of a run that was cut in the longest form, however short it is
    length_bits = np.array(_SIZES)[size]
    blocks = np.bincount(of, minlength=count)
    # A header in two numbers before the blocks of each mask, and the bits that fill its last byte behind them. The SDK
    # fills up with one to eight zeros; to be the same to the bit, so do we.
    after = np.cumsum(blocks + 3)
    before = after - blocks - 3
    code, counts = np.zeros(len(of) + 3 * count, np.int64), np.zeros(len(of) + 3 * count, np.int64)
    here = np.arange(len(of)) + 3 * of + 2
    code[here], counts[here] = ((4 + size) << length_bits | (lengths - 1)) << 8 | values, length_bits + 11
    code[before], counts[before] = totals, 32
    code[before + 1], counts[before + 1] = _HEADER_END, 21
    bits = np.add.reduceat(counts, before) if count else counts
    counts[after - 1] = 8 - bits % 8
    ends_at = np.cumsum((bits + counts[after - 1]) // 8).tolist()
    packed = np.packbits(_bits(code, counts)).tobytes()
    return [packed[begin:end] for begin, end in zip([0, *ends_at], ends_at, strict=False)]


def decode_brush(rle: Sequence[int], height: int, width: int) -> Mask:
    """Decode what Label Studio or its SDK wrote for an image of ``width`` × ``height`` px.

    A pixel counts if its alpha is at least half: the editor draws strokes with soft edges. Where nothing reaches half,
    as in masks written with 0 and 1, every alpha above 0 counts. Raises AutolabelError if the code is damaged or has
    another number of pixels.
    """
    lengths, values, total = _blocks(bytes(bytearray(rle)))
    if total != width * height * 4:
        raise AutolabelError(
            f"brush rle must have {width * height * 4} values for {width}x{height} px, got {total}; "
            "the region was drawn on an image of another size"
        )
    ends = np.minimum(np.cumsum(lengths), total)
    # The alpha of pixel i is byte 4 i + 3, so a block [start, end) of bytes decides the pixels [start // 4, end // 4).
    pixel_ends = ends // 4
    pixel_starts = np.concatenate([[0], pixel_ends[:-1]])
    seen = pixel_ends > pixel_starts
    alpha, pixel_starts, pixel_ends = values[seen], pixel_starts[seen], pixel_ends[seen]
    inside = alpha >= (_HALF if alpha.size and int(alpha.max()) >= _HALF else 1)
    return from_row_runs(*_joined(pixel_starts[inside], pixel_ends[inside]), (width, height))


def encode_bitmask(mask: Mask) -> str:
    """Write a mask as Label Studio's BitmaskLabels hold it: the data URL of a PNG, black on transparent."""
    from PIL import Image as Picture

    alpha = mask.decode().astype(np.uint8) * 255
    pixels = np.zeros((mask.height, mask.width, 4), np.uint8)
    pixels[..., 3] = alpha
    buffer = io.BytesIO()
    Picture.fromarray(pixels, "RGBA").save(buffer, "PNG", compress_level=6)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def decode_bitmask(url: str) -> Bools:
    """Read a BitmaskLabels data URL as a bool ``(H, W)`` array; raises AutolabelError if it is not a picture."""
    from PIL import Image as Picture

    try:
        with Picture.open(io.BytesIO(base64.b64decode(url.partition(",")[2], validate=True))) as picture:
            if "A" in picture.getbands() or "transparency" in picture.info:
                return np.asarray(picture.convert("RGBA"))[..., 3] >= _HALF
            return np.asarray(picture.convert("L")) >= _HALF
    except (binascii.Error, OSError, SyntaxError, ValueError, Picture.DecompressionBombError) as error:
        raise AutolabelError(f"imageDataURL must be a PNG data URL, got {url[:40]!r}: {error}") from error


def _split(lengths: Ints, values: Ints, of: Ints) -> tuple[Ints, Ints, Bools, Ints]:
    """Drop empty runs and cut long ones into pieces of 65,536, the longest a block can hold; tell which were cut."""
    there = lengths > 0
    lengths, values, of = lengths[there], values[there], of[there]
    pieces = -(-lengths // _LIMIT)
    which = np.repeat(np.arange(len(lengths)), pieces)
    out = np.full(len(which), _LIMIT, np.int64)
    out[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * _LIMIT
    return out, values[which], (pieces > 1)[which], of[which]


def _bits(code: Ints, counts: Ints) -> NDArray[np.uint8]:
    """Write each number in ``counts`` bits, the highest first."""
    octets = code.astype(">u4").view(np.uint8).reshape(-1, 4)
    table = np.unpackbits(octets, axis=1)
    kept: NDArray[np.uint8] = table[np.arange(32) >= 32 - counts[:, None]]
    return kept


def _blocks(data: bytes) -> tuple[Ints, Ints, int]:
    """Read the lengths and values of all blocks, and the number of values announced.

    A place in the bits depends on all blocks before it, so this is a loop; it costs a few steps for each block.
    """
    if len(data) < 7:
        raise AutolabelError(f"brush rle must have a header of 53 bits, got {len(data)} bytes; the region is damaged")
    head = int.from_bytes(data[:7], "big") >> 3
    total, word = head >> 21, (head >> 16 & 31) + 1
    sizes = [(head >> shift & 15) + 1 for shift in (12, 8, 4, 0)]
    lengths: list[int] = []
    values: list[int] = []
    position, done, end = 53, 0, len(data) * 8
    while done < total:
        byte, bit = position >> 3, position & 7
        window = int.from_bytes(data[byte : byte + 8].ljust(8, b"\0"), "big") << bit
        size = sizes[window >> 61 & 3]
        length = (window >> 61 - size & (1 << size) - 1) + 1
        position += 3 + size
        if window >> 63 & 1:
            values.append(window >> 61 - size - word & (1 << word) - 1)
            lengths.append(length)
            position += word
        else:
            length = min(length, total - done)
            values += _words(data, position, length, word)
            lengths += [1] * length
            position += length * word
        done += length
        if position > end:
            raise AutolabelError(f"brush rle ends after {done} of {total} values; the region is damaged")
    return np.array(lengths, np.int64), np.array(values, np.int64), total


def _words(data: bytes, position: int, count: int, word: int) -> list[int]:
    """Read ``count`` values of ``word`` bits from a place in the bits."""
    first, last = position >> 3, -(-(position + count * word) // 8)
    bits = np.unpackbits(np.frombuffer(data[first:last].ljust(last - first, b"\0"), np.uint8))
    table = bits[position & 7 : (position & 7) + count * word].reshape(count, word)
    words: list[int] = (table.astype(np.int64) @ (1 << np.arange(word - 1, -1, -1, dtype=np.int64))).tolist()
    return words


def _joined(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Join runs that touch: one soft edge is many blocks."""
    if not len(starts):
        return starts, ends
    apart = starts[1:] != ends[:-1]
    return starts[np.concatenate([[True], apart])], ends[np.concatenate([apart, [True]])]

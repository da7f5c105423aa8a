"""Arrow columns from numpy arrays and Python values, and back to numpy, by their buffers.

pyarrow's own ways of doing this import pandas when first called, which no step of a run needs and which takes longer
than many of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def numbers(values: NDArray[Any], kind: pa.DataType, known: NDArray[np.bool_] | None = None) -> pa.Array:
    """Column of ``(N,)`` numbers; where ``known`` ``(N,)`` is false there is none."""
    flat = np.ascontiguousarray(values, _dtype(kind))
    return pa.Array.from_buffers(kind, len(flat), [_bitmap(known), pa.py_buffer(flat)])


def truths(values: NDArray[np.bool_]) -> pa.Array:
    """Column of ``(N,)`` truth values."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bitmap(values)])


def texts(values: Iterable[str | None]) -> pa.Array:
    """Column of texts, some of which may be missing."""
    return _bytes([None if text is None else text.encode() for text in values], pa.string())


def blobs(values: Iterable[bytes | None]) -> pa.Array:
    """Column of byte strings, some of which may be missing."""
    return _bytes(list(values), pa.binary())


def lists(
    items: pa.Array, counts: Sequence[int] | NDArray[np.integer[Any]], known: NDArray[np.bool_] | None = None
) -> pa.ListArray:
    """Column of lists: ``counts`` ``(N,)`` of the items each; where ``known`` ``(N,)`` is false there is none."""
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    missing = None if known is None else truths(~known)
    return pa.ListArray.from_arrays(numbers(offsets, pa.int32()), items, mask=missing)


def column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Column of Python values; None where one is missing."""
    if pa.types.is_string(kind):
        return texts(values)
    if pa.types.is_binary(kind):
        return blobs(values)
    if pa.types.is_dictionary(kind):
        return texts(values).dictionary_encode().cast(kind)
    known = np.array([value is not None for value in values], np.bool_)
    missing = None if known.all() else known
    if pa.types.is_list(kind):
        items = [item for value in values if value is not None for item in value]
        return lists(column(items, kind.value_type), [len(value or ()) for value in values], missing)
    flat = [0 if value is None else value for value in values]
    if pa.types.is_boolean(kind):
        return pa.Array.from_buffers(kind, len(flat), [_bitmap(missing), _bitmap(np.array(flat, np.bool_))])
    return numbers(np.array(flat, _dtype(kind)), kind, missing)


def table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Table of Python rows; a field that a row lacks is missing there."""
    columns = [column([row.get(field.name) for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def to_numpy(values: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    """Numbers of a column ``(N,)``; NaN where one is missing, as floating point then. May be read-only."""
    flat = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if isinstance(flat, pa.ChunkedArray):  # no chunk at all
        flat = pa.concat_arrays(flat.chunks) if flat.num_chunks else pa.nulls(0, flat.type)
    if not flat.null_count:
        return np.asarray(np.from_dlpack(flat)) if len(flat) else np.zeros(0, _dtype(flat.type))
    kind = _dtype(flat.type)
    validity, data = flat.buffers()
    bits = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")[flat.offset : flat.offset + len(flat)]
    found = np.frombuffer(data, kind)[flat.offset : flat.offset + len(flat)]
    return np.where(bits.astype(np.bool_), found, np.array(np.nan, np.result_type(kind, np.float32)))


def _bytes(values: Sequence[bytes | None], kind: pa.DataType) -> pa.Array:
    ends = np.fromiter(accumulate((len(value or b"") for value in values), initial=0), np.int64, len(values) + 1)
    if ends[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"a column holds at most 2 GiB of {kind}, got {ends[-1]} bytes")
    known = np.array([value is not None for value in values], np.bool_)
    data = pa.py_buffer(b"".join(value for value in values if value is not None))
    missing = None if known.all() else known
    return pa.Array.from_buffers(kind, len(values), [_bitmap(missing), pa.py_buffer(ends.astype(np.int32)), data])


def _bitmap(known: NDArray[np.bool_] | None) -> pa.Buffer | None:
    return None if known is None else pa.py_buffer(np.packbits(known, bitorder="little"))


def _dtype(kind: pa.DataType) -> Any:
    return kind.to_pandas_dtype()

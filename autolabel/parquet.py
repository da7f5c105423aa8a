"""A run's Parquet files, which are small and many: written and read whole, with what a stage says beside its table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from autolabel.errors import StoreError
from autolabel.manifest import write_atomically

Answer = TypeVar("Answer")
Where = str | Path
_META = b"autolabel"
# Numbers that hardly repeat gain nothing from dictionaries and little from compression, and to unpack the columns of a
# small file takes longer than to read it: so only what shrinks by half is packed.
_COMPRESSED = frozenset({"mask_counts", "id", "label", "shard"})
_REPETITIVE = frozenset({"label", "shard"})


def encode(table: pa.Table, metadata: bytes) -> bytes:
    """Encode a table as a Parquet file; ``metadata`` is what its stage says beside it."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({_META: metadata}),
        sink,
        compression={name: "zstd" if name in _COMPRESSED else "none" for name in table.column_names},
        use_dictionary=[name for name in table.column_names if name in _REPETITIVE],
        write_statistics=False,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def write(path: Path, table: pa.Table, metadata: bytes) -> None:
    """Write a Parquet file atomically."""
    write_atomically(path, encode(table, metadata))


def read(path: Where, names: Sequence[str] | None = None) -> pa.Table:
    """Read a file's columns ``names``, or all of it; raises StoreError where it is missing or damaged."""
    return _guarded(path, lambda file: file.read(columns=names, use_threads=False), whole=names is None)


def read_rows(path: Where) -> list[dict[str, Any]]:
    """Read a file's rows as dictionaries."""
    rows: list[dict[str, Any]] = read(path).to_pylist()
    return rows


def read_metadata(path: Where) -> bytes:
    """Read only what a file says beside its table; costs no data page."""
    return said(path, _guarded(path, lambda file: file.metadata.metadata))


def said(path: Where, metadata: Mapping[bytes, bytes] | None) -> bytes:
    """Take what a file says beside its table from the metadata of its schema."""
    if metadata is None or _META not in metadata:
        raise StoreError(f"{path} was not written by autolabel; remove it, and the same command makes it again")
    return bytes(metadata[_META])


def _guarded(path: Where, ask: Callable[[pq.ParquetFile], Answer], *, whole: bool = False) -> Answer:
    # What `pq.read_table` prepares for data sets of many files costs more than a small file, and so does the search for
    # a file system that knows the path.
    try:
        with pa.OSFile(str(path)) as file, pa.BufferReader(file.read_buffer()) if whole else file as source:
            return ask(pq.ParquetFile(source))
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; run the same command again to complete the run") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"{path} is damaged ({error}); remove it, and the same command makes it again") from None

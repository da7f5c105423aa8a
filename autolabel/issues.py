"""Label issues of a run: one table, replaced whole by each noise pass.

``RUN/issues.parquet`` holds a row for each doubt, flagged or not, the worst quality first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from autolabel import columns
from autolabel.errors import StoreError
from autolabel.manifest import write_atomically
from autolabel.types import Box, LabelIssue

FILE = "issues.parquet"
_META = b"autolabel.noise"
_BOX = ("x_min", "y_min", "x_max", "y_max")
SCHEMA = pa.schema(
    [
        ("kind", pa.dictionary(pa.int8(), pa.string())),
        ("path", pa.string()),
        ("image_id", pa.string()),
        ("annotation_id", pa.string()),
        ("quality", pa.float32()),
        ("flagged", pa.bool_()),
        ("suggested_label", pa.string()),
        ("reason", pa.string()),
        *((name, pa.float32()) for name in _BOX),
        ("related", pa.list_(pa.string())),
    ]
)


def write_issues(run: Path, issues: Iterable[LabelIssue] | pa.Table, notes: Mapping[str, Any]) -> Path:
    """Replace a run's label issues, atomically; ``notes`` (JSON) say how they were found."""
    table = issues if isinstance(issues, pa.Table) else columns.table([_row(i) for i in issues], SCHEMA)
    table = table.sort_by("quality").replace_schema_metadata({_META: json.dumps(dict(notes)).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_atomically(run / FILE, sink.getvalue().to_pybytes())
    return run / FILE


def read_issues_table(run: Path) -> pa.Table:
    """Read a run's label issues as an Arrow table; empty when no noise pass was made."""
    path = run / FILE
    if not path.is_file():
        return columns.table([], SCHEMA)
    try:
        with pq.ParquetFile(path) as file:
            return file.read(use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"{path} is damaged ({error}); 'autolabel noise' makes it again") from None


def read_issues(run: Path, *, flagged_only: bool = False) -> list[LabelIssue]:
    """Read a run's label issues, the worst first."""
    table = read_issues_table(run)
    if flagged_only:
        table = table.filter(table.column("flagged"))
    return [_issue(row) for row in table.to_pylist()]


def read_notes(run: Path) -> dict[str, Any] | None:
    """Read how the issues were found; None when no noise pass was made."""
    metadata = read_issues_table(run).schema.metadata or {}
    return dict(json.loads(metadata[_META])) if _META in metadata else None


def _row(issue: LabelIssue) -> dict[str, Any]:
    row = asdict(issue)
    box = row.pop("box")
    return {**row, **(box or dict.fromkeys(_BOX))}


def _issue(row: Mapping[str, Any]) -> LabelIssue:
    box = [row[name] for name in _BOX]
    shared = {name: value for name, value in row.items() if name not in _BOX and name != "related"}
    return LabelIssue(**shared, box=None if box[0] is None else Box(*box), related=tuple(row["related"] or ()))

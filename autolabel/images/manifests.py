"""Lists of images in a file: plain lines, CSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

from autolabel.errors import UsageError

MANIFEST_EXTENSIONS = (".txt", ".csv", ".jsonl")
COLUMNS = ("path", "image", "file_name", "filename", "uri", "url")


def read_entries(data: bytes, name: str) -> list[str]:
    """Return the images that a ``.txt``, ``.csv`` or ``.jsonl`` manifest names, in its order.

    Raises UsageError that names the manifest, the line and what was looked for.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"manifest '{name}' must be UTF-8 text: {error.reason} at byte {error.start}") from error
    suffix = name.lower().rpartition(".")[2]
    reader = {"csv": _csv, "jsonl": _jsonl}.get(suffix, _lines)
    entries = [entry for entry in reader(text, name) if entry]
    if not entries:
        raise UsageError(f"manifest '{name}' names no image: put one path or URI on each line")
    return entries


def _lines(text: str, name: str) -> Iterator[str]:
    for line in text.split("\n"):
        if not line.lstrip().startswith("#"):
            yield line.strip()


def _csv(text: str, name: str) -> Iterator[str]:
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    fields = [field.strip() for field in rows.fieldnames or ()]
    rows.fieldnames = fields
    column = next((field for wanted in COLUMNS for field in fields if field.lower() == wanted), None)
    if column is None:
        raise UsageError(
            f"manifest '{name}' has the columns {fields}, but none of {list(COLUMNS)}: rename the one with the images"
        )
    try:
        for row in rows:
            yield (row[column] or "").strip()
    except csv.Error as error:
        raise UsageError(f"manifest '{name}', line {rows.line_num}: {error}") from error


def _jsonl(text: str, name: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"manifest '{name}', line {number} is not JSON: {error.msg}") from error
        value = record
        if isinstance(record, dict):
            value = next((record[key] for key in COLUMNS if record.get(key)), None)
        if not isinstance(value, str):
            raise UsageError(f"manifest '{name}', line {number}: expected a text under one of {list(COLUMNS)}")
        yield value.strip()

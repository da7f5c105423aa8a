"""Columns hold what went in, as pyarrow itself writes and reads it, and pandas is not imported for it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel import columns

TEXTS = st.lists(st.none() | st.text(max_size=6), max_size=12)
KINDS = st.sampled_from([pa.float32(), pa.float64(), pa.float16(), pa.int32(), pa.int64()])


@settings(deadline=None)
@given(TEXTS)
def test_texts_and_blobs_are_as_pyarrow_makes_them(values: list[str | None]) -> None:
    assert columns.texts(values).equals(pa.array(values, pa.string()))
    blobs = [None if value is None else value.encode() for value in values]
    assert columns.blobs(blobs).equals(pa.array(blobs, pa.binary()))
    columns.texts(values).validate(full=True)


@settings(deadline=None)
@given(KINDS, st.lists(st.none() | st.integers(-1000, 1000), max_size=20))
def test_numbers_with_and_without_gaps_go_there_and_back(kind: pa.DataType, values: list[int | None]) -> None:
    dtype = kind.to_pandas_dtype()
    expected = pa.array([None if value is None else dtype(value) for value in values], kind)
    made = columns.column(values, kind)
    made.validate(full=True)
    assert made.equals(expected)
    back = columns.to_numpy(pa.chunked_array([made[:3], made[3:]]))
    assert np.array_equal(np.isnan(back.astype(float)), [value is None for value in values])
    assert [int(value) for value in back if not np.isnan(float(value))] == [v for v in values if v is not None]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.bool_(), [True, None, False] * 5),
        (pa.list_(pa.string()), [["a", "b"], [], ["c"]]),
        (pa.list_(pa.float16()), [[], []]),
        (pa.list_(pa.float32()), [[0.5, 1.5], None, [], None]),
        (pa.dictionary(pa.int8(), pa.string()), ["x", "y", "x"]),
    ],
)
def test_other_kinds_are_as_pyarrow_makes_them(kind: pa.DataType, values: list[object]) -> None:
    made = columns.column(values, kind)
    made.validate(full=True)
    assert made.type == kind
    assert made.to_pylist() == values


def test_truths_and_tables() -> None:
    assert columns.truths(np.array([True, False] * 9)).to_pylist() == [True, False] * 9
    schema = pa.schema([("name", pa.string()), ("size", pa.int32())])
    assert columns.table([], schema).equals(schema.empty_table())
    assert columns.table([{"name": "a"}, {"size": 2}], schema).to_pylist() == [
        {"name": "a", "size": None},
        {"name": None, "size": 2},
    ]


def test_an_empty_column_has_no_numbers() -> None:
    assert columns.to_numpy(pa.chunked_array([], pa.float32())).shape == (0,)


def test_a_run_is_made_settled_read_and_exported_without_pandas(tmp_path) -> None:  # type: ignore[no-untyped-def]
    script = f"""
import sys
from pathlib import Path
import autolabel
from autolabel.export import export_run
from autolabel.runner import resolve_run
from PIL import Image
from tests.fakes import BoxSegmenter, ColourClassifier, SquareDetector, picture
folder = Path({str(tmp_path)!r})
(folder / "images").mkdir()
for place in range(3):
    Image.fromarray(picture(("scratch", 5 + place, 5, 12))).save(folder / "images" / f"{{place}}.png")
run = autolabel.run(folder / "images", prompt="scratch. dent.", path=folder / "run", detector=SquareDetector(),
                    segmenter=BoxSegmenter(), classifier=ColourClassifier())
run = resolve_run(run, {{"thresholds": {{"min_score": 0.45}}}})
export_run(run, "coco", folder / "coco")
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)

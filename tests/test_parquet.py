"""Parquet files of a run: what is written is read back, and what is not ours is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autolabel import columns, parquet, shards
from autolabel.errors import StoreError
from autolabel.shards import Detected, Resolved, Segmented, StageNotes
from autolabel.types import Mask


def annotations(count: int) -> pa.Table:
    ids = tuple(f"{number:08x}-0000-5000-8000-000000000000" for number in range(count))
    labels = tuple(("scratch", "dent")[number % 2] for number in range(count))
    places = np.arange(count, dtype=np.int32)
    return shards.resolve_table(Resolved(places, ids, places % 2, labels))


@pytest.mark.parametrize("count", [0, 1, 500])
def test_a_file_is_read_back_whole_in_part_and_only_by_its_notes(tmp_path: Path, count: int) -> None:
    table = annotations(count)
    parquet.write(tmp_path / "a.parquet", table, b'{"said": 1}')
    assert parquet.read(tmp_path / "a.parquet").to_pydict() == table.to_pydict()
    assert parquet.read(tmp_path / "a.parquet", ["label"]).to_pydict() == {"label": table.column("label").to_pylist()}
    assert parquet.read_metadata(tmp_path / "a.parquet") == b'{"said": 1}'
    assert parquet.read_rows(str(tmp_path / "a.parquet")) == table.to_pylist()


def test_other_programs_read_it_with_no_help_of_ours(tmp_path: Path) -> None:
    table = annotations(7)
    parquet.write(tmp_path / "a.parquet", table, b"{}")
    assert pq.read_table(tmp_path / "a.parquet").to_pydict() == table.to_pydict()


def test_files_packed_in_other_ways_are_read_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    detected = Detected(np.repeat(np.arange(3, dtype=np.int32), 2), rng.random((6, 4), np.float32), rng.random((6, 2)))
    written = shards.detect_table(detected).replace_schema_metadata({b"autolabel": StageNotes(2.5).to_json()})
    pq.write_table(written, tmp_path / "old.parquet", compression="zstd")  # as runs had them before
    parquet.write(tmp_path / "new.parquet", written, StageNotes(2.5).to_json())
    old, new = (shards.read_detect(tmp_path / f"{age}.parquet", 2) for age in ("old", "new"))
    assert all(np.array_equal(getattr(old, name), getattr(new, name)) for name in ("images", "boxes_xyxy"))
    assert np.array_equal(old.class_scores, new.class_scores)
    assert shards.read_notes(tmp_path / "old.parquet") == shards.read_notes(tmp_path / "new.parquet")


def test_masks_are_packed_and_numbers_are_not(tmp_path: Path) -> None:
    mask = Mask.encode(np.indices((64, 64)).sum(axis=0) % 7 == 0)
    table = shards.segment_table(Segmented((mask,) * 40, np.ones(40, np.float32)))
    parquet.write(tmp_path / "a.parquet", table, b"{}")
    group = pq.read_metadata(tmp_path / "a.parquet").row_group(0)
    packing = {column.path_in_schema: column.compression for column in map(group.column, range(group.num_columns))}
    assert packing["mask_counts"] == "ZSTD"
    assert packing["mask_score"] == "UNCOMPRESSED"
    assert (tmp_path / "a.parquet").stat().st_size < len(mask.counts) * 10


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    for read in (parquet.read, parquet.read_metadata):
        with pytest.raises(StoreError, match=r"a\.parquet is missing; run the same command again"):
            read(tmp_path / "a.parquet")


@pytest.mark.parametrize("kept", [0, 3, 40, -9])
def test_a_damaged_file_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.parquet"
    parquet.write(path, annotations(5), b"{}")
    path.write_bytes(path.read_bytes()[:kept])
    for read in (parquet.read, parquet.read_metadata):
        with pytest.raises(StoreError, match=r"a\.parquet is damaged .*remove it"):
            read(path)


def test_a_folder_in_a_files_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is damaged"):
        parquet.read(tmp_path)


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([columns.texts(["x"])], names=["y"]), tmp_path / "a.parquet")
    with pytest.raises(StoreError, match="was not written by autolabel"):
        parquet.read_metadata(tmp_path / "a.parquet")

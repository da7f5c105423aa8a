"""Receipts: kept through kills, torn lines and second processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autolabel.errors import StoreError
from autolabel.types import Box, Mask
from autolabel_connectors.receipts import Receipt, open_receipts

MASK = Mask.encode(np.eye(5, 7, dtype=bool))
ONE = Receipt("a.png", "sha", "x", "7", ("r1",), "d", "p", "scratch", Box(0.5, 1, 2, 3), MASK, 0.75, "v1", "2026")
TWO = replace(ONE, annotation_id="y", remote_ids=("r2", "r3"), mask=None, score=None)


def journal(run):
    return run / "sync" / "tool-host-p" / "receipts.jsonl"


def test_empty_at_first(tmp_path):
    with open_receipts(tmp_path, "tool host p") as receipts:
        assert list(receipts) == []
        assert receipts.of("a.png") == []
        assert receipts.noted("project") is None
    assert not journal(tmp_path).exists()


def test_what_was_put_is_there_again(tmp_path):
    with open_receipts(tmp_path, "tool host p") as receipts:
        receipts.put([ONE, TWO])
        receipts.note("project", 12)
    with open_receipts(tmp_path, "tool host p") as receipts:
        assert receipts.of("a.png") == [ONE, TWO]
        assert receipts.noted("project") == 12
        receipts.put([replace(ONE, label="dent")])
        receipts.drop([TWO])
        assert len(receipts) == 1
    with open_receipts(tmp_path, "tool host p") as receipts:
        assert list(receipts) == [replace(ONE, label="dent")]
    assert len(journal(tmp_path).read_text().splitlines()) == 2, "compacted"


def test_a_kill_in_the_middle_of_a_line_costs_that_line(tmp_path):
    with open_receipts(tmp_path, "tool host p") as receipts:
        receipts.put([ONE, TWO])
    path = journal(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with open_receipts(tmp_path, "tool host p") as receipts:
        assert list(receipts) == [ONE]
        receipts.put([TWO])
    with open_receipts(tmp_path, "tool host p") as receipts:
        assert list(receipts) == [ONE, TWO]


def test_a_damaged_line_is_an_error_that_says_what_to_do(tmp_path):
    with open_receipts(tmp_path, "tool host p") as receipts:
        receipts.put([ONE])
    journal(tmp_path).write_text("nonsense\n")
    with pytest.raises(StoreError, match=r"line 1 is damaged.*remove the file"), open_receipts(tmp_path, "tool host p"):
        pass


def test_one_sync_at_a_time(tmp_path):
    with (
        open_receipts(tmp_path, "tool host p"),
        pytest.raises(StoreError, match="in use"),
        open_receipts(tmp_path, "tool host p"),
    ):
        pass
    with open_receipts(tmp_path, "tool host other"):
        pass

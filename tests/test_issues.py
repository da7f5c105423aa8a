"""Label issues: stored and read back."""

from __future__ import annotations

import pytest

from autolabel.errors import StoreError
from autolabel.issues import FILE, read_issues, read_notes, write_issues
from autolabel.types import Box, LabelIssue

ISSUES = [
    LabelIssue("label", "a.png", "sha", 0.25, True, "the detector says dent", "x", "dent"),
    LabelIssue("overlooked", "b.png", "shb", 0.5, True, "a dent, 0.9", box=Box(1, 2, 3, 4), suggested_label="dent"),
    LabelIssue("duplicate", "b.png", "shb", 0.75, False, "same picture as a.png", related=("a.png",)),
]


def test_none_before_a_noise_pass(tmp_path):
    assert read_issues(tmp_path) == []
    assert read_notes(tmp_path) is None


def test_round_trip_worst_first(tmp_path):
    write_issues(tmp_path, ISSUES[::-1], {"method": "cross-validated probe"})
    assert read_issues(tmp_path) == ISSUES
    assert read_issues(tmp_path, flagged_only=True) == ISSUES[:2]
    assert read_notes(tmp_path) == {"method": "cross-validated probe"}
    write_issues(tmp_path, [], {})
    assert read_issues(tmp_path) == []
    assert read_notes(tmp_path) == {}


def test_a_damaged_file_says_what_to_do(tmp_path):
    (tmp_path / FILE).write_bytes(b"PAR1 nonsense")
    with pytest.raises(StoreError, match="autolabel noise"):
        read_issues(tmp_path)

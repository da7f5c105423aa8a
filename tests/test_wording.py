"""Counts in words."""

from __future__ import annotations

import pytest

from autolabel.wording import counted, summed


@pytest.mark.parametrize(
    ("what", "one"),
    [
        ("images", "1 image"),
        ("images complete", "1 image complete"),
        ("regions left as people have them", "1 region left as people have it"),
        ("images left out whose tasks were deleted there", "1 image left out whose task was deleted there"),
        ("images left out whose tasks are elsewhere", "1 image left out whose task is elsewhere"),
        ("annotated tasks that no push made", "1 annotated task that no push made"),
        ("regions that are not taken over", "1 region that is not taken over"),
        ("other annotations that are not taken over", "1 other annotation that is not taken over"),
        ("regions of other runs", "1 region of other runs"),
        ("kept of tasks that are gone", "1 kept of tasks that are gone"),
        ("tasks with drafts, not submitted yet", "1 task with drafts, not submitted yet"),
        ("accepted", "1 accepted"),
        ("images left that the run does not have (any more)", "1 image left that the run does not have (any more)"),
    ],
)
def test_one_is_written_as_one_and_many_as_they_stand(what, one):
    assert counted(1, what) == one
    assert counted(0, what) == f"0 {what}"
    assert counted(28, what) == f"28 {what}"


def test_nothing_is_no_words():
    assert summed({}) == ""
    assert summed({"create task": 0, "accepted": 0}) == ""


def test_deeds_are_gathered_by_verb_and_said_before_what_is():
    counts = {
        "create project": 1,
        "create region": 431,
        "create task": 28,
        "raise issue": 1,
        "regions left as people have them": 2,
        "tasks unchanged": 1,
    }
    assert summed(counts) == (
        "create 1 project, 431 regions and 28 tasks, raise 1 issue; 2 regions left as people have them, "
        "1 task unchanged"
    )
    assert summed(counts, done=True).startswith("created 1 project, 431 regions and 28 tasks, raised 1 issue; ")


def test_a_connector_that_names_its_counts_in_its_own_way_is_left_as_it_is():
    assert summed({"regions created": 4, "create": 2}, done=True) == "4 regions created, 2 create"

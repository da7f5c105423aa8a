"""Review issues for doubts: raised, resolved and reopened by a push, and never where a person had a say."""

from __future__ import annotations

import pytest

import autolabel
from autolabel.issues import FILE, write_issues
from autolabel.types import Box, LabelIssue
from tests.cvat.stand_in import Fault, StandIn
from tests.cvat.sync import Bench


def doubt(run: autolabel.Run, *paths: str) -> None:
    """Have the first region of each of these images doubted, and nothing else."""
    items = [run[path] for path in paths]
    write_issues(
        run.path,
        [
            LabelIssue("label", item.image.path, item.image.id, 0.1, True, "a dent?", item.annotations[0].id, "dent")
            for item in items
        ],
        {},
    )


def resolved(bench: Bench) -> dict[int, bool]:
    return {uid: row["resolved"] for uid, row in bench.server.state.issues.items()}


@pytest.fixture
def run(bench: Bench, make_run) -> autolabel.Run:
    """A pushed run of six images, with doubts about two."""
    made = make_run(6)
    doubt(made, "001.png", "003.png")
    bench.push(made, shape="box")
    assert resolved(bench) == {1: False, 2: False}
    return made


def test_an_issue_is_resolved_when_its_doubt_is_gone_and_reopened_when_it_is_back(bench: Bench, run):
    doubt(run, "003.png")
    told = bench.push(run, shape="box", dry_run=True)
    assert [(c.what, c.path) for c in told.changes if "issue" in c.what] == [("resolve issue", "001.png")]
    assert bench.push(run, shape="box").counts["resolve issue"] == 1
    assert resolved(bench) == {1: True, 2: False}
    assert bench.writes(lambda: bench.push(run, shape="box")) == 0
    doubt(run, "001.png", "003.png")
    assert bench.push(run, shape="box").counts["reopen issue"] == 1
    assert resolved(bench) == {1: False, 2: False}
    assert bench.writes(lambda: bench.push(run, shape="box")) == 0


def test_an_issue_about_a_region_that_is_gone_is_resolved(bench: Bench, run, make_run):
    bench.push(make_run(6, thresholds={"min_score": 0.99}), shape="box")
    assert bench.server.human.shapes(bench.tasks[0]) == []
    assert resolved(bench) == {1: True, 2: True}


def test_what_people_resolved_wrote_to_or_raised_is_theirs(bench: Bench, run):
    human = bench.server.human
    bob = bench.server.add_user("bob")["id"]
    job, frame = bench.job_of("001.png"), bench.place("001.png")[1]
    human.comment(1, "it is a scratch indeed")
    human.resolve(2)
    position = bench.server.state.issues[1]["position"]
    raised = human.raise_issue(job, frame, position, "look at this")
    bench.server.state.issues[raised]["owner"] = bob
    doubt(run)
    bench.push(run, shape="box")
    assert resolved(bench) == {1: False, 2: True, raised: False}
    doubt(run, "001.png", "003.png")
    assert bench.push(run, shape="box").counts == {"update region": 2}
    assert resolved(bench) == {1: False, 2: True, raised: False}


def test_an_issue_that_our_own_user_raised_by_hand_is_left(bench: Bench, run):
    human = bench.server.human
    position = bench.server.state.issues[1]["position"]
    frame = bench.place("001.png")[1]
    human.delete_issue(1)
    mine = human.raise_issue(bench.job_of("001.png"), frame, position, "my own words")
    doubt(run, "003.png")
    bench.push(run, shape="box")
    assert resolved(bench) == {mine: False, 2: False}


def test_without_a_noise_pass_and_in_closed_jobs_issues_stay(bench: Bench, run):
    (run.path / FILE).unlink()
    bench.push(run, shape="box")
    assert resolved(bench) == {1: False, 2: False}
    doubt(run)
    bench.server.human.set_job(bench.job_of("001.png"), stage="validation")
    bench.push(run, shape="box")
    assert resolved(bench) == {1: False, 2: False}


def test_doubts_at_one_place_share_an_issue_until_the_last_is_gone(bench: Bench, make_run):
    run = make_run(2)
    image = run["000.png"].image
    box = Box(4.0, 4.0, 20.0, 16.0)
    two = [
        LabelIssue(kind, "000.png", image.id, quality, True, f"{kind}?", None, None, box)
        for kind, quality in (("overlooked", 0.1), ("spurious", 0.2))
    ]
    write_issues(run.path, two, {})
    bench.push(run, shape="box")
    assert resolved(bench) == {1: False}
    write_issues(run.path, two[1:], {})
    bench.push(run, shape="box")
    assert resolved(bench) == {1: False}
    write_issues(run.path, [], {})
    bench.push(run, shape="box")
    assert resolved(bench) == {1: True}


def test_a_user_who_may_not_raise_issues_is_told_and_the_regions_are_pushed(bench: Bench, make_run):
    run = make_run(2)
    doubt(run, "001.png")
    bench.server.faults.add(Fault.error(403), method="POST", path="/api/issues")
    report = bench.push(run, shape="box")
    assert any("right to open review issues" in warning for warning in report.warnings)
    assert len(bench.server.human.shapes(bench.tasks[0])) == report.counts["create region"]


@pytest.mark.parametrize("fault", [Fault.drop_after, Fault.twice, lambda: Fault.error_after(502)])
def test_a_lost_answer_resolves_once(bench: Bench, run, fault):
    doubt(run)
    bench.server.faults.add(fault(), method="PATCH", path="/api/issues/*")
    bench.push(run, shape="box")
    assert resolved(bench) == {1: True, 2: True}
    assert bench.writes(lambda: bench.push(run, shape="box")) == 0


def test_a_server_that_was_set_up_anew_gets_its_issues_anew(bench: Bench, run):
    fresh = StandIn().start()
    try:
        other = Bench(fresh)
        # The same address as before: a run tells the two servers by when the project was made.
        fresh.stop()
        bench.server.stop()
        fresh.port = bench.server.port
        fresh.start()
        other.push(run, shape="box")
        assert other.tasks == [1]
        assert resolved(other) == {1: False, 2: False}
        assert other.writes(lambda: other.push(run, shape="box")) == 0
    finally:
        fresh.stop()

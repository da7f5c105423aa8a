"""Who did what and when, from the event log where there is one to read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import autolabel
from autolabel.types import Correction, Review
from tests.cvat.stand_in import StandIn
from tests.cvat.sync import Bench


def told(run: autolabel.Run) -> dict[tuple[str, str], Correction]:
    return {(c.path, c.action): c for c in autolabel.Run.open(run.path).corrections()}


def reviews(run: autolabel.Run) -> list[Review]:
    return autolabel.Run.open(run.path).reviews()


def test_each_deed_is_of_the_person_who_did_it(bench: Bench, make_run):
    human = bench.server.human
    mary, john, anna = (bench.server.add_user(name)["id"] for name in ("mary", "john", "anna"))
    run = make_run(4)
    bench.push(run, shape="box")
    human.set_job(bench.job_of("000.png"), assignee=anna)
    moved = bench.shapes("000.png")[0]["id"]
    with human.working_as(john):
        human.move(moved, 5, 0)
    with human.working_as(mary):
        human.move(moved, 1, 0)
        human.add(*bench.place("002.png"), "dent", (40, 30, 50, 42))
    with human.working_as(john):
        human.delete(bench.shapes("001.png")[0]["id"])
        human.work(bench.job_of("000.png"), 60)
        human.work(bench.job_of("000.png"), 20)
    report = bench.pull(run)
    made = told(run)
    assert {key: c.by for key, c in made.items()} == {
        ("000.png", "edited"): "mary",
        ("002.png", "added"): "mary",
        ("001.png", "deleted"): "john",
    }
    assert made["000.png", "edited"].at < made["002.png", "added"].at < made["001.png", "deleted"].at
    assert [c.seconds for c in made.values()] == [20.0, 20.0, 20.0]
    assert report.warnings == ()
    with human.working_as(anna):
        human.complete(bench.tasks[0])
    bench.pull(run)
    assert {(review.path, review.by) for review in reviews(run)} == {(f"{n:03d}.png", "anna") for n in range(4)}
    assert told(run)["000.png", "edited"] == made["000.png", "edited"]
    assert told(run)["003.png", "accepted"].by == "anna"


def test_our_own_push_is_not_taken_for_the_edit_that_the_log_does_not_show(make_run):
    with StandIn() as server:
        server.add_user("bob")
        bench = Bench(server, token=server.token(user="bob"))
        run = make_run(2)
        bench.push(run, shape="box")
        server.human.move(bench.shapes("000.png")[0]["id"], 3, 0)
        server.human.add(*bench.place("001.png"), "dent", (40, 30, 50, 42))
        report = bench.pull(run)
        assert {c.by for c in told(run).values()} == {None}
        (warning,) = report.warnings
        assert "who made 2 of these decisions" in warning
        assert "does not tell this user" in warning


def test_who_pushes_and_edits_too_is_named_for_the_edit(bench: Bench, make_run):
    run = make_run(2)
    bench.push(run, shape="box")
    bench.server.state.clock = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    bench.server.human.move(bench.shapes("000.png")[0]["id"], 3, 0)
    assert bench.pull(run).warnings == ()
    assert told(run)["000.png", "edited"].by == "admin"


def test_a_read_only_token_reads_the_log_too(bench: Bench, make_run):
    run = make_run(2)
    bench.push(run, shape="box")
    mary = bench.server.add_user("mary")["id"]
    with bench.server.human.working_as(mary):
        bench.server.human.move(bench.shapes("000.png")[0]["id"], 3, 0)
    bench.token = bench.server.token(read_only=True)
    bench.pull(run)
    assert told(run)["000.png", "edited"].by == "mary"


def test_without_a_log_the_assignee_stands_in_and_the_pull_says_so(make_run):
    with StandIn(analytics=False) as server:
        bench = Bench(server)
        run = make_run(2)
        bench.push(run, shape="box")
        mary = server.add_user("mary")["id"]
        server.human.set_job(bench.job_of("000.png"), assignee=mary)
        server.human.move(bench.shapes("000.png")[0]["id"], 3, 0)
        report = bench.pull(run)
        made = told(run)["000.png", "edited"]
        assert made.by == "mary"
        assert made.at
        assert made.seconds is None
        (warning,) = report.warnings
        assert "analytics are off" in warning


def test_a_log_that_cannot_be_written_out_is_done_without(bench: Bench, make_run, monkeypatch):
    from tests.cvat.stand_in.api import events
    from tests.cvat.stand_in.media import WorkFailedError

    def broken(rows):
        raise WorkFailedError("clickhouse_connect.driver.exceptions.OperationalError: Name or service not known")

    run = make_run(2)
    bench.push(run, shape="box")
    bench.server.human.move(bench.shapes("000.png")[0]["id"], 3, 0)
    monkeypatch.setattr(events, "table", broken)
    report = bench.pull(run)
    assert report.counts == {"edited": 1}
    assert "could not write its event log out" in report.warnings[0]

"""Every request of a push and a pull goes wrong in turn: nothing is lost, nothing doubled."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import autolabel
from autolabel.errors import AutolabelError
from autolabel.issues import write_issues
from autolabel.types import LabelIssue
from tests.cvat.stand_in import Fault, StandIn
from tests.cvat.sync import Bench

FAULTS: dict[str, Callable[[], Fault]] = {
    "dropped before": Fault.drop,
    "dropped after": Fault.drop_after,
    "cut": Fault.cut,
    "delayed": lambda: Fault.delay(0.01),
    "doubled": Fault.twice,
    "429": lambda: Fault.error(429, retry_after=0.05),
    "500": lambda: Fault.error(500),
    "500 after": lambda: Fault.error_after(500),
    "502": lambda: Fault.error(502),
    "502 after": lambda: Fault.error_after(502),
    "413": lambda: Fault.error(413),
    "401": Fault.expired,
    "403": lambda: Fault.error(403),
}
HARMLESS = {"dropped before", "dropped after", "cut", "delayed", "doubled", "429", "500 after", "502 after"}


def with_doubt(run: autolabel.Run) -> autolabel.Run:
    item = run["001.png"]
    doubt = LabelIssue("label", "001.png", item.image.id, 0.1, True, "a dent?", item.annotations[0].id, "dent")
    write_issues(run.path, [doubt], {})
    return run


def forget(run: autolabel.Run) -> None:
    """Have a run as it was before its first push."""
    for folder in ("sync", "corrections"):
        shutil.rmtree(run.path / folder, ignore_errors=True)


def try_to(work: Callable[[], object]) -> bool:
    """Whether it worked; any error must be one that a person can act on."""
    try:
        work()
    except AutolabelError:
        return False
    return True


TURNS = ["in turn", *(pytest.param(name, marks=pytest.mark.slow) for name in FAULTS)]
"""All faults on all requests are slow; "in turn" has each request meet with another fault."""


def fault_for(name: str, number: int) -> str:
    return list(FAULTS)[number % len(FAULTS)] if name == "in turn" else name


@pytest.mark.parametrize("fault", TURNS)
def test_each_request_of_a_first_push_goes_wrong_in_turn(bench: Bench, make_run, fault):
    run = with_doubt(make_run(2))
    assert bench.target.token
    undisturbed = None

    def push() -> None:
        nonlocal undisturbed
        forget(run)
        bench.push(run)
        undisturbed = bench.essence()

    for number in bench.server.each_request(push):
        forget(run)
        name = fault_for(fault, number)
        bench.server.faults.at(number, FAULTS[name]())
        worked = try_to(lambda: bench.push(run))
        entry = str(list(bench.server.log)[number - 1])
        assert worked or name not in HARMLESS, entry
        bench.server.faults.clear()
        if not worked or name == "403":  # who may not raise issues is warned, and the regions are pushed
            bench.push(run)
        assert bench.essence() == undisturbed, entry
        assert bench.writes(lambda: bench.push(run)) == 0, entry


@pytest.mark.parametrize("fault", TURNS)
def test_each_request_of_a_later_push_goes_wrong_in_turn(bench: Bench, make_run, fault, workspace):
    run = make_run(4)
    bench.push(run, shape="box")
    human = bench.server.human
    moved = bench.shapes("000.png")[0]["id"]
    human.move(moved, 2, 0)
    human.delete(bench.shapes("001.png")[0]["id"])
    run = make_run(5, thresholds={"min_score": 0.43})
    shutil.copytree(run.path / "sync", workspace / "saved")
    undisturbed = None

    def push() -> None:
        nonlocal undisturbed
        bench.push(run, shape="mask")
        undisturbed = bench.essence()

    for number in bench.server.each_request(push):
        shutil.rmtree(run.path / "sync")
        shutil.copytree(workspace / "saved", run.path / "sync")
        name = fault_for(fault, number)
        bench.server.faults.at(number, FAULTS[name]())
        worked = try_to(lambda: bench.push(run, shape="mask"))
        entry = str(list(bench.server.log)[number - 1])
        bench.server.faults.clear()
        if not worked:
            bench.push(run, shape="mask")
        assert bench.essence() == undisturbed, entry
        assert bench.writes(lambda: bench.push(run, shape="mask")) == 0, entry


@pytest.mark.parametrize("fault", TURNS)
def test_each_request_of_a_pull_goes_wrong_in_turn(bench: Bench, make_run, fault):
    run = make_run(3)
    bench.push(run)
    bench.server.human.move(bench.shapes("000.png")[0]["id"], 2, 0)
    bench.server.human.complete(bench.tasks[0])
    wanted = None

    def pull() -> None:
        nonlocal wanted
        bench.pull(run)
        wanted = autolabel.Run.open(run.path).corrections()

    for number in bench.server.each_request(pull):
        name = fault_for(fault, number)
        bench.server.faults.at(number, FAULTS[name]())
        worked = try_to(lambda: bench.pull(run))
        assert worked or name not in HARMLESS
        assert autolabel.Run.open(run.path).corrections() == wanted
        assert bench.server.log.writes() == []


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_push_killed_at_any_request_is_finished_by_the_next(bench: Bench, make_run, workspace, every):
    run = with_doubt(make_run(2))
    target = bench.target
    start = bench.server.snapshot()
    bench.server.log.clear()
    bench.push(run)
    undisturbed, total = bench.essence(), len(bench.server.log)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cvat.pusher"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    writes = [entry.number for entry in bench.server.log.writes()]
    for number in [n for n in range(2, total) if n in writes or n % every == 0]:
        for when in (Fault.before, Fault.after) if number in writes else (Fault.before,):
            forget(run)
            bench.server.rewind(start)
            pid: list[int] = []
            reached: list[int] = []

            def kill(pid: list[int] = pid, reached: list[int] = reached) -> None:
                reached.append(1)
                while not pid:
                    pass
                os.kill(pid[0], signal.SIGKILL)

            bench.server.faults.at(number, when(kill))
            order = {"folder": str(workspace), "run": str(run.path), "project": target.project}
            process.stdin.write(json.dumps({**order, "url": target.url, "token": target.token}) + "\n")
            process.stdin.flush()
            pid.append(int(process.stdout.readline()))
            assert int(process.stdout.readline()) == -signal.SIGKILL
            assert reached
            bench.server.faults.clear()
            bench.push(run)
            assert bench.essence() == undisturbed, (number, when)
            assert bench.writes(lambda: bench.push(run)) == 0
    process.stdin.close()
    process.wait()


def test_a_server_restarted_in_the_middle_is_waited_for(make_run, tmp_path):
    run = make_run(3)
    with StandIn(state_file=tmp_path / "state") as server:
        bench = Bench(server)
        assert bench.target.token
        for where in ("/api/tasks", "/api/tasks/*/annotations/"):
            server.faults.add(Fault.error(503, retry_after=0.05), path=where, times=3)
        bench.push(run)
        server.restart()
        assert bench.writes(lambda: bench.push(run)) == 0
        assert server.errors == []


@pytest.mark.parametrize("what", ["project", "task"])
def test_what_is_deleted_in_the_middle_is_a_clear_error(bench: Bench, make_run, what):
    run = make_run(3)
    bench.push(run)
    human = bench.server.human
    delete = {"project": lambda: human.delete_project(1), "task": lambda: human.delete_task(1)}[what]
    rule = bench.server.faults.add(Fault.before(delete), method="GET", path="/api/tasks/*/annotations/")
    with pytest.raises(AutolabelError, match=r"no longer at .*run push again|run the same command again"):
        bench.push(run)
    assert rule.hits == 1
    bench.server.faults.clear()
    report = bench.push(run)
    assert report.counts.get("create project", 0) == (what == "project")


def test_a_read_only_token_says_which_right_is_missing(bench: Bench, make_run):
    run = make_run(1)
    bench.token = bench.server.token(read_only=True)
    with pytest.raises(AutolabelError, match=r"lacks the right to create projects.*read-only") as error:
        bench.push(run)
    assert bench.token not in str(error.value)
    bench.token = bench.server.token(expired=True)
    with pytest.raises(AutolabelError, match=r"access token \(401\).*CVAT_ACCESS_TOKEN") as error:
        bench.push(run)
    assert bench.token not in str(error.value)


def test_a_server_that_takes_only_small_requests_gets_small_ones(make_run):
    run = make_run(6)
    with StandIn(max_body=4000) as server:
        bench = Bench(server)
        bench.push(run, shape="box")
        assert len(server.human.shapes(bench.tasks[0])) == sum(len(item.annotations) for item in run)
        assert bench.writes(lambda: bench.push(run, shape="box")) == 0


def test_a_person_who_deletes_while_a_push_plans_has_the_last_word(bench: Bench, make_run):
    run = make_run(4)
    bench.push(run, shape="box")
    victim = bench.shapes("000.png")[0]
    deleted = Fault.after(lambda: bench.server.human.delete(victim["id"]))
    bench.server.faults.add(deleted, method="GET", path="/api/tasks/*/annotations/")
    bench.push(run, shape="mask")
    assert bench.shapes("000.png") == []
    assert bench.writes(lambda: bench.push(run, shape="mask")) == 0

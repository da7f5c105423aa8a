"""``push``, ``pull``, ``sync`` and ``corrections`` with a tool that keeps its project in memory."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

import autolabel
from autolabel.cli import cli
from autolabel.connect import Change, PullReport, PushReport
from autolabel.corrections import write_decisions
from autolabel.errors import UsageError
from autolabel.types import Correction, Review


class MemoryTool:
    """Counts regions; a pull says that a person named ann deleted the first region and finished its image."""

    env_url = ("MEMORY_URL",)
    env_token = ("MEMORY_TOKEN",)
    default_url = "http://localhost:1"

    def __init__(self) -> None:
        self.calls: list[tuple[str, object, object]] = []

    def push(self, run, target, options, on_step):
        self.calls.append(("push", target, options))
        items = list(run)
        for done in range(1, len(items) + 1):
            on_step("images", done, len(items))
        count = sum(len(item.annotations) for item in items)
        changes = tuple(Change("create region", item.image.path, a.label) for item in items for a in item.annotations)
        changes = (Change("create task", detail="run 001 [0a1b2c3d], 6 images"), *changes)
        shown = changes if options.dry_run else ()
        return PushReport(f"{target.url}/p/1", {"regions created": count}, shown, ("mind the gap",))

    def pull(self, run, target, on_step, *, dry_run=False):
        self.calls.append(("pull", target, dry_run))
        item = next(item for item in run.predicted() if item.annotations)
        first = item.annotations[0]
        shared = {"path": item.image.path, "image_id": item.image.id, "by": "ann", "at": "2026-01-01T00:00:00+00:00"}
        gone = Correction("deleted", annotation_id=first.id, before_label=first.label, before_box=first.box, **shared)
        if not dry_run:
            write_decisions(run.path, target.source, [gone, Review("complete", **shared, seconds=30.0)])
        return PullReport(f"{target.url}/p/1", {"deleted": 1, "complete": 1})


@pytest.fixture
def tool(monkeypatch) -> MemoryTool:
    made = MemoryTool()

    def load(name):
        if name != "memory":
            raise UsageError(f"no connector {name!r}; known are memory")
        return made

    monkeypatch.setattr("autolabel.connect.load_connector", load)
    monkeypatch.setenv("MEMORY_TOKEN", "sesame")
    return made


def call(*arguments: str):
    result = CliRunner().invoke(cli, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "sesame" not in result.output
    return result.stdout


def test_push_names_the_project_and_is_remembered(make_run, tool):
    run = make_run(6)
    count = run.manifest.counts["annotations"]
    out = call("push", "--to", "memory", "--shape", "mask")
    assert f"pushed: {count} regions created" in out
    assert f"{tool.default_url}/p/1" in out
    call("push")
    first, second = tool.calls
    assert first == second
    _, target, options = second
    assert (target.project, target.token, options.shape) == (run.name, "sesame", "mask")
    assert "sesame" not in "".join(p.read_text() for p in run.path.rglob("*.json"))


def test_a_dry_run_lists_every_change_and_remembers_nothing(make_run, tool):
    run = make_run(6)
    out = call("push", "--to", "memory", "--project", "p", "--dry-run")
    assert out.count("create region") == run.manifest.counts["annotations"]
    assert "would change" in out
    assert "create task  run 001 [0a1b2c3d], 6 images\n" in out
    assert not (run.path / "sync").exists()
    listed = json.loads(call("push", "--to", "memory", "--project", "p", "--dry-run", "--json"))
    assert len(listed["changes"]) == 1 + run.manifest.counts["annotations"]
    assert listed["warnings"] == ["mind the gap"]


def test_pull_brings_corrections_home(make_run, tool):
    run = make_run(6)
    call("push", "--to", "memory", "--project", "p")
    before = len(run["000.png"].annotations)
    assert "would bring: 1 deleted, 1 complete" in call("pull", "--dry-run")
    assert autolabel.Run.open(run.path).corrections() == []
    assert "pulled: 1 deleted, 1 complete" in call("pull")
    assert before == 1
    assert autolabel.Run.open(run.path)["000.png"].annotations == ()
    table = call("corrections")
    assert "0 of 1" in table
    assert "1 image complete, 0 skipped, 0.5 minutes; by ann (2)" in table
    assert json.loads(call("corrections", "--json"))["images"] == {"complete": 1, "skipped": 0}


def test_sync_pulls_first_and_pushes_what_it_brought(make_run, tool):
    run = make_run(6)
    call("push", "--to", "memory", "--project", "p")
    count = run.manifest.counts["annotations"]
    result = json.loads(call("sync", "--json"))
    assert [name for name, *_ in tool.calls] == ["push", "pull", "push"]
    assert result["push"]["counts"] == {"regions created": count - 1}


def test_a_push_that_was_refused_is_not_remembered(make_run, tool, monkeypatch):
    run = make_run(2)

    def refuse(*_):
        raise UsageError("there are two projects of this name")

    with monkeypatch.context() as broken:
        broken.setattr(tool, "push", refuse)
        with pytest.raises(UsageError, match="two projects"):
            call("push", "--to", "memory", "--project", "twins")
    assert not list(run.path.glob("sync/*/target.json"))
    call("push", "--to", "memory", "--project", "p")
    with monkeypatch.context() as broken:
        broken.setattr(tool, "push", refuse)
        with pytest.raises(UsageError, match="two projects"):
            call("push")
    assert len(list(run.path.glob("sync/*/target.json"))) == 1


def test_nothing_pulled_yet(make_run, tool):
    make_run(1)
    assert "nobody has corrected this run yet" in call("corrections")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pull"], "was not pushed to any such project yet; say --from TOOL"),
        (["sync"], "say --with TOOL"),
        (["push", "--to", "paper"], "no connector 'paper'; known are memory"),
        (["push", "--to", "memory", "--url", "localhost"], "must look like http"),
        (["push", "--to", "memory", "--env-file", "none.env"], "there is no such file"),
    ],
)
def test_a_wrong_call_says_what_to_do(make_run, tool, arguments, words):
    make_run(1)
    with pytest.raises(UsageError, match=words):
        call(*arguments)

"""The Data Manager tab that shows tasks in the order of a push."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from autolabel.issues import write_issues
from autolabel.types import LabelIssue
from autolabel_connectors.label_studio.tab import TITLE
from tests.label_studio.fault_proxy import FaultProxy, first_time
from tests.label_studio.server import LabelStudioServer
from tests.label_studio.sync import Bench
from tests.label_studio.test_ui import look_at


@pytest.fixture
def bench(label_studio: LabelStudioServer) -> Bench:
    return Bench.of(label_studio)


def tabs(bench: Bench) -> list[dict]:
    return bench.get("/api/dm/views/", project=bench.project["id"])


def doubt(run, path: str, quality: float) -> LabelIssue:
    return LabelIssue("overlooked", path, run[path].image.id, quality, True, "something at the left")


def shown(bench: Bench) -> list[str]:
    """Paths of the tasks in the order of the tab."""
    (tab,) = (tab for tab in tabs(bench) if tab["data"]["title"] == TITLE)
    answer = bench.get("/api/tasks", project=bench.project["id"], view=tab["id"], fields="all")
    return [task["data"]["path"] for task in answer["tasks"]]


def test_a_tab_shows_the_order_of_the_last_push(bench: Bench, make_run):
    run = make_run(3)
    bench.push(run)
    assert tabs(bench) == []
    write_issues(run.path, [doubt(run, "002.png", 0.000001), doubt(run, "001.png", 0.999999)], {})
    report = bench.push(run, order="noisiest", dry_run=True)
    assert "create tab" in {change.what for change in report.changes}
    assert tabs(bench) == []
    assert bench.push(run, order="noisiest").counts["create tab"] == 1
    assert shown(bench) == ["002.png", "001.png", "000.png"]
    assert bench.push(run, order="noisiest").changes == ()
    write_issues(run.path, [doubt(run, "000.png", 0.2), doubt(run, "002.png", 0.5)], {})
    bench.push(run, order="noisiest")
    assert shown(bench) == ["000.png", "002.png", "001.png"]
    assert len(tabs(bench)) == 1


def test_peoples_tabs_are_left_and_a_deleted_one_stays_deleted(bench: Bench, make_run):
    run = make_run(2)
    bench.push(run)
    project = bench.project["id"]
    theirs = bench.send("POST", "/api/dm/views/", {"project": project, "data": {"title": "Mine"}})
    bench.push(run, order="uncertain")
    assert [tab["data"]["title"] for tab in tabs(bench)] == ["Mine", TITLE]
    assert tabs(bench)[0] == theirs
    ours = tabs(bench)[1]
    bench.send("PATCH", f"/api/dm/views/{ours['id']}/", {"data": {**ours["data"], "ordering": ["tasks:id"]}})
    changed = tabs(bench)
    bench.push(run, order="uncertain")
    assert tabs(bench) == changed
    bench.send("DELETE", f"/api/dm/views/{ours['id']}/")
    assert bench.push(run, order="uncertain").changes == ()
    assert tabs(bench) == [theirs]


@pytest.mark.parametrize("fault", ["drop before", "drop after", "double", "fail after"])
def test_a_lost_or_doubled_request_makes_one_tab(label_studio: LabelStudioServer, make_run, fault):
    direct = Bench.of(label_studio)
    run = make_run(1)
    with FaultProxy(label_studio.url) as proxy:
        hurt = first_time(fault)
        proxy.faults = lambda place, request, body: (
            hurt(place, request, body) if request.startswith("POST /api/dm/views") else None
        )
        Bench(label_studio, direct.title, proxy.url).push(run, order="uncertain")
    assert [tab["data"]["title"] for tab in tabs(direct)] == [TITLE]


@pytest.mark.browser
def test_people_see_the_worst_first(bench: Bench, make_run, label_studio_page: Page):
    run = make_run(3)
    write_issues(run.path, [doubt(run, "002.png", 0.1), doubt(run, "001.png", 0.5)], {})
    bench.push(run, order="noisiest")
    page = label_studio_page
    page.goto(f"/projects/{bench.project['id']}/data")
    expect(page.get_by_text(TITLE).first).to_be_visible(timeout=30_000)
    paths = page.get_by_text("00", exact=False).filter(has_text=".png")
    expect(paths.first).to_have_text("002.png", timeout=30_000)
    assert [text.strip() for text in paths.all_inner_texts()] == ["002.png", "001.png", "000.png"]
    look_at(page, "tab")

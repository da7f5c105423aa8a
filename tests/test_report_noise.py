"""The report's section on label noise."""

from __future__ import annotations

import re

import autolabel
from autolabel.issues import write_issues
from autolabel.report import write_report
from autolabel.types import Box, LabelIssue
from tests.test_report import EVIL, Page

CURVE = {"predicted": [0.25, 0.75], "observed": [0.5, 0.75], "rows": [10, 30]}


def section(run: autolabel.Run) -> str:
    html = write_report(autolabel.Run.open(run.path), run.path / "report.html").read_text("utf-8")
    found = re.search(r'<section id="noise".*?</section>', html, re.S)
    return found[0] if found else ""


def issue(kind, item, quality, *, annotation=None, **more) -> LabelIssue:
    uid = annotation.id if annotation else None
    values = {"flagged": True, "reason": "because", **more}
    return LabelIssue(kind, item.image.path, item.image.id, quality, annotation_id=uid, **values)


def test_without_a_noise_pass_there_is_no_section(make_run):
    assert section(make_run(2)) == ""


def test_nothing_flagged_says_so(make_run):
    run = make_run(2)
    write_issues(run.path, [], {"judged": 3})
    assert "Nothing was flagged among 3 labels." in section(run)


def test_the_worst_come_first_with_their_place_in_the_picture(make_run):
    run = make_run(6)
    first, second = run["000.png"], run["001.png"]
    scratch, dent = first.annotations[0], second.annotations[1]
    issues = [
        issue("label", first, 0.25, annotation=scratch, suggested_label="dent"),
        issue("overlooked", second, 0.125, box=Box(2, 4, 12, 16), suggested_label="scratch"),
        issue("spurious", second, 0.5, annotation=dent),
        issue("spurious", first, 0.01, annotation=scratch, flagged=False, reason="not shown"),
        issue("near_duplicate", first, 0.6, related=("001.png",)),
    ]
    write_issues(run.path, issues, {"judged": 8, "notes": ["few labels"], "reliability": {"label": CURVE}})
    text = section(run)
    page = Page(text)
    assert re.findall(r'<span class="tag watch">([^<]*)</span> <b>([\d.]*)</b>', text) == [
        ("overlooked", "0.12"),
        ("label", "0.25"),
        ("spurious", "0.50"),
        ("near duplicate", "0.60"),
    ]
    assert "not shown" not in text
    assert "few labels" in text
    assert "4 doubts flagged about 8 labels" in text.replace("\u202f", "")
    (better,) = page.of("rect", "better")
    assert [float(better[k]) for k in ("x", "y", "width", "height")] == [2, 4, 10, 12]
    boxes = [[float(r[k]) for k in ("x", "y", "width", "height")] for r in page.of("rect", "box")]
    assert boxes == [[a.box.x_min, a.box.y_min, a.box.width, a.box.height] for a in (scratch, dent)]
    for svg, image in zip(page.of("svg"), page.of("img"), strict=False):
        x, y, width, height = map(float, svg["viewbox"].split())
        assert 0 <= x < x + width <= first.image.width
        assert 0 <= y < y + height <= first.image.height
        assert image["src"].startswith("data:image/webp")
    assert "off by 0.062" in text
    rows = re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)</tr>', text)
    assert [name for name, _ in rows] == ["scratch", "dent"]


def test_issues_of_what_is_gone_cost_only_their_picture(make_run, workspace):
    run = make_run(2)
    first, second = run["000.png"], run["001.png"]
    gone = LabelIssue("label", "gone.png", "sha", 0.1, True, EVIL, "id of nothing", EVIL)
    unread = issue("image", first, 0.2, reason="blank")
    write_issues(run.path, [gone, unread, issue("image", second, 0.3)], {})
    (workspace / "images" / "000.png").unlink()
    text = section(run)
    assert text.count("No picture") == 2
    assert text.count("<img ") == 1
    assert "<script>" not in text


def test_at_most_fifty_are_shown(make_run):
    run = make_run(1)
    item = run["000.png"]
    write_issues(run.path, [issue("image", item, i / 100) for i in range(60)], {})
    text = section(run)
    assert text.count('<li class="doubt') == 50
    assert "The worst 50 of 60" in text

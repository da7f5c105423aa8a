"""The report in a real browser, opened from a file as a person would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autolabel.ontology import LabelClass, Ontology
from autolabel.report import write_report
from autolabel.types import Failure
from tests.fake_run import FakeRun

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.browser
ONTOLOGY = Ontology((LabelClass("scratch"), LabelClass("dent"), LabelClass("<img src=x onerror=alert(1)>")))
BOXES = {
    "a.png": [(0, (16, 6, 48, 30), 0.91), (1, (2, 32, 20, 46), 0.40)],
    "b/tall.png": [(1, (10, 100, 30, 180), 0.75)],
    "c<script>.png": [(2, (100, 5, 390, 35), 0.55)],
    "d-clean.png": [],
    "e.png": [(0, (0, 0, 64, 48), 0.30)],
}
SIZES = {"b/tall.png": (40, 400), "c<script>.png": (400, 40)}


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    run = FakeRun(
        ONTOLOGY, name="brackets & <b>braces</b>", failed=[Failure("x.png", "read", "ImageError", "truncated")]
    )
    for path, boxes in BOXES.items():
        width, height = size = SIZES.get(path, (64, 48))
        notes = []
        for label, (x0, y0, x1, y1), score in boxes:
            mask = np.zeros((height, width), np.bool_)
            mask[y0:y1, x0:x1] = True
            notes.append((label, (x0, y0, x1, y1), score, mask))
        run.add(path, *notes, size_wh=size)
    return write_report(run, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(params=["light", "dark"])
def page(chromium, report, request):
    opened = chromium.new_page(viewport={"width": 1280, "height": 900}, color_scheme=request.param)
    problems, requests = [], []
    opened.on(
        "console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None
    )
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("dialog", lambda dialog: (problems.append("dialog: " + dialog.message), dialog.dismiss()))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(report.as_uri())
    yield opened
    opened.close()
    assert problems == []
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]


def visible_cards(page) -> list[str]:
    return page.locator(".card:visible .name").evaluate_all("names => names.map((n) => n.title)")


def visible_boxes(page) -> int:
    return page.locator("#cards .shape:visible").count()


def test_pictures_are_there_and_the_counts_agree(page):
    assert visible_cards(page) == sorted(BOXES)
    assert page.locator("#cards img").evaluate_all("all => all.every((i) => i.complete && i.naturalWidth > 0)")
    assert visible_boxes(page) == 5
    assert page.locator("#shown").inner_text() == "5 of 5 images · 5 annotations"
    assert page.locator("h1").inner_text() == "brackets & <b>braces</b>"
    assert page.locator("#failures").inner_text().count("truncated") == 1


@pytest.mark.parametrize("place", ["gallery", "lightbox"])
def test_boxes_lie_where_they_belong(page, place):
    for number, path in enumerate(sorted(BOXES)):
        scope = page.locator(".card").nth(number)
        if place == "lightbox":
            scope.locator(".open").focus()
            page.keyboard.press("Enter")
            scope = page.locator("#lightbox")
        image = scope.locator("img").bounding_box()
        width, height = SIZES.get(path, (64, 48))
        assert image["width"] / image["height"] == pytest.approx(width / height, rel=0.02)
        scale = image["width"] / width
        found = scope.locator("rect.box").evaluate_all(
            # The box itself, without the width of its line.
            """all => all.map((rect) => {
                const b = rect.getBBox(), m = rect.getScreenCTM();
                return [b.x, b.x + b.width].flatMap((x, i) => [x * m.a + m.e, (b.y + i * b.height) * m.d + m.f]);
            })"""
        )
        expected = [
            [image["x"] + x0 * scale, image["y"] + y0 * scale, image["x"] + x1 * scale, image["y"] + y1 * scale]
            for _, (x0, y0, x1, y1), _ in sorted(BOXES[path], key=lambda b: -(b[1][2] - b[1][0]) * (b[1][3] - b[1][1]))
        ]
        assert np.allclose(np.reshape(found, (-1, 4)), np.reshape(expected, (-1, 4)), atol=1.0)
        for box, mask in zip(found, scope.locator("path.mask").all(), strict=True):
            drawn = mask.bounding_box()
            assert [drawn["x"], drawn["y"]] == pytest.approx(box[:2], abs=2.0)
        if place == "lightbox":
            page.keyboard.press("Escape")
            playwright.expect(scope).to_be_hidden()
            playwright.expect(page.locator(".card").nth(number).locator(".open")).to_be_focused()


def test_class_filter_hides_the_others(page):
    page.get_by_role("button", name="dent").click()
    assert visible_cards(page) == ["a.png", "b/tall.png"]
    assert visible_boxes(page) == 2
    page.get_by_role("button", name="scratch").click()
    assert visible_boxes(page) == 4
    page.get_by_role("button", name="dent").click()
    page.get_by_role("button", name="scratch").click()
    assert visible_boxes(page) == 5


def test_score_slider_reduces_boxes_and_counts(page):
    page.locator("#score").fill("0.5")
    assert visible_boxes(page) == 3
    assert len(visible_cards(page)) == 5
    assert page.locator("#score-value").inner_text() == "0.50"
    assert page.get_by_role("button", name="dent").locator(".count").inner_text() == "1"
    page.locator("#kind").select_option("found")
    assert visible_cards(page) == ["a.png", "b/tall.png", "c<script>.png"]


def test_search_order_and_reset(page):
    page.locator("#search").fill("TALL")
    assert visible_cards(page) == ["b/tall.png"]
    page.locator("#search").fill("nothing has this name")
    page.locator("#reset").click()
    assert len(visible_cards(page)) == 5
    page.locator("#sort").select_option("low")
    assert visible_cards(page) == ["e.png", "a.png", "c<script>.png", "b/tall.png", "d-clean.png"]
    page.locator("#kind").select_option("clean")
    assert visible_cards(page) == ["d-clean.png"]


def test_toggles_by_button_and_key(page):
    page.get_by_role("button", name="Masks").click()
    assert page.locator("path.mask:visible").count() == 0
    assert page.locator(".chip:visible").count() == 5
    page.keyboard.press("l")
    assert page.locator(".chip:visible").count() == 0
    page.keyboard.press("l")
    page.keyboard.press("m")
    assert page.locator("path.mask:visible").count() == 5


def test_lightbox_opens_moves_and_closes(page):
    box, title = page.locator("#lightbox"), page.locator("#lightbox-title")
    page.locator(".card").first.locator(".frame").click(position={"x": 5, "y": 5})
    assert title.inner_text() == "a.png"
    assert box.locator(".opinions > li").count() == 2
    page.keyboard.press("ArrowRight")
    assert title.inner_text() == "b/tall.png"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert title.inner_text() == "e.png"
    page.get_by_role("button", name="Next image").click()
    assert title.inner_text() == "a.png"
    page.keyboard.press("Escape")
    playwright.expect(box).to_be_hidden()
    playwright.expect(page.get_by_role("button", name="Enlarge a.png", exact=True)).to_be_focused()


def test_lightbox_keeps_to_the_filter(page):
    page.get_by_role("button", name="dent").click()
    page.locator(".card:visible .open").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#lightbox .position").inner_text() == "1 of 2"
    assert page.locator("#lightbox .opinions > li").count() == 1
    assert page.locator("#lightbox .shape:visible").count() == 1


def test_hover_shows_both_opinions(page):
    page.locator(".card").first.locator("rect.box").first.hover()
    tip = page.locator("#tip")
    assert tip.is_visible()
    text = tip.inner_text()
    for part in ("scratch", "detector", "classifier", "0.91", "0.80", "mask quality 0.95"):
        assert part in text


def test_phone_width_does_not_scroll_sideways(chromium, report):
    page = chromium.new_page(viewport={"width": 375, "height": 740})
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.locator(".card .open").first.focus()
    page.keyboard.press("Enter")
    stage = page.locator(".stage").bounding_box()
    shot = page.locator(".stage .shot").bounding_box()
    assert stage["x"] <= shot["x"]
    assert shot["x"] + shot["width"] <= stage["x"] + stage["width"]
    page.close()

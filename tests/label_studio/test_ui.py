"""What people do to pushed regions on Label Studio's own screen, and what comes home of it."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

import autolabel
from autolabel.types import RGB, Float, Mask, Segments
from tests.conftest import Models
from tests.fakes import BoxSegmenter, picture
from tests.label_studio.editor import LabelEditor
from tests.label_studio.server import LabelStudioServer
from tests.label_studio.sync import Bench

pytestmark = pytest.mark.browser
SIZE_WH = (320, 240)
SQUARES = (("scratch", 40, 30, 80), ("dent", 200, 120, 60))


class DiscSegmenter(BoxSegmenter):
    """Fills the disc inside the box."""

    def predict_batch(self, images: Sequence[RGB], boxes_xyxy: Sequence[Float]) -> list[Segments]:
        return [
            Segments(tuple(disc(image, box) for box in boxes), np.full(len(boxes), 0.9, np.float32))
            for image, boxes in zip(images, boxes_xyxy, strict=True)
        ]


def disc(image: RGB, box: Float) -> Mask:
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    x0, y0, x1, y1 = box
    return Mask.encode(((x - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((y - (y0 + y1) / 2) / (y1 - y0)) ** 2 <= 0.25)


@pytest.fixture
def run(workspace: Path) -> autolabel.Run:
    (workspace / "images").mkdir()
    Image.fromarray(picture(*SQUARES, size_wh=SIZE_WH)).save(workspace / "images" / "photo.png")
    return autolabel.run(prompt="scratch. dent.", **{**Models(), "segmenter": DiscSegmenter()})


def opened(bench: Bench, editor: LabelEditor, regions: int) -> None:
    editor.open(bench.project["id"], bench.task("photo.png")["id"], regions)
    look(editor, f"{bench.title}-open")


def look(editor: LabelEditor, name: str) -> None:
    """Keep a screenshot where LOOK says."""
    look_at(editor.page, name)


def look_at(page: Page, name: str) -> None:
    """Keep a screenshot of any page."""
    if folder := os.environ.get("LOOK"):
        page.screenshot(path=f"{folder}/{name}.png")


def shown(editor: LabelEditor) -> np.ndarray:
    """The image with its regions as it is on the screen, at the image's own size: ``(H, W, 3)``."""
    screen = Image.open(io.BytesIO(editor.page.screenshot())).convert("RGB")
    place = editor.canvas()
    box = (place["x"], place["y"], place["x"] + place["width"], place["y"] + place["height"])
    return np.asarray(screen.crop(tuple(map(round, box))).resize(SIZE_WH, Image.Resampling.BILINEAR)).astype(int)


@pytest.mark.parametrize("shape", ["box", "polygon", "mask"])
def test_regions_lie_where_they_belong_and_come_home_as_they_were(
    label_studio: LabelStudioServer, label_studio_editor: LabelEditor, run: autolabel.Run, shape: str
):
    bench = Bench.of(label_studio)
    bench.push(run, shape=shape)
    opened(bench, label_studio_editor, 2)
    plain = picture(*SQUARES, size_wh=SIZE_WH).astype(int)
    tinted = np.abs(shown(label_studio_editor) - plain).max(axis=2) > 24
    expected = np.zeros(tinted.shape, bool)
    for annotation in run["photo.png"].annotations:
        inside = annotation.mask.decode()
        if shape == "box":
            x0, y0, x1, y1 = map(int, annotation.box.xyxy)
            inside = np.zeros_like(inside)
            inside[y0:y1, x0:x1] = True
        expected |= inside
    # The screen blurs the picture's own edges: they are no tint.
    smooth = np.array([np.roll(plain, (dy, dx), (0, 1)) for dy in range(-2, 3) for dx in range(-2, 3)]).std(axis=0)
    inner = smooth.max(axis=2) == 0
    assert ((tinted & expected & inner).sum() / ((tinted | expected) & inner).sum()) > 0.97
    stored = label_studio_editor.submit()
    pushed = {part["id"] for part in bench.task("photo.png")["predictions"][0]["result"]}
    assert {part["id"] for part in stored["result"]} == pushed
    bench.pull(run)
    found = autolabel.Run.open(run.path).corrections()
    assert [c.action for c in found] == ["accepted"] * 2
    assert {(c.box, c.mask) for c in found} == {(a.box, a.mask) for a in run["photo.png"].annotations}
    assert all(c.seconds is not None and c.by == "admin@example.com" for c in found)


def test_moving_deleting_and_drawing_on_the_screen(
    label_studio: LabelStudioServer, label_studio_editor: LabelEditor, run: autolabel.Run
):
    bench = Bench.of(label_studio)
    models = {a.label: a for a in run["photo.png"].annotations}
    bench.push(run, shape="box")
    editor = label_studio_editor
    opened(bench, editor, 2)
    editor.draw_box("dent", (150, 20, 190, 60), SIZE_WH)
    editor.page.keyboard.press("Escape")
    editor.page.mouse.click(*editor.on_screen((230, 150), SIZE_WH))
    editor.delete_selected()
    editor.page.mouse.click(*editor.on_screen((80, 70), SIZE_WH))
    editor.drag((80, 70), (90, 80), SIZE_WH)
    look(editor, "moved")
    editor.submit()
    bench.pull(run)
    found = {c.action: c for c in autolabel.Run.open(run.path).corrections()}
    assert set(found) == {"edited", "deleted", "added"}
    assert found["edited"].annotation_id == models["scratch"].id
    assert found["edited"].box.xyxy == pytest.approx((50, 40, 130, 120), abs=1)
    assert found["deleted"].annotation_id == models["dent"].id
    assert found["added"].label == "dent"
    assert found["added"].box.xyxy == pytest.approx((150, 20, 190, 60), abs=1)


def test_painting_on_the_screen(label_studio: LabelStudioServer, label_studio_editor: LabelEditor, run: autolabel.Run):
    bench = Bench.of(label_studio)
    models = {a.label: a for a in run["photo.png"].annotations}
    bench.push(run, shape="mask")
    editor = label_studio_editor
    opened(bench, editor, 2)
    editor.page.locator(".lsf-outliner-item").filter(has_text="scratch").first.click()
    editor.page.keyboard.press("b")
    editor.drag((118, 70), (140, 70), SIZE_WH)
    look(editor, "painted")
    editor.submit()
    bench.pull(run)
    found = {c.annotation_id: c for c in autolabel.Run.open(run.path).corrections()}
    assert found[models["dent"].id].action == "accepted"
    assert found[models["dent"].id].mask == models["dent"].mask
    painted = found[models["scratch"].id]
    assert painted.action == "edited"
    before, after = models["scratch"].mask.decode(), painted.mask.decode()
    assert after[70, 118:140].all()
    assert (before & ~after).sum() <= 0.01 * before.sum()
    assert 0.5 < painted.iou < 1

"""Label Studio's labeling screen, driven as a person would: for tests that draw, move and submit in a real browser.

In a test, with the fixture of conftest.py::

    def test_ui(label_studio, label_studio_editor):
        label_studio_editor.open(project.id, task.id, regions=2)     # waits for image and regions
        label_studio_editor.draw_box("dent", (40, 30, 160, 90), size_wh=(400, 300))   # px of the image
        label_studio_editor.submit()
        label_studio_editor.page.screenshot(path="look.png")
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page, Response, expect

ImageBox = tuple[float, float, float, float]

# The editor's own state: the drawn regions are on a canvas, where a page has nothing else to look at. The image is
# drawn too wide first; when the editor has noticed how much room its toolbar leaves, the image is cut by as much.
SHOWN = """count => {
    const chosen = window.Htx?.annotationStore?.selected;
    const room = document.querySelector(".konvajs-content")?.parentElement.parentElement;
    if (!chosen || !room) return false;
    const images = [...chosen.names.values()].filter(tag => tag.type === "image");
    return images.every(tag => tag.imageIsLoaded && Math.abs(tag.containerWidth - room.offsetWidth) < 1)
        && (count === null || chosen.regionStore.regions.length === count);
}"""
FITS = """() => [...window.Htx.annotationStore.selected.names.values()]
    .every(tag => tag.type !== "image" || (tag.zoomScale === 1 && tag.zoomingPositionX === 0))"""


@dataclass(frozen=True, slots=True)
class LabelEditor:
    """The labeling screen of one signed-in person."""

    page: Page

    def open(self, project: int, task: int, regions: int | None = None) -> None:
        """Open a task and wait for its image, whole on the screen, and for so many regions if told how many."""
        self.page.goto(f"/projects/{project}/data?task={task}")
        self.wait_for(regions)
        self.page.keyboard.press("Shift+Digit1")  # zoom to fit
        self.page.wait_for_function(FITS)

    def wait_for(self, regions: int | None = None) -> None:
        """Wait until the image is loaded and, if told how many, so many regions are there."""
        expect(self.page.locator(".konvajs-content").first).to_be_visible(timeout=30_000)
        self.page.wait_for_function(SHOWN, arg=regions, timeout=30_000)
        if regions is not None:
            expect(self.page.locator(".lsf-outliner-item")).to_have_count(regions)

    def canvas(self) -> dict[str, float]:
        """Where the image is on the screen: x, y, width, height in screen px."""
        box = self.page.locator(".konvajs-content").first.bounding_box()
        assert box, "the image is not on the screen"
        return dict(box)

    def on_screen(self, xy: tuple[float, float], size_wh: tuple[int, int]) -> tuple[float, float]:
        """The screen px of a point in image px; ``size_wh`` is the image's own size."""
        shown = self.canvas()
        return shown["x"] + xy[0] / size_wh[0] * shown["width"], shown["y"] + xy[1] / size_wh[1] * shown["height"]

    def drag(self, start: tuple[float, float], end: tuple[float, float], size_wh: tuple[int, int]) -> None:
        """Press at one point of the image, move, and let go at another; both in image px."""
        mouse = self.page.mouse
        mouse.move(*self.on_screen(start, size_wh))
        mouse.down()
        mouse.move(*self.on_screen(end, size_wh), steps=8)
        mouse.up()

    def draw_box(self, label: str, box: ImageBox, size_wh: tuple[int, int]) -> None:
        """Choose a label and draw a box of it, in image px."""
        before = self.count()
        self.page.locator(".lsf-label").filter(has_text=label).first.click()
        self.drag(box[:2], box[2:], size_wh)
        self.wait_for(before + 1)

    def select(self, number: int) -> None:
        """Click a region in the list at the right: 0 is the first."""
        self.page.locator(".lsf-outliner-item").nth(number).click()

    def delete_selected(self) -> None:
        """Delete the selected region with the keyboard."""
        before = self.count()
        self.page.keyboard.press("Backspace")
        self.wait_for(before - 1)

    def count(self) -> int:
        """How many regions are on the screen."""
        return int(self.page.evaluate("() => window.Htx.annotationStore.selected.regionStore.regions.length"))

    def submit(self) -> dict[str, Any]:
        """Press Submit (or Update), and answer the annotation as the server stored it."""
        with self.page.expect_response(_stores_an_annotation) as stored:
            self.page.get_by_role("button", name="Submit").or_(self.page.get_by_role("button", name="Update")).click()
        answer: dict[str, Any] = stored.value.json()
        return answer


def _stores_an_annotation(response: Response) -> bool:
    return "/annotations" in response.url and response.request.method in {"POST", "PATCH"}

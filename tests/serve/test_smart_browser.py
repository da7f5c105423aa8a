"""A smart tool in a real browser: a click becomes a mask where it was clicked, with the person's label."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from autolabel_connectors.label_studio.brush import decode_brush
from tests.label_studio.conftest import label_studio, label_studio_editor, label_studio_page  # noqa: F401
from tests.label_studio.editor import LabelEditor
from tests.label_studio.server import LabelStudioServer
from tests.serve.helpers import CountingSegmenter, labeler, serving

pytestmark = pytest.mark.browser
SIZE_WH = (400, 300)
POINTS = """<View><Image name="image" value="$image"/>
<KeyPointLabels name="point" toName="image" smart="true"><Label value="scratch"/><Label value="crack"/></KeyPointLabels>
<BrushLabels name="mask" toName="image"><Label value="scratch"/><Label value="crack"/></BrushLabels>
</View>"""


def test_a_click_becomes_a_mask_that_is_accepted_and_stored(
    label_studio: LabelStudioServer,  # noqa: F811
    label_studio_editor: LabelEditor,  # noqa: F811
) -> None:
    project = label_studio.fresh_project(POINTS).id
    white = io.BytesIO()
    Image.new("RGB", SIZE_WH, "white").save(white, "PNG")
    with serving(labeler(segmenter=CountingSegmenter())) as url, label_studio.http() as http:
        files = {"file": ("white.png", white.getvalue(), "image/png")}
        http.post(f"/api/projects/{project}/import", files=files).raise_for_status()
        (task,) = http.get("/api/tasks", params={"project": project}).json()["tasks"]
        backend = {"project": project, "url": url, "title": "autolabel", "is_interactive": True}
        http.post("/api/ml/", json=backend).raise_for_status()
        page = label_studio_editor.page
        label_studio_editor.open(project, task["id"], regions=0)
        page.get_by_text("Auto-Annotation", exact=True).click()
        page.locator(".lsf-tool_smart").locator("visible=true").first.click()
        page.locator(".lsf-label").filter(has_text="crack").first.click()
        page.mouse.click(*label_studio_editor.on_screen((300, 100), SIZE_WH))
        expect(page.get_by_text("1 suggestions")).to_be_visible()
        page.get_by_text("1 suggestions").locator("..").get_by_role("button").last.click()
        label_studio_editor.wait_for(1)
        stored = label_studio_editor.submit()
    (region,) = stored["result"]
    assert (region["type"], region["from_name"], region["value"]["brushlabels"]) == ("brushlabels", "mask", ["crack"])
    ys, xs = np.nonzero(decode_brush(region["value"]["rle"], SIZE_WH[1], SIZE_WH[0]).decode())
    assert (xs.mean() + 0.5, ys.mean() + 0.5) == pytest.approx((300, 100), abs=1.5)
    assert len(xs) == pytest.approx(64, abs=20)

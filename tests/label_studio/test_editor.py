"""What the labeling screen shows and stores, in a real browser."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.label_studio.editor import LabelEditor
from tests.label_studio.server import LabelStudioServer

pytestmark = pytest.mark.browser
SIZE_WH = (400, 300)
BOXES = """
<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image" opacity="1">
    <Label value="scratch" background="#ff0000"/><Label value="dent" background="#0000ff"/>
  </RectangleLabels>
</View>
"""


def white_task(server: LabelStudioServer) -> tuple[int, int]:
    """Project and task of one white picture."""
    project = server.fresh_project(BOXES)
    picture = io.BytesIO()
    Image.new("RGB", SIZE_WH, "white").save(picture, "PNG")
    with server.http() as http:
        http.post(
            f"/api/projects/{project.id}/import", files={"file": ("white.png", picture.getvalue(), "image/png")}
        ).raise_for_status()
    (task,) = server.client().tasks.list(project=project.id)
    return project.id, task.id


def predict(server: LabelStudioServer, project: int, task: int, label: str, box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = box
    width, height = SIZE_WH
    value = {
        "x": 100 * x0 / width,
        "y": 100 * y0 / height,
        "width": 100 * (x1 - x0) / width,
        "height": 100 * (y1 - y0) / height,
        "rotation": 0,
        "rectanglelabels": [label],
    }
    region = {
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "value": value,
    }
    answer = server.client().projects.import_predictions(
        id=project, request=[{"task": task, "model_version": "v1", "score": 0.7, "result": [region]}]
    )
    assert answer.created == 1


def test_a_predicted_box_lies_where_it_belongs(label_studio: LabelStudioServer, label_studio_editor: LabelEditor):
    project, task = white_task(label_studio)
    predict(label_studio, project, task, "scratch", (40, 30, 160, 90))
    label_studio_editor.open(project, task, regions=1)
    screen = np.asarray(Image.open(io.BytesIO(label_studio_editor.page.screenshot())).convert("RGB")).astype(int)
    shown = label_studio_editor.canvas()
    left, top = round(shown["x"]), round(shown["y"])
    picture = screen[top : top + round(shown["height"]), left : left + round(shown["width"])]
    rows, columns = np.nonzero((picture[..., 0] > 200) & (picture[..., 1:] < 60).all(axis=-1))
    scale = shown["width"] / SIZE_WH[0]
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / scale
    assert found == pytest.approx([40, 30, 160, 90], abs=2)


def test_a_drawn_box_is_stored_where_it_was_drawn(label_studio: LabelStudioServer, label_studio_editor: LabelEditor):
    project, task = white_task(label_studio)
    label_studio_editor.open(project, task, regions=0)
    label_studio_editor.draw_box("dent", (100, 60, 300, 240), SIZE_WH)
    label_studio_editor.submit()
    (annotation,) = label_studio.client().annotations.list(task)
    (region,) = annotation.result
    assert region["value"]["rectanglelabels"] == ["dent"]
    assert [region["value"][side] for side in ("x", "y", "width", "height")] == pytest.approx([25, 20, 50, 60], abs=0.5)
    assert "origin" not in region or region["origin"] == "manual"


def test_a_region_is_deleted_from_a_prediction(label_studio: LabelStudioServer, label_studio_editor: LabelEditor):
    project, task = white_task(label_studio)
    predict(label_studio, project, task, "scratch", (40, 30, 160, 90))
    label_studio_editor.open(project, task, regions=1)
    label_studio_editor.select(0)
    label_studio_editor.delete_selected()
    label_studio_editor.submit()
    (annotation,) = label_studio.client().annotations.list(task)
    assert annotation.result == []
    assert annotation.parent_prediction is not None

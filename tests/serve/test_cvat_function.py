"""The CVAT function through the unmodified SDK, cvat-cli and its agent, against the stand-in server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import autolabel
from autolabel.config import load_recipe
from autolabel.errors import AutolabelError
from autolabel.types import Image
from tests.conftest import Models as Fakes
from tests.conftest import write_pictures
from tests.cvat.conftest import cvat, cvat_client  # noqa: F401
from tests.serve.helpers import RECIPE, install_squares

pytest.importorskip("cvat_sdk")

import cvat_sdk.auto_annotation as cvataa

from autolabel_connectors import cvat_function
from autolabel_connectors.cvat.convert import from_shapes
from autolabel_connectors.cvat.labels import check_labels, label_specs
from autolabel_connectors.shapes import ShapeOptions


def function(shape: str = "auto", recipe: Any = RECIPE, **more: Any) -> cvat_function.DetectionFunction:
    return cvat_function.DetectionFunction(recipe, shape, ShapeOptions(), given=more.pop("given", Fakes()), **more)


def context(**values: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"frame_name": "a.png", "conf_threshold": None, "conv_mask_to_poly": False, **values})


def regions_by_frame(client: Any, task: Any) -> dict[str, Any]:
    labels, _ = check_labels([label.to_dict() for label in task.get_labels()], RECIPE.ontology())
    frames = task.get_frames_info()
    shapes = [shape.to_dict() for shape in task.get_annotations().shapes]
    for shape in shapes:
        shape["type"] = str(shape["type"])
    return {
        frame.name: from_shapes(
            [shape for shape in shapes if shape["frame"] == number], Image("", "", frame.width, frame.height), labels
        )
        for number, frame in enumerate(frames)
    }


def expected(run: autolabel.Run) -> dict[str, Any]:
    return {
        item.image.path.rpartition("/")[2]: sorted((a.label, a.mask.counts) for a in item.annotations) for item in run
    }


@pytest.mark.parametrize("shape", ["auto", "mask"])
def test_a_task_gets_what_a_run_gives(cvat, cvat_client, workspace: Path, shape: str) -> None:  # noqa: F811
    paths = sorted(write_pictures(workspace / "images").iterdir())
    run = autolabel.run("images", recipe=RECIPE, **Fakes())
    task = cvat_client.tasks.create_from_data({"name": "t", "labels": label_specs(run.ontology)}, paths)
    cvataa.annotate_task(cvat_client, task.id, function(shape))
    found = regions_by_frame(cvat_client, task)
    wanted = expected(run)
    assert {name: sorted((r.label, r.mask.counts) for r in regions) for name, regions in found.items()} == wanted
    assert any(wanted.values())


@pytest.mark.parametrize(("shape", "kind"), [("box", "rectangle"), ("polygon", "polygon"), ("mask", "mask")])
@pytest.mark.parametrize("segmenter", [True, False])
def test_every_region_has_the_shape_asked_for(shape: str, kind: str, segmenter: bool) -> None:
    recipe, given = RECIPE, Fakes()
    if not segmenter:
        recipe = RECIPE.merged({"segmenter": "none"})
        del given["segmenter"]
    made = function(shape, recipe, given=given)
    assert {str(label.type) for label in made.spec.labels} == {kind}
    (one,) = made.detect(context(), picture_file())
    assert str(one.type) == kind
    assert not hasattr(one, "source")


def picture_file() -> Pillow.Image:
    pixels = np.full((48, 64, 3), 255, np.uint8)
    pixels[3:13, 2:12] = (255, 0, 0)
    return Pillow.fromarray(pixels)


def test_masks_become_polygons_where_cvat_wants_them() -> None:
    made = function("mask")
    assert [str(s.type) for s in made.detect(context(), picture_file())] == ["mask"]
    assert [str(s.type) for s in made.detect(context(conv_mask_to_poly=True), picture_file())] == ["polygon"]


def test_a_threshold_takes_the_place_of_the_recipes() -> None:
    strict = function(recipe=RECIPE.merged({"thresholds": {"min_score": 0.9}}))
    assert strict.detect(context(), picture_file()) == []
    assert len(strict.detect(context(conf_threshold=0.3), picture_file())) == 1
    assert strict.detect(context(conf_threshold=0.95), picture_file()) == []
    assert strict.detect(context(), picture_file()) == []


def test_a_turned_photo_is_found_upright() -> None:
    turned = picture_file().transpose(Pillow.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    (one,) = function("box").detect(context(), turned)
    assert one.points == [2, 3, 12, 13]


def test_a_wrong_parameter_is_named(workspace: Path) -> None:
    with pytest.raises(AutolabelError, match="shape must be one of"):
        cvat_function.create(prompt="dent.", shape="circle")
    with pytest.raises(AutolabelError, match="min_score"):
        cvat_function.create(prompt="dent.", min_score=3.0)
    with pytest.raises(AutolabelError, match="nothing to look for"):
        cvat_function.create()


@pytest.mark.slow
def test_cvat_cli_and_its_agent_use_the_module(cvat, cvat_client, workspace: Path) -> None:  # noqa: F811
    pytest.importorskip("cvat_cli", reason="cvat-cli is not installed")
    environment = install_squares(workspace / "installed")
    environment |= {"CVAT_ACCESS_TOKEN": cvat.token(), "HOME": str(workspace)}

    def cvat_cli(*arguments: str) -> str:
        command = [sys.executable, "-m", "cvat_cli", "--server-host", cvat.url, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    paths = sorted(write_pictures(workspace / "images", 2).iterdir())
    text = 'prompt = "scratch. dent."\ndetector = "squares:any"\nsegmenter = "none"\nclassifier = "none"\n'
    (workspace / "recipe.toml").write_text(text)
    run = autolabel.run("images", recipe=load_recipe("recipe.toml")[0], detector=Fakes()["detector"])
    wanted = sorted((f, [round(v, 2) for v in a.box.xyxy]) for f, item in enumerate(run) for a in item.annotations)
    assert len(wanted) == 3
    source = ["--function-module", "autolabel_connectors.cvat_function", "-p", "recipe=str:recipe.toml"]
    source += ["-p", "shape=str:box"]

    def held(task: Any) -> list[Any]:
        return sorted((s.frame, [round(v, 2) for v in s.points]) for s in task.get_annotations().shapes)

    spec = {"name": "t", "labels": label_specs(run.ontology)}
    task = cvat_client.tasks.create_from_data(spec, paths)
    cvat_cli("task", "auto-annotate", str(task.id), *source)
    assert held(task) == wanted

    number = int(cvat_cli("function", "create-native", "autolabel", *source))
    other = cvat_client.tasks.create_from_data(spec, paths)
    request = cvat.human.ask_function(number, other.id, {"scratch": "scratch", "dent": "dent"})
    cvat_cli("function", "run-agent", str(number), "--burst", *source)
    assert cvat.state.function_requests[request]["status"] == "finished"
    assert held(other) == wanted

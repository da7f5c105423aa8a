"""The ML backend, asked by a real Label Studio server."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autolabel
from autolabel.connect import PushOptions
from autolabel.serving import ServeOptions
from autolabel.targets import remember
from autolabel_connectors.label_studio.brush import decode_brush
from autolabel_connectors.label_studio.convert import from_regions
from autolabel_connectors.label_studio.label_config import check_label_config
from autolabel_connectors.serve.pulling import Puller, pull_into
from tests.conftest import Models as Fakes
from tests.conftest import write_pictures
from tests.label_studio.conftest import label_studio  # noqa: F401
from tests.label_studio.server import LabelStudioServer
from tests.label_studio.sync import Bench
from tests.serve.helpers import CONFIG, RECIPE, CountingSegmenter, labeler, of_run, serving


def connect(server: LabelStudioServer, project: int, url: str, **more: Any) -> dict[str, Any]:
    with server.http() as http:
        answer = http.post("/api/ml/", json={"project": project, "url": url, "title": "autolabel", **more})
        assert answer.status_code == 201, answer.text
        return answer.json()


def upload(server: LabelStudioServer, project: int, paths: list[Path]) -> list[dict[str, Any]]:
    with server.http() as http:
        files = [(f"f{n}", (path.name, path.read_bytes(), "image/png")) for n, path in enumerate(paths)]
        http.post(f"/api/projects/{project}/import", files=files).raise_for_status()
        return http.get("/api/tasks", params={"project": project, "fields": "all"}).json()["tasks"]


def retrieve(server: LabelStudioServer, project: int, tasks: list[int]) -> None:
    """Choose tasks in the Data Manager, then Actions, Retrieve Predictions."""
    with server.http() as http:
        http.post(
            "/api/dm/actions",
            params={"id": "retrieve_tasks_predictions", "project": project},
            json={"selectedItems": {"all": False, "included": tasks}},
        ).raise_for_status()


def test_predictions_asked_for_by_label_studio_are_those_of_a_run(
    label_studio: LabelStudioServer,  # noqa: F811
    workspace: Path,
) -> None:
    paths = sorted(write_pictures(workspace / "images").iterdir())
    run = autolabel.run("images", recipe=RECIPE, **Fakes())
    project = label_studio.fresh_project(CONFIG)
    tasks = upload(label_studio, project.id, paths)
    assert len(tasks) == len(paths)
    # No address or token of ours: what setup tells is enough.
    with serving(labeler()) as url, label_studio.http() as http:
        made = connect(label_studio, project.id, url)
        assert (made["state"], made["model_version"]) == ("CO", f"served-autolabel-{run.manifest.keys.resolve}")
        ids = [task["id"] for task in tasks]
        retrieve(label_studio, project.id, ids)
        held = http.get("/api/tasks", params={"project": project.id, "fields": "all"}).json()["tasks"]
    controls, _ = check_label_config(CONFIG, run.ontology)
    wanted = {item.image.path.rpartition("/")[2]: item for item in run}
    assert len(held) == len(wanted)
    for task in held:
        name = task["data"]["image"].rpartition("-")[2]
        (prediction,) = task["predictions"]
        item = wanted[name]
        regions = from_regions(prediction["result"], item.image, controls)
        assert sorted((r.label, r.mask.counts, r.score) for r in regions) == sorted(
            (a.label, a.mask.counts, round(a.score, 6)) for a in item.annotations
        )
        assert prediction["model_version"] == f"served-autolabel-{run.manifest.keys.resolve}"


@pytest.mark.parametrize("kind", ["keypointlabels", "rectanglelabels"])
def test_a_smart_tool_gets_a_mask_with_the_persons_label(
    label_studio: LabelStudioServer,  # noqa: F811
    workspace: Path,
    kind: str,
) -> None:
    (path,) = write_pictures(workspace / "images", 1).iterdir()
    project = label_studio.fresh_project(CONFIG)
    (task,) = upload(label_studio, project.id, [path])
    segmenter = CountingSegmenter()
    value = {"x": 50.0, "y": 50.0, "width": 25.0, "height": 25.0, kind: ["crack"]}
    context = {"result": [{"type": kind, "is_positive": True, "value": value}]}
    with serving(labeler(segmenter=segmenter)) as url, label_studio.http() as http:
        made = connect(label_studio, project.id, url, is_interactive=True)
        for _ in range(2):
            answer = http.post(
                f"/api/ml/{made['id']}/interactive-annotating", json={"task": task["id"], "context": context}
            )
            assert answer.status_code == 200, answer.text
            data = answer.json()["data"]
    (item,) = data["result"]
    assert (item["type"], item["from_name"], item["value"]["brushlabels"]) == ("brushlabels", "mask", ["crack"])
    mask = decode_brush(item["value"]["rle"], 48, 64).decode()
    ys, xs = np.nonzero(mask)
    x0, y0, x1, y1 = (28, 20, 36, 28) if kind == "keypointlabels" else (32, 24, 48, 36)
    assert (xs.min() >= x0, ys.min() >= y0, xs.max() < x1, ys.max() < y1) == (True,) * 4
    assert mask[25, 33]
    assert "meta" not in item
    assert segmenter.embedded == 1, "the second click must not encode the image again"


def test_a_wrong_password_and_no_password_are_refused_by_name(label_studio: LabelStudioServer) -> None:  # noqa: F811
    project = label_studio.fresh_project(CONFIG)
    with serving(labeler(), ServeOptions(user="ann", password="secret")) as url, label_studio.http() as http:
        body = {"project": project.id, "url": url, "title": "autolabel"}
        refused = http.post("/api/ml/", json=body)
        assert refused.status_code == 400
        assert "authentication" in refused.text
        signed = {"auth_method": "BASIC_AUTH", "basic_auth_user": "ann", "basic_auth_pass": "secret"}
        assert http.post("/api/ml/", json={**body, **signed}).json()["state"] == "CO"


def test_a_webhook_pulls_what_people_did_and_only_that(
    label_studio: LabelStudioServer,  # noqa: F811
    workspace: Path,
) -> None:
    write_pictures(workspace / "images", 3)
    run = autolabel.run("images", recipe=RECIPE, **Fakes())
    bench = Bench.of(label_studio)
    bench.push(run)
    remember(run.path, bench.target, PushOptions())
    options = ServeOptions(url=label_studio.url, token=label_studio.token, run=run.path)
    pulled, pull = threading.Event(), pull_into(run.path, options)

    def told(project: str) -> None:
        pull(project)
        pulled.set()

    made = of_run(run)
    with serving(made, options, Puller(told, 0.05)) as url:
        project = bench.project["id"]
        actions = ["ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"]
        bench.send(
            "POST",
            "/api/webhooks/",
            {
                "project": project,
                "url": f"{url}/webhook",
                "send_payload": True,
                "send_for_all_actions": False,
                "actions": actions,
            },
        )
        first = next(iter(run))
        bench.annotate(first.image.path)
        assert pulled.wait(60)
    known = autolabel.Run(run.path)
    assert {(c.action, c.annotation_id) for c in known.corrections()} == {
        ("accepted", annotation.id) for annotation in first.annotations
    }


def test_a_push_leaves_served_predictions_alone_and_a_pull_takes_none_for_a_persons(
    label_studio: LabelStudioServer,  # noqa: F811
    workspace: Path,
) -> None:
    write_pictures(workspace / "images", 2)
    run = autolabel.run("images", recipe=RECIPE, **Fakes())
    bench = Bench.of(label_studio)
    bench.push(run, shape="mask")
    made = of_run(run)
    with serving(made, ServeOptions(url=label_studio.url, token=label_studio.token, shape="mask")) as url:
        connect(label_studio, bench.project["id"], url)
        retrieve(label_studio, bench.project["id"], [task["id"] for task in bench.tasks()])
    before = bench.tasks()
    assert [len(task["predictions"]) for task in before] == [2, 2]
    for task in before:
        # With the run's manifest and the task's path, regions have the ids that the push gave them.
        ids = [sorted(item["id"] for item in prediction["result"]) for prediction in task["predictions"]]
        assert ids[0] == ids[1] != []
    bench.push(run, shape="mask")
    assert [task["predictions"] for task in bench.tasks()] == [task["predictions"] for task in before]
    bench.pull(run)
    assert list(autolabel.Run(run.path).corrections()) == []

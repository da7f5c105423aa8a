"""A push beside the bare bulk calls with the same payload: ``python -m benchmarks.label_studio_push``.

A real Label Studio server on this machine; a run of small images, five regions each. ``push`` is all of a push to a new
project: making it, composing and checking the regions, sending, receipts, and comparing what the server holds.
``bare`` is the least that could do the same: the files in uploads of 100, and one request with all tasks and
predictions, from bytes made before. They take turns; figures are medians. ``tasks`` leaves the images out on both
sides. ``sdk`` is that request through the SDK's ``import_tasks``. Prints JSON: seconds, and a push's speed as a share
of the bare one's.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

import autolabel
from autolabel.connect import PushOptions, Target
from autolabel.types import RGB, Detections, ModelInfo
from autolabel_connectors.label_studio import connector
from tests.fakes import BoxSegmenter, ColourClassifier
from tests.label_studio.server import LabelStudioServer, reason_missing

CLOUD = "https://example.com/photos"


class ManyBoxes:
    """Finds ``count`` boxes on every image."""

    def __init__(self, count: int) -> None:
        self.info, self.count = ModelInfo("fake:many"), count

    def predict_batch(self, images: Sequence[RGB], phrases: Sequence[str], min_score: float) -> list[Detections]:
        """Spread them over the image, each with a score of its own."""
        return [self._one(image, len(phrases)) for image in images]

    def _one(self, image: RGB, phrases: int) -> Detections:
        height, width = image.shape[:2]
        places = np.arange(self.count) * width / self.count
        shift = float(image[0, 0, 0]) / 255
        boxes = np.stack([places, places / 2, places + width / self.count * 0.8, places / 2 + height / 3 + shift], 1)
        scores = np.full((self.count, phrases), 0.05, np.float32)
        scores[:, 0] = np.linspace(0.4, 0.9, self.count)
        return Detections(boxes.astype(np.float32), scores)


def make_run(folder: Path, images: int, regions: int) -> autolabel.Run:
    """Label noisy little pictures with models that answer by arithmetic."""
    (folder / "images").mkdir()
    for number in range(images):
        pixels = np.random.default_rng(number).integers(0, 255, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:05d}.jpg", quality=60)
    return autolabel.run(
        folder / "images",
        prompt="scratch. dent.",
        path=folder / "run",
        detector=ManyBoxes(regions),
        segmenter=BoxSegmenter(),
        classifier=ColourClassifier(),
    )


def push(server: LabelStudioServer, run: autolabel.Run, **options: Any) -> tuple[float, str]:
    """Push to a new project; returns the seconds it took and its title."""
    target = Target("label-studio", f"push {secrets.token_hex(4)}", server.url, server.token)
    opened = autolabel.Run.open(run.path)
    started = time.perf_counter()
    connector().push(opened, target, PushOptions(**options), lambda *_: None)
    return time.perf_counter() - started, target.project


def held(http: httpx.Client, title: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the label config of a project, and its tasks in the form of an import."""
    project = http.get("/api/projects", params={"title": title}).json()["results"][0]
    query = {"project": project["id"], "fields": "all", "page_size": 500, "resolve_uri": "false"}
    pages = range(1, -(-project["task_number"] // 500) + 1)
    answers = [http.get("/api/tasks", params={**query, "page": page}).json() for page in pages]
    tasks = [task for answer in answers for task in answer["tasks"]]
    kept = ("result", "score", "model_version")
    return project["label_config"], [
        {"data": task["data"], "predictions": [{name: p[name] for name in kept} for p in task["predictions"]]}
        for task in tasks
    ]


def new_project(http: httpx.Client, config: str) -> int:
    """Make a project, untimed."""
    title = f"bare {secrets.token_hex(4)}"
    return int(
        http.post("/api/projects/", json={"title": title, "label_config": config}).raise_for_status().json()["id"]
    )


def bare_tasks(http: httpx.Client, project: int, body: bytes) -> float:
    """Send all tasks and predictions at once; returns seconds."""
    started = time.perf_counter()
    path, headers = f"/api/projects/{project}/import", {"Content-Type": "application/json"}
    http.post(path, content=body, headers=headers).raise_for_status()
    return time.perf_counter() - started


def bare_files(http: httpx.Client, project: int, files: Sequence[Path]) -> float:
    """Upload all files, 100 at a time, and read the list of their addresses; returns seconds."""
    started = time.perf_counter()
    for first in range(0, len(files), 100):
        batch = files[first : first + 100]
        parts = [(path.name, (path.name, path.read_bytes(), "image/jpeg")) for path in batch]
        query = {"commit_to_project": "false"}
        http.post(f"/api/projects/{project}/import", params=query, files=parts).raise_for_status()
    http.get(f"/api/projects/{project}/file-uploads", params={"all": "true"}).raise_for_status()
    return time.perf_counter() - started


def sdk_tasks(server: LabelStudioServer, project: int, tasks: list[dict[str, Any]]) -> float:
    """Send the same through the SDK; returns seconds."""
    client = server.client()
    started = time.perf_counter()
    client.projects.import_tasks(id=project, request=tasks)
    return time.perf_counter() - started


def measure(server: LabelStudioServer, run: autolabel.Run, files: Sequence[Path], shape: str, rounds: int) -> Any:
    """Take turns."""
    times: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        times.setdefault(name, []).append(seconds)

    push(server, run, shape=shape)  # imports, and the server's first use of everything
    with server.http() as http:
        http.timeout = httpx.Timeout(600)
        for _ in range(rounds):
            seconds, title = push(server, run, shape=shape)
            note("push", seconds)
            config, tasks = held(http, title)
            body = json.dumps(tasks).encode()
            project = new_project(http, config)
            uploading = bare_files(http, project, files)
            note("bare", uploading + bare_tasks(http, project, body))
            note("bare files alone", uploading)
            note("push tasks", push(server, run, shape=shape, media="cloud", media_root=CLOUD)[0])
            note("bare tasks", bare_tasks(http, new_project(http, config), body))
            note("sdk tasks", sdk_tasks(server, new_project(http, config), tasks))
    seconds = {name: round(statistics.median(values), 2) for name, values in times.items()}
    return {
        "seconds": seconds,
        "payload_mb": round(len(body) / 1e6, 1),
        "push_of_bare": round(seconds["bare"] / seconds["push"], 2),
        "push_tasks_of_bare": round(seconds["bare tasks"] / seconds["push tasks"], 2),
        "push_tasks_of_sdk": round(seconds["sdk tasks"] / seconds["push tasks"], 2),
    }


def main() -> None:
    """Measure boxes and masks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--regions", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", default="box,mask,auto")
    args = parser.parse_args()
    if reason := reason_missing():
        raise SystemExit(reason)
    with tempfile.TemporaryDirectory() as scratch, LabelStudioServer.make(Path(scratch)) as server:
        os.chdir(scratch)
        run = make_run(Path(scratch), args.images, args.regions)
        files = sorted((Path(scratch) / "images").iterdir())
        results = {shape: measure(server, run, files, shape, args.rounds) for shape in args.shapes.split(",")}
    print(json.dumps({"images": args.images, "regions": args.regions, **results}, indent=2))


if __name__ == "__main__":
    main()

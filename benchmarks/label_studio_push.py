"""A push beside the bare bulk calls with the same payload: ``python -m benchmarks.label_studio_push``.

A real Label Studio server on this machine; a run of small images, five regions each. ``push`` is all of a push to a new
project: looking for it, making it, reading the run, composing and checking the regions, sending, receipts, and
comparing what the server holds. ``bare`` is the least that could bring the same there: one request with all tasks and
predictions, from bytes made before, to a project made before; with ``upload`` the files first, 100 in a request.
``bare with project`` makes the project too. Both go over the same HTTP client and transport, in the same order, to
fresh projects, in turns; figures are medians. ``upload`` sends the images, ``cloud`` leaves them where they are.
``changed`` is a push after every prediction has lost a region, beside one PATCH after the other.

``split`` says what a push waited for: bulk calls, and how many they were, uploads, small requests, and the rest,
when no request was under way.

Prints JSON: seconds, and a push's speed as a share of the bare one's. What is measured is shown as it comes.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

import autolabel
from autolabel.connect import PushOptions, Target
from autolabel.types import RGB, Detections, ModelInfo
from autolabel_connectors.label_studio import connector
from autolabel_connectors.label_studio.http import Api
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


def make_run(folder: Path, images: int, regions: int, min_score: float = 0.3) -> autolabel.Run:
    """Label noisy little pictures with models that answer by arithmetic."""
    (folder / "images").mkdir(exist_ok=True)
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
        thresholds={"min_score": min_score},
    )


@contextmanager
def watched() -> Iterator[list[tuple[str, float, float]]]:
    """Note of each request what it was, when it began and when it ended."""
    request, found = Api.request, list[tuple[str, float, float]]()

    def noting(api: Api, method: str, path: str, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return request(api, method, path, **options)
        finally:
            kind = "uploads" if options.get("files") else "bulk calls" if options.get("content") else "small requests"
            found.append((kind, began, time.perf_counter()))

    with patch.object(Api, "request", noting):
        yield found


def split_of(requests: Sequence[tuple[str, float, float]], seconds: float) -> dict[str, float]:
    """Say how long requests of each kind were under way, and how long none was."""
    split: dict[str, float] = {}
    busy_until = 0.0
    for kind, began, ended in sorted(requests, key=lambda request: request[1]):
        split[kind] = split.get(kind, 0.0) + max(0.0, ended - max(began, busy_until))
        busy_until = max(busy_until, ended)
    split["no request"] = seconds - sum(split.values())
    return {**split, "number of bulk calls": sum(kind == "bulk calls" for kind, _, _ in requests)}


def push(server: LabelStudioServer, run: autolabel.Run, title: str = "", **options: Any) -> tuple[float, str]:
    """Push to a new project, or to that of the title; returns the seconds it took and the title."""
    target = Target("label-studio", title or f"push {secrets.token_hex(4)}", server.url, server.token)
    opened = autolabel.Run.open(run.path)
    started = time.perf_counter()
    connector().push(opened, target, PushOptions(**options), lambda *_: None)
    return time.perf_counter() - started, target.project


def held(api: Api, title: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the label config of a project, and its tasks."""
    project = api.get("/api/projects", params={"title": title})["results"][0]
    query = {"project": project["id"], "fields": "all", "page_size": 500, "resolve_uri": "false"}
    pages = range(1, -(-project["task_number"] // 500) + 1)
    answers = [api.get("/api/tasks", {**query, "page": page}) for page in pages]
    return project["label_config"], [task for answer in answers for task in answer["tasks"]]


def importable(tasks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bring tasks into the form of an import."""
    kept = ("result", "score", "model_version")
    return [
        {"data": task["data"], "predictions": [{name: p[name] for name in kept} for p in task["predictions"]]}
        for task in tasks
    ]


def make_project(api: Api, config: str) -> int:
    """Make a project; returns its number."""
    body = {"title": f"bare {secrets.token_hex(4)}", "label_config": config}
    return int(api.request("POST", "/api/projects/", body=body)["id"])


def send_files(api: Api, project: int, files: Sequence[Path]) -> None:
    """Upload all files, 100 at a time, and read the list of their addresses."""
    for first in range(0, len(files), 100):
        batch = files[first : first + 100]
        parts = [(path.name, (path.name, path.read_bytes(), "image/jpeg")) for path in batch]
        api.request("POST", f"/api/projects/{project}/import", params={"commit_to_project": "false"}, files=parts)
    api.get(f"/api/projects/{project}/file-uploads", {"all": "true"})


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def bare(api: Api, config: str, body: bytes, files: Sequence[Path]) -> tuple[float, float]:
    """Send files and tasks to a fresh project; returns seconds without and with making it."""
    started = time.perf_counter()
    project = make_project(api, config)
    made = time.perf_counter()
    if files:
        send_files(api, project, files)
    api.request("POST", f"/api/projects/{project}/import", content=body)
    ended = time.perf_counter()
    return ended - made, ended - started


def measure(server: LabelStudioServer, run: autolabel.Run, files: Sequence[Path], rounds: int, **options: Any) -> Any:
    """Take turns: a push, the bare calls with what it sent, and the SDK's import of the same."""
    times: dict[str, list[float]] = {"push": [], "bare": [], "bare with project": [], "sdk import": []}
    splits: list[dict[str, float]] = []
    push(server, run, **options)  # imports, and the server's first use of everything
    for place in range(rounds):
        with watched() as requests:
            seconds, title = push(server, run, **options)
        splits.append(split_of(requests, seconds))
        with Api(server.url, server.token, timeout_s=600) as api:
            config, tasks = held(api, title)
            sent = importable(tasks)
            body = json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode()
            alone, with_project = bare(api, config, body, files)
            project = make_project(api, config)
        if not files and place == 0:
            client = server.client(timeout=600)
            times["sdk import"].append(timed(partial(client.projects.import_tasks, id=project, request=sent)))
        times["push"].append(seconds)
        times["bare"].append(alone)
        times["bare with project"].append(with_project)
        print(f"{options}: push {seconds:.3f} s, bare {alone:.3f} s", file=sys.stderr)
    middle = {name: statistics.median(values) for name, values in times.items() if values}
    return {
        "seconds": {name: round(value, 3) for name, value in middle.items()},
        "of all rounds": {name: [round(value, 3) for value in values] for name, values in times.items()},
        "split": {name: round(statistics.median(split[name] for split in splits), 3) for name in splits[0]},
        "payload_mb": round(len(body) / 1e6, 1),
        "share": {name: round(value / middle["push"], 2) for name, value in middle.items() if name != "push"},
    }


def measure_changes(server: LabelStudioServer, folder: Path, images: int, regions: int) -> Any:
    """Take a region out of every prediction, and push again; beside it, the same PATCHes one after the other."""
    media = {"shape": "box", "media": "cloud", "media_root": CLOUD}
    _, title = push(server, make_run(folder, images, regions), **media)
    with Api(server.url, server.token) as api:
        _, tasks = held(api, title)
        predictions = [prediction for task in tasks for prediction in task["predictions"]]
        kept = ("result", "score", "model_version")

        def patch_all() -> None:
            for prediction in predictions:
                body = {name: prediction[name] for name in kept}
                api.request("PATCH", f"/api/predictions/{prediction['id']}/", body=body)

        bare_seconds = timed(patch_all)
    changed = make_run(folder, images, regions, min_score=0.45)
    seconds, _ = push(server, changed, title, **media)
    again, _ = push(server, changed, title, **media)
    return {
        "seconds": {"push": round(seconds, 3), "bare": round(bare_seconds, 3), "push of nothing new": round(again, 3)},
        "ms_a_prediction": round(1000 * seconds / len(predictions), 1),
        "share": round(bare_seconds / seconds, 2),
    }


def main() -> None:
    """Measure boxes, masks and what is sent as it comes, with and without the images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--regions", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5, help="rounds; with uploads a third of them, at least one")
    parser.add_argument("--shapes", default="box,mask,auto")
    parser.add_argument("--media", default="cloud,upload,changed")
    args = parser.parse_args()
    if reason := reason_missing():
        raise SystemExit(reason)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch, LabelStudioServer.make(Path(scratch)) as server:
        os.chdir(scratch)
        run = make_run(Path(scratch), args.images, args.regions)
        files = sorted((Path(scratch) / "images").iterdir())
        chosen = args.media.split(",")
        for shape in args.shapes.split(","):
            if "cloud" in chosen:
                options = {"shape": shape, "media": "cloud", "media_root": CLOUD}
                results[f"{shape}, cloud"] = measure(server, run, (), args.rounds, **options)
            if "upload" in chosen:
                results[f"{shape}, upload"] = measure(server, run, files, max(1, args.rounds // 3), shape=shape)
        if "changed" in chosen:
            results["changed"] = measure_changes(server, Path(scratch), args.images, args.regions)
    print(json.dumps({"images": args.images, "regions": args.regions, **results}, indent=2))


if __name__ == "__main__":
    main()

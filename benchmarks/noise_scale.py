"""Time and peak memory of the noise pass: ``python -m benchmarks.noise_scale --labels 1000000``.

Makes a run folder (and COCO labels for it) of invented boxes, 50 labels an image with masks, both opinions and
embeddings, and judges it in a process of its own that is held to two cores. Pictures are not read; their cost is
measured by ``--pictures FOLDER`` instead. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

_PER_IMAGE, _REJECTS, _DIMS, _EDGE, _SHARD = 50, 20, 64, 1000, 100
_NAMES = [f"class {number}" for number in range(10)]


def make_run(path: Path, count: int) -> None:
    """Write a run of ``count`` annotations, and ``coco.json`` beside it with labels of which a tenth is wrong."""
    from autolabel import shards
    from autolabel.manifest import RunManifest, StageKeys
    from autolabel.ontology import LabelClass, Ontology
    from autolabel.shards import Classified, Detected, ImageRow, Resolved, Segmented, StageNotes
    from autolabel.store import RunFolder
    from autolabel.types import Mask

    rng = np.random.default_rng(0)
    images = count // _PER_IMAGE
    keys = StageKeys(detect="d", segment="s", classify="c", resolve="r")
    disc = np.zeros((_EDGE, _EDGE), np.bool_)
    disc[100:180, 100:190] = True
    disc[120:150, 130:160] = False  # a hole: the slow way through the mask's quality
    mask = Mask.encode(disc)
    coco: dict[str, list[Any]] = {"images": [], "annotations": []}
    coco["categories"] = [{"id": k, "name": name} for k, name in enumerate(_NAMES)]
    with RunFolder(path) as folder:
        for first in range(0, images, _SHARD):
            here = min(_SHARD, images - first)
            rows = [
                ImageRow(f"{n:07d}.jpg", f"{n:07d}.jpg", str(n), f"{n:064x}", _EDGE, _EDGE, None)
                for n in range(first, first + here)
            ]
            each = _PER_IMAGE + _REJECTS
            total = here * each
            corner = rng.uniform(0, _EDGE - 100, (total, 2))
            boxes = np.concatenate([corner, corner + rng.uniform(15, 100, (total, 2))], 1).astype(np.float32)
            label = rng.integers(0, len(_NAMES), total)
            kept = np.arange(total) % each < _PER_IMAGE
            scores = rng.uniform(0, 0.1, (total, len(_NAMES)))
            scores[np.arange(total), label] = np.where(
                kept, rng.uniform(0.35, 0.95, total), rng.uniform(0.1, 0.35, total)
            )
            probs = rng.dirichlet(np.full(len(_NAMES), 0.3), total)
            probs[np.arange(total), label] += 2 * rng.random(total)
            probs /= probs.sum(1, keepdims=True)
            embeddings = rng.normal(0, 0.1, (total, _DIMS))
            embeddings[np.arange(total), label] += 0.5
            proposals = np.flatnonzero(kept)
            named = probs[proposals].argmax(1)
            ids = tuple(str(uuid.UUID(int=int(v))) for v in rng.integers(0, 2**62, len(proposals)))
            image = np.repeat(np.arange(here), each).astype(np.int32)
            names = tuple(_NAMES[k] for k in named)
            notes = StageNotes()
            folder.add_shard(
                rows,
                notes,
                {
                    "detect-d": (shards.detect_table(Detected(image, boxes, scores.astype(np.float32))), notes),
                    "segment-s": (
                        shards.segment_table(Segmented((mask,) * total, rng.uniform(0.6, 1, total).astype(np.float32))),
                        notes,
                    ),
                    "classify-c": (
                        shards.classify_table(
                            Classified(probs.astype(np.float32), embeddings.astype(np.float32)), total
                        ),
                        notes,
                    ),
                    "annotations-r": (
                        shards.resolve_table(Resolved(proposals.astype(np.int32), ids, named.astype(np.int32), names)),
                        notes,
                    ),
                },
            )
            for row, proposal in enumerate(proposals):
                key = first * _PER_IMAGE + row
                x0, y0, x1, y1 = boxes[proposal].tolist()
                if rng.random() < 0.05:
                    x0, x1 = x0 + 30, x1 + 30
                wrong = rng.random() < 0.05
                category = int(rng.integers(len(_NAMES))) if wrong else int(label[proposal])
                coco["annotations"].append(
                    {
                        "id": key,
                        "image_id": first + int(image[proposal]),
                        "category_id": category,
                        "bbox": [round(x0, 1), round(y0, 1), round(x1 - x0, 1), round(y1 - y0, 1)],
                    }
                )
            coco["images"] += [
                {"id": first + n, "file_name": rows[n].path, "width": _EDGE, "height": _EDGE} for n in range(here)
            ]
    now = "2026-01-01T00:00:00+00:00"
    RunManifest(
        run_id="0" * 32,
        created=now,
        updated=now,
        status="done",
        ontology=Ontology(tuple(LabelClass(name) for name in _NAMES)),
        assign="classifier",
        keys=keys,
    ).write(path)
    (path / "coco.json").write_text(json.dumps(coco))


def judge(path: str, labels: str | None) -> dict[str, Any]:
    """Judge a run in this process on two cores; return seconds and peak memory (MB)."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    from autolabel.dataset import Run
    from autolabel.quality import NoiseOptions, find_noise

    started = time.perf_counter()
    result = find_noise(Run.open(path), Path(labels) if labels else None, options=NoiseOptions(images=False))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "labels": result.labels,
        "seconds": time.perf_counter() - started,
        "peak_mb": peak,
        "flagged": result.flagged,
    }


def boxes_only(images: int = 200, per_image: int = 50) -> dict[str, float]:
    """Seconds for all box scores of ``images`` × ``per_image`` labels, ours and cleanlab's, on one array of inputs."""
    from cleanlab.object_detection.rank import get_label_quality_scores

    from autolabel.quality.detection import score_boxes
    from autolabel.quality.material import Evidence, Labels, Pictures
    from autolabel.quality.opinions import opinions_of

    rng = np.random.default_rng(0)
    count, classes = images * per_image, len(_NAMES)
    image = np.repeat(np.arange(images), per_image)
    corner = rng.uniform(0, _EDGE - 100, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(15, 100, (count, 2))], 1).astype(np.float32)
    label = rng.integers(0, classes, count)
    none = np.zeros(count, np.bool_)
    labels = Labels(image, boxes, label, [str(n) for n in range(count)], none, none)
    seen = rng.random(count) < 0.9
    evidence = Evidence(
        image[seen],
        (boxes + rng.normal(0, 4, boxes.shape)).astype(np.float32)[seen],
        np.where(rng.random(count) < 0.05, rng.integers(0, classes, count), label)[seen],
        rng.uniform(0.3, 0.95, int(seen.sum())).astype(np.float32),
        np.zeros(int(seen.sum()), np.int64),
        ("x",),
    )
    pictures = Pictures(tuple(map(str, range(images))), ("",) * images, np.full((images, 2), _EDGE, np.float32))
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        score_boxes(labels, opinions_of(evidence, labels, pictures, classes), pictures)
        seconds.append(time.perf_counter() - started)
    given = [{"bboxes": boxes[image == n], "labels": label[image == n]} for n in range(images)]
    scored = np.column_stack([evidence.boxes_xyxy, evidence.score])
    predicted = [
        np.array(
            [scored[(evidence.image == n) & (evidence.label == k)] for k in range(classes)] + [None], dtype=object
        )[:-1]
        for n in range(images)
    ]
    started = time.perf_counter()
    get_label_quality_scores(given, predicted, verbose=False)
    return {"ours_s": min(seconds), "cleanlab_s": time.perf_counter() - started}


def pictures(folder: Path) -> dict[str, float]:
    """Seconds an image for duplicates and image problems."""
    from autolabel.quality.material import Pictures
    from autolabel.quality.pictures import find_picture_issues

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    paths = sorted(folder.glob("*.jpg"))
    listed = Pictures(tuple(p.name for p in paths), ("",) * len(paths), np.full((len(paths), 2), 1000, np.float32))
    started = time.perf_counter()
    find_picture_issues(listed, lambda place: paths[place].read_bytes())
    return {"images": len(paths), "seconds_an_image": (time.perf_counter() - started) / max(len(paths), 1)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="keep the run here, and use the one that is here")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--judge", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.judge:
        sys.stdout.write(json.dumps(judge(arguments.judge[0], *arguments.judge[1:] or [None])))
        return
    result: dict[str, Any] = {"boxes_200x50": boxes_only()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch) / "run"
        if not (folder / "manifest.json").is_file():
            make_run(folder, arguments.labels)
        for name, extra in (("own", []), ("audit", [str(folder / "coco.json")])):
            command = [sys.executable, "-m", "benchmarks.noise_scale", "--judge", str(folder), *extra]
            answer = subprocess.run(command, check=True, capture_output=True, text=True)
            result[name] = json.loads(answer.stdout)
    if arguments.pictures:
        result["pictures"] = pictures(arguments.pictures)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

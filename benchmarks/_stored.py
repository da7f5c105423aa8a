"""A run folder of invented answers, for measuring what reads and rewrites runs: no model, but real files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from autolabel import labeling, runner, shards
from autolabel.config import Recipe
from autolabel.images import image_id
from autolabel.manifest import RunManifest, StageKeys, now, recorded_versions
from autolabel.shards import Classified, Detected, ImageRow, Segmented, StageNotes
from autolabel.store import RunFolder, totals
from autolabel.types import Float, Mask

PROMPT = "scratch. dent. crack. rust. hole. stain."
SIZE_WH = (640, 480)
_DIMS = 512


def stored_run(path: Path, images: int, *, boxes: int = 10, shard: int = 16, seed: int = 0) -> Path:
    """Write ``images`` pictures to ``path / "images"`` and a finished run about them to ``path / "run"``.

    Each image has ``boxes`` proposals, about a third of them near copies of others, with masks, probabilities of six
    classes and embeddings of 512 values, in shards of ``shard`` images: what a pass with small batches leaves behind.
    """
    rng = np.random.default_rng(seed)
    recipe = Recipe(prompt=PROMPT)
    ontology = recipe.ontology()
    plan = runner.make_plan(recipe, ontology, runner.new_run_id(ontology), recipe.floor())
    keys = StageKeys(detect="d" * 12, segment="e" * 12, classify="c" * 12, resolve="")
    keys = keys.model_copy(update={"resolve": runner._resolve_key(keys, plan)})
    rows = list(_pictures(path / "images", images))
    with RunFolder(path / "run") as folder:
        manifest = RunManifest(
            run_id=plan.run_id,
            created=now(),
            updated=now(),
            status="done",
            inputs=(str(path / "images"),),
            recipe=recipe.model_dump(mode="json", exclude_defaults=True),
            resolved=recipe.model_dump(mode="json", exclude={"images"}) | {"assign": plan.assign, "floor": plan.floor},
            ontology=ontology,
            assign=plan.assign,
            keys=keys,
            versions=recorded_versions(),
        )
        for first in range(0, images, shard):
            here = rows[first : first + shard]
            detected = _detected(rng, len(here), boxes, len(ontology.classes))
            count = len(detected.images)
            probs = detected.class_scores + rng.uniform(0, 0.3, detected.class_scores.shape)
            embeddings = rng.normal(0, _DIMS**-0.5, (count, _DIMS)).astype(np.float32)
            classified = Classified((probs / probs.sum(1, keepdims=True)).astype(np.float32), embeddings)
            segmented = Segmented(
                tuple(_blob(box) for box in detected.boxes_xyxy), rng.uniform(0.6, 1, count).astype(np.float32)
            )
            resolved, notes = labeling.resolve_shard(
                here, labeling.Staged(detected, segmented, classified), frozenset(), plan
            )
            folder.add_shard(
                here,
                StageNotes(0.01),
                {
                    f"detect-{keys.detect}": (shards.detect_table(detected), StageNotes(1.0, {"below_floor": 3})),
                    f"segment-{keys.segment}": (shards.segment_table(segmented), StageNotes(0.5)),
                    f"classify-{keys.classify}": (shards.classify_table(classified, count), StageNotes(0.3)),
                    f"annotations-{keys.resolve}": (shards.resolve_table(resolved), notes),
                },
            )
        counts, rejects, labels, timings = totals(folder, keys, folder.index(keys))
        update = {"counts": dict(counts), "rejects": dict(rejects), "labels": dict(labels), "timings": timings}
        manifest.model_copy(update=update).write(folder.path)
    return path / "run"


def _pictures(folder: Path, count: int) -> Iterator[ImageRow]:
    """Write one small photograph under many names; a few bytes after its end make each a file of its own."""
    from PIL import Image

    folder.mkdir(parents=True)
    y, x = np.mgrid[0 : SIZE_WH[1], 0 : SIZE_WH[0]]
    waves = 127 + 60 * np.sin(x / 37) + 50 * np.cos(y / 23)
    buffer = io.BytesIO()
    Image.fromarray(np.stack([waves, waves[::-1], waves[:, ::-1]], axis=-1).astype(np.uint8)).save(buffer, "JPEG")
    for number in range(count):
        data = buffer.getvalue() + f"{number:08d}".encode()
        file = folder / f"{number:06d}.jpg"
        file.write_bytes(data)
        yield ImageRow(file.name, str(file), f"{len(data)}-{number}", image_id(data), *SIZE_WH)


def _detected(rng: np.random.Generator, images: int, boxes: int, classes: int) -> Detected:
    """Boxes of which every third is a near copy of the one before it; scores fall as a detector's do."""
    count = images * boxes
    corner = rng.uniform(0, 1, (count, 2)) * np.array(SIZE_WH) * 0.8
    places = np.concatenate([corner, corner + rng.uniform(12, 120, (count, 2))], axis=1)
    copies = np.flatnonzero(np.arange(count) % boxes % 3 == 2)
    places[copies] = places[copies - 1] + rng.uniform(-4, 4, (len(copies), 4))
    places = np.clip(places, 0, np.array(SIZE_WH * 2)).astype(np.float32)
    scores = rng.uniform(0, 0.1, (count, classes))
    scores[np.arange(count), rng.integers(0, classes, count)] = rng.beta(2, 3, count) * 0.9 + 0.1
    return Detected(np.repeat(np.arange(images), boxes).astype(np.int32), places, scores.astype(np.float32))


def _blob(box: Float) -> Mask:
    """Draw a polygon of twelve corners that fills most of a box."""
    from pycocotools import mask as coco_mask

    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    reach = 0.8 + 0.2 * np.sin(5 * angle)
    x_min, y_min, x_max, y_max = box.tolist()
    x = (x_min + x_max) / 2 + reach * np.cos(angle) * (x_max - x_min) / 2
    y = (y_min + y_max) / 2 + reach * np.sin(angle) * (y_max - y_min) / 2
    outline = np.stack([x, y], axis=1).ravel().tolist()
    (rle,) = coco_mask.frPyObjects([outline], SIZE_WH[1], SIZE_WH[0])
    return Mask(SIZE_WH[1], SIZE_WH[0], bytes(rle["counts"]))

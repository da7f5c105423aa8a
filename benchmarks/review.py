"""How long a review takes to open: a run of 10,000 images, beside FiftyOne's own way to add the same samples.

    python -m benchmarks.review [--images 10000] [--per-image 5]

Needs FiftyOne with its database (the review extra). Works in a temporary run and removes its datasets.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import autolabel
from autolabel.issues import write_issues
from autolabel.reviewing import RefreshOptions, load_reviewer
from autolabel.types import RGB, Classifications, Detections, Float, LabelIssue, Mask, ModelInfo, Segments

SIZE_WH = (640, 480)
_BATCH = 500
CLASSES = ("scratch", "dent", "crack", "rust", "hole", "stain")


class RandomDetector:
    """Gives each image the same number of boxes, the same ones every time."""

    def __init__(self, per_image: int) -> None:
        self.info, self.per_image, self.seen = ModelInfo("benchmark:boxes"), per_image, 0

    def predict_batch(self, images: Sequence[RGB], phrases: Sequence[str], min_score: float) -> list[Detections]:
        """Answer without looking."""
        return [self._one(len(phrases)) for _ in images]

    def _one(self, phrases: int) -> Detections:
        self.seen += 1
        rng = np.random.default_rng(self.seen)
        # One box in each column of the image, so that none is suppressed as a duplicate.
        left = np.arange(self.per_image) * SIZE_WH[0] / self.per_image + rng.uniform(0, 8, self.per_image)
        top = rng.uniform(0, 240, self.per_image)
        sides = rng.uniform(40, 110, (self.per_image, 2))
        boxes = np.stack([left, top, np.minimum(left + sides[:, 0], 640), top + sides[:, 1]], axis=1)
        scores = rng.uniform(0.4, 0.9, (self.per_image, phrases)) * (rng.random((self.per_image, phrases)) < 0.5)
        scores[:, 0] = np.maximum(scores[:, 0], 0.41)
        return Detections(boxes.astype(np.float32), scores.astype(np.float32))


class EllipseSegmenter:
    """Fills an ellipse in each box."""

    info = ModelInfo("benchmark:ellipses")

    def predict_batch(self, images: Sequence[RGB], boxes_xyxy: Sequence[Float]) -> list[Segments]:
        """Answer without looking."""
        return [Segments(tuple(map(self._mask, boxes)), np.full(len(boxes), 0.9, np.float32)) for boxes in boxes_xyxy]

    def _mask(self, box: Float) -> Mask:
        pixels = np.zeros((SIZE_WH[1], SIZE_WH[0]), np.uint8)
        centre = (int(box[0] + box[2]) // 2, int(box[1] + box[3]) // 2)
        cv2.ellipse(pixels, centre, (int(box[2] - box[0]) // 2, int(box[3] - box[1]) // 2), 0, 0, 360, 1, -1)
        return Mask.encode(pixels.astype(np.bool_))


class RandomClassifier:
    """Gives each box random probabilities and an embedding of 64 numbers."""

    info = ModelInfo("benchmark:probabilities")

    def predict_batch(
        self, images: Sequence[RGB], boxes_xyxy: Sequence[Float], masks: object, classes: Sequence[object]
    ) -> list[Classifications]:
        """Answer without looking."""
        return [self._one(boxes, len(classes)) for boxes in boxes_xyxy]

    def _one(self, boxes: Float, classes: int) -> Classifications:
        rng = np.random.default_rng(int(boxes.sum() * 100) % 2**32)
        embeddings = rng.normal(size=(len(boxes), 64)).astype(np.float32)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        return Classifications(rng.dirichlet(np.ones(classes), len(boxes)).astype(np.float32), embeddings)


def make_run(folder: Path, images: int, per_image: int) -> autolabel.Run:
    """Make a run over plain images; the models are arithmetic."""
    (folder / "images").mkdir()
    for number in range(images):
        picture = np.full((SIZE_WH[1], SIZE_WH[0], 3), number % 256, np.uint8)
        picture[0, :2, 0] = divmod(number, 256)
        cv2.imwrite(str(folder / "images" / f"{number:06d}.png"), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    run = autolabel.run(
        folder / "images",
        prompt=". ".join(CLASSES),
        path=folder / "benchmark-review",
        detector=RandomDetector(per_image),
        segmenter=EllipseSegmenter(),
        classifier=RandomClassifier(),
    )
    write_issues(run.path, issues(run), {"at": "2020-01-01T00:00:00+00:00"})
    return run


def issues(run: autolabel.Run) -> list[LabelIssue]:
    """Doubt every annotation a little, and every tenth much."""
    found = []
    for item in run:
        for number, annotation in enumerate(item.annotations):
            quality = (int(annotation.id[:6], 16) % 1000) / 1000
            path, uid = item.image.path, item.image.id
            found.append(LabelIssue("label", path, uid, quality, quality < 0.1, "benchmark", annotation.id))
            if number == 0 and quality < 0.2:
                found.append(LabelIssue("overlooked", path, uid, quality, True, "benchmark", box=annotation.box))
    return found


def add_samples(fo: Any, run: autolabel.Run) -> float:
    """Add boxes, labels, scores and masks with FiftyOne's own objects, and nothing else; returns seconds."""
    dataset = fo.Dataset("benchmark-bare")
    started = time.perf_counter()
    samples = []
    for item in run:
        detections = []
        for annotation in item.annotations:
            x0, y0, x1, y1 = annotation.box.xyxy
            width, height = item.image.width, item.image.height
            assert annotation.mask is not None
            mask = annotation.mask.decode()[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
            box = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
            detections.append(
                fo.Detection(label=annotation.label, bounding_box=box, mask=mask, confidence=annotation.score)
            )
        sample = fo.Sample(filepath=str(run.local_path(item.image)), metadata=fo.ImageMetadata(width=640, height=480))
        sample["annotations"] = fo.Detections(detections=detections)
        samples.append(sample)
        if len(samples) == _BATCH:
            dataset.add_samples(samples, progress=False)
            samples = []
    dataset.add_samples(samples, progress=False)
    seconds = time.perf_counter() - started
    fo.delete_dataset("benchmark-bare")
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--per-image", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run = make_run(Path(name), options.images, options.per_image)
        reviewer = load_reviewer()

        def refresh() -> tuple[float, dict[str, int]]:
            started = time.perf_counter()
            opened = autolabel.Run.open(run.path)
            report = reviewer.refresh(opened, RefreshOptions(), lambda *_: None)
            return time.perf_counter() - started, {name: count for name, count in report.counts.items() if count}

        started = time.perf_counter()
        reviewer.delete(run)  # loads FiftyOne and starts its database
        print(f"{options.images} images, {run.manifest.counts['annotations']} annotations with masks")
        print(f"FiftyOne and its database        {time.perf_counter() - started:7.1f} s")
        try:
            first, counts = refresh()
            print(f"first opening                    {first:7.1f} s   {counts}")
            print("again, nothing new               {:7.1f} s   {}".format(*refresh()))
            changed = issues(run)
            write_issues(run.path, changed[: len(changed) * 99 // 100], {"at": "2020-01-01T00:00:00+00:00"})
            print("again, 1 % of the issues gone    {:7.1f} s   {}".format(*refresh()))
            started = time.perf_counter()
            reviewer.apply(autolabel.Run.open(run.path), by=None, dry_run=True, on_step=lambda *_: None)
            print(f"--apply with nothing decided     {time.perf_counter() - started:7.1f} s")
            import fiftyone as fo

            bare = add_samples(fo, run)
            print(
                f"add_samples, boxes and masks only {bare:6.1f} s   first opening is {bare / first:.1f} times as fast"
            )
        finally:
            reviewer.delete(run)


if __name__ == "__main__":
    main()

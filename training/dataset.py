"""Pictures of a split, generated once into memory-mapped files that the three trainings share.

Run ``python -m training.dataset`` to fill them; a second run goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from training.generator import CLASS_NAMES, TRAINED, Scene, generate
from training.generator.distractors import DISTRACTORS
from training.processes import process_pool
from training.runtime import WORK
from training.seeds import TRAIN

MAX_INSTANCES: Final = 8
MAX_WINDOWS: Final = 6
CHUNK: Final = 100
DISTRACTOR_NAMES: Final = tuple(DISTRACTORS)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Pictures of one size: name, width and height px, how many, the first seed, and one surface or any."""

    name: str
    width: int
    height: int
    count: int
    first_seed: int
    surface: str | None = None


BUCKETS: Final = (
    Bucket("landscape", 512, 384, 18_000, TRAIN.start),
    Bucket("square", 448, 448, 6_000, TRAIN.start + 1_000_000),
    Bucket("imagined", 512, 384, 24_000, TRAIN.start + 3_000_000, "imagined"),
)
"""Files are sparse: only what ``--pictures`` asks for takes room (0.8 MB a picture)."""


class SceneStore:
    """Memory-mapped pictures of a bucket.

    ``images`` uint8 RGB ``(N, H, W, 3)``; ``ids`` uint8 ``(N, H, W)``, 0 background, i + 1 the i-th instance;
    ``labels`` int8 ``(N, 8)``, class index or -1; ``windows`` int16 ``(N, 6, 5)``, kind or -1 and xyxy px.
    """

    def __init__(self, bucket: Bucket, folder: Path = WORK / f"scenes-{TRAINED.name}") -> None:
        self.bucket = bucket
        self.folder = folder / bucket.name
        n, h, w = bucket.count, bucket.height, bucket.width
        self.folder.mkdir(parents=True, exist_ok=True)
        self.images = self._map("images.u8", np.uint8, (n, h, w, 3))
        self.ids = self._map("ids.u8", np.uint8, (n, h, w))
        self.labels = self._map("labels.i8", np.int8, (n, MAX_INSTANCES))
        self.windows = self._map("windows.i16", np.int16, (n, MAX_WINDOWS, 5))

    def _map(self, name: str, dtype: type, shape: tuple[int, ...]) -> np.memmap:  # type: ignore[type-arg]
        path = self.folder / name
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if not path.exists() or path.stat().st_size != size:
            with path.open("ab") as file:
                os.truncate(file.fileno(), size)
        return np.memmap(path, dtype=dtype, mode="r+", shape=shape)

    def finished(self) -> NDArray[np.int64]:
        """Return the indices of the pictures already generated."""
        chunks = sorted(int(p.stem) for p in self.folder.glob("*.done"))
        found = [np.arange(c * CHUNK, min((c + 1) * CHUNK, self.bucket.count)) for c in chunks]
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def clean(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which of the pictures ``(N,)`` show no defect, ``(N,)``."""
        return np.asarray(self.labels[indices, 0] < 0)

    def shows(self, indices: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.bool_]:
        """Tell which of the pictures ``(N,)`` show a defect of one of the classes, ``(N,)``."""
        wanted = [CLASS_NAMES.index(name) for name in names]
        return np.asarray(np.isin(self.labels[indices], wanted).any(axis=1))

    def put(self, index: int, scene: Scene) -> None:
        """Store a scene, shrunk by area averaging where it was painted larger than the bucket."""
        size = (self.bucket.width, self.bucket.height)
        ids = np.zeros(scene.image.shape[:2], np.uint8)
        labels = np.full(MAX_INSTANCES, -1, np.int8)
        for i, instance in enumerate(scene.instances[:MAX_INSTANCES]):
            ids[instance.mask] = i + 1
            labels[i] = CLASS_NAMES.index(instance.label)
        scale = self.bucket.width / scene.image.shape[1]
        windows = np.full((MAX_WINDOWS, 5), -1, np.int16)
        for i, (kind, xyxy) in enumerate(scene.distractors[:MAX_WINDOWS]):
            windows[i] = [DISTRACTOR_NAMES.index(kind), *(round(v * scale) for v in xyxy)]
        self.images[index] = cv2.resize(scene.image, size, interpolation=cv2.INTER_AREA)
        self.ids[index] = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT)
        self.labels[index] = labels
        self.windows[index] = windows


def draw_store(rng: np.random.Generator, stores: Sequence[SceneStore]) -> SceneStore:
    """Draw the store of the next picture: each of the pictures there are is as likely."""
    counts = np.array([len(store.finished()) for store in stores], np.float64)
    return stores[int(rng.choice(len(stores), p=counts / counts.sum()))]


def _fill_chunk(bucket: Bucket, chunk: int) -> int:
    cv2.setNumThreads(1)
    store = SceneStore(bucket)
    for index in range(chunk * CHUNK, min((chunk + 1) * CHUNK, bucket.count)):
        factor = 2 if index % 4 == 3 else 1  # a quarter is painted large and shrunk, as large photographs will be
        size_wh = (bucket.width * factor, bucket.height * factor)
        store.put(index, generate(bucket.first_seed + index, size_wh, surface=bucket.surface))
    (store.folder / f"{chunk}.done").touch()
    return chunk


def fill(workers: int, pictures: int) -> None:
    """Generate what is missing of the first ``pictures`` with ``workers`` processes."""
    share = min(1.0, pictures / sum(bucket.count for bucket in BUCKETS))
    with process_pool(workers) as pool:
        jobs = []
        for bucket in BUCKETS:
            folder = SceneStore(bucket).folder
            chunks = range(-(-round(share * bucket.count) // CHUNK))
            jobs += [(c / bucket.count, bucket, c) for c in chunks if not (folder / f"{c}.done").exists()]
        futures = [pool.submit(_fill_chunk, bucket, chunk) for _, bucket, chunk in sorted(jobs, key=lambda j: j[0])]
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            print(json.dumps({"chunks_done": done, "of": len(futures)}), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Generate the training pictures (resumable).")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--pictures", type=int, default=sum(bucket.count for bucket in BUCKETS), help="of all buckets together"
    )
    arguments = parser.parse_args()
    fill(arguments.workers, arguments.pictures)


if __name__ == "__main__":
    main()

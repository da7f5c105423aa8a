"""Measure how long the product takes for a picture of 1,024 px, all three stages, on few processor cores."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import cv2

from training.evaluate_run import Product
from training.generator import Edition, generate
from training.seeds import VALIDATION

SIZE_WH: Final = (1024, 768)
CORES: Final = 2
STAGES: Final = ("read", "detect", "segment", "classify", "resolve")
SEEDS: Final = VALIDATION[900_000:]


def seconds(product: Product, edition: Edition, pictures: int = 16) -> dict[str, Any]:
    """Seconds a picture by stage, on ``CORES`` cores; loading the models is apart, as it is paid once a run.

    ``processor`` are the seconds of computing, of all threads together and with loading: a busy machine shows them
    much truer than the clock.
    """
    folder = product.folder / "images-speed"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS[:pictures]:
        scene = generate(seed, SIZE_WH, edition=edition)
        cv2.imwrite(str(folder / f"{seed}.jpg"), scene.image[..., ::-1])
    allowed = os.sched_getaffinity(0)
    before = _processor_s()
    os.sched_setaffinity(0, set(sorted(allowed)[:CORES]))
    try:
        _, spoken = replace(product, threads=CORES).run("speed", folder, edition.classes)
    finally:
        os.sched_setaffinity(0, allowed)
    stages = {stage: round(spoken["timings_s"].get(stage, 0.0) / pictures, 4) for stage in STAGES}
    return {
        "size_wh": list(SIZE_WH),
        "cores": CORES,
        "pictures": pictures,
        "stages": stages,
        "all_stages": round(sum(stages.values()), 4),
        "loading": spoken["timings_s"].get("load"),
        "processor": round((_processor_s() - before) / pictures, 4),
    }


def size_mb(weights: Path) -> dict[str, float]:
    """Megabytes (10⁶) of each model's folder and of all."""
    folders = [path for path in sorted(weights.iterdir()) if path.is_dir() and not path.name.startswith(("_", "."))]
    sizes = {
        path.name: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6 for path in folders
    }
    return {**{name: round(size, 2) for name, size in sizes.items()}, "all": round(sum(sizes.values()), 2)}


def _processor_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

"""Photographs of 12 megapixels whose scratches are one to three pixels wide: what tiles are measured on.

``python -m training.large OUT --pictures 20`` writes pictures, one in four of them clean, and their ``coco.json``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from training.generator import SAMPLES, Edition, Scene, generate
from training.generator.defects import Mask, Scenery, draw_scratch
from training.generator.surfaces import Canvas
from training.make_sample_data import coco_of
from training.processes import process_pool
from training.seeds import SPLITS

SIZE_WH: Final = (4000, 3000)


def hairline(rng: np.random.Generator, canvas: Canvas, scenery: Scenery) -> Mask | None:
    """Scratch one to three pixels wide and 80 to 900 px long, whatever the size of the picture."""
    length = float(np.exp(rng.uniform(np.log(80), np.log(900))))
    return draw_scratch(rng, canvas, scenery, length, float(rng.uniform(1.0, 3.0)), scuffs=False)


THIN: Final[Edition] = replace(SAMPLES, name="thin", defects={"scratch": hairline}, weights={}, fine=True)


def scene(seed: int, size_wh: tuple[int, int] = SIZE_WH) -> Scene:
    """One picture with one to six hairline scratches; every fourth seed is clean."""
    return generate(seed, size_wh, defects=0 if seed % 4 == 3 else None, edition=THIN)


def _write(folder: Path, seed: int) -> tuple[str, Scene]:
    cv2.setNumThreads(1)
    made = scene(seed)
    name = f"{seed}.jpg"
    cv2.imwrite(str(folder / "images" / name), made.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    return name, made


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write large pictures with thin scratches and their ground truth.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    (arguments.out / "images").mkdir(parents=True, exist_ok=True)
    first = SPLITS[arguments.split].start + 500_000
    with process_pool(arguments.workers) as pool:
        made = list(pool.map(partial(_write, arguments.out), range(first, first + arguments.pictures)))
    truth = coco_of(made, THIN.classes)
    (arguments.out / "coco.json").write_text(json.dumps(truth) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

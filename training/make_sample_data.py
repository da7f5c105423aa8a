"""Make ``sample_data/``: pictures for a first try, their ground truth, and a folder of awkward files.

``python -m training.make_sample_data`` writes the same pictures every time; the seeds are a range of their own, so
none of them was seen in training, validation or test.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
from pycocotools import mask as coco_mask

from training.generator import SAMPLES, Scene, generate
from training.make_hard_files import write_hard_files
from training.seeds import SAMPLE_DATA

OUT: Final = Path(__file__).parent.parent / "sample_data"
JPEG_QUALITY: Final = 88


@dataclass(frozen=True, slots=True)
class Spec:
    """One picture: surface, size px, number of defects asked for, seed counted from the range's start, file suffix."""

    surface: str
    size_wh: tuple[int, int]
    defects: int
    seed: int
    suffix: str = ".jpg"


SPECS: Final = (
    Spec("brushed_metal", (1280, 960), 3, 0),
    Spec("brushed_metal", (1024, 768), 2, 1),
    Spec("brushed_metal", (800, 600), 0, 2),
    Spec("brushed_metal", (2000, 1500), 3, 3),
    Spec("painted", (1280, 960), 3, 4),
    Spec("painted", (960, 1280), 2, 5),
    Spec("painted", (640, 480), 1, 6, ".png"),
    Spec("painted", (1024, 768), 0, 7),
    Spec("cast", (1024, 768), 3, 8),
    Spec("cast", (1600, 1200), 2, 9),
    Spec("cast", (800, 800), 2, 10),
    Spec("sandblasted", (800, 600), 2, 11),
    Spec("sandblasted", (640, 480), 3, 12),
    Spec("sandblasted", (1024, 768), 1, 13),
    Spec("glossy", (1280, 960), 2, 14),
    Spec("glossy", (1800, 1200), 3, 15),
    Spec("glossy", (800, 600), 0, 16),
    Spec("wood", (1024, 768), 2, 17),
    Spec("wood", (960, 1280), 3, 18),
    Spec("wood", (480, 360), 1, 19, ".png"),
    Spec("concrete", (1280, 960), 3, 20),
    Spec("concrete", (1024, 683), 2, 21),
    Spec("concrete", (640, 480), 0, 22),
    Spec("fabric", (800, 600), 2, 23),
    Spec("fabric", (1024, 768), 3, 24),
    Spec("ceramic", (1280, 720), 3, 25),
    Spec("ceramic", (800, 800), 2, 26),
    Spec("painted", (300, 225), 2, 27, ".png"),
)


def names() -> list[str]:
    """File name of every spec: surface and a number."""
    seen: dict[str, int] = {}
    result = []
    for spec in SPECS:
        seen[spec.surface] = seen.get(spec.surface, 0) + 1
        result.append(f"{spec.surface}_{seen[spec.surface]:02d}{spec.suffix}")
    return result


def scene_of(spec: Spec) -> Scene:
    """Generate the picture of a spec."""
    seed = SAMPLE_DATA.start + spec.seed
    return generate(seed, spec.size_wh, surface=spec.surface, defects=spec.defects, edition=SAMPLES)


def coco_of(scenes: list[tuple[str, Scene]], classes: tuple[str, ...] = SAMPLES.classes) -> dict[str, Any]:
    """COCO ground truth: boxes xywh px, masks as compressed RLE, categories in the order of the class names."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, scene) in enumerate(scenes, 1):
        height, width = scene.image.shape[:2]
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for instance in scene.instances:
            x0, y0, x1, y1 = instance.box_xyxy()
            rle = coco_mask.encode(instance.mask.astype("uint8", order="F"))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": classes.index(instance.label) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(instance.mask.sum()),
                    "segmentation": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name, "supercategory": "defect"} for i, name in enumerate(classes, 1)]
    info = {"description": "Procedural inspection photographs", "version": "1", "licence": "Apache-2.0"}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write sample_data/ (deterministic).")
    parser.add_argument("--out", type=Path, default=OUT)
    out: Path = parser.parse_args().out
    (out / "images").mkdir(parents=True, exist_ok=True)
    scenes = []
    for name, spec in zip(names(), SPECS, strict=True):
        scene = scene_of(spec)
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if spec.suffix == ".jpg" else []
        cv2.imwrite(str(out / "images" / name), scene.image[..., ::-1], options)
        scenes.append((name, scene))
    text = json.dumps(coco_of(scenes), indent=1)
    (out / "coco.json").write_text(text + "\n", encoding="utf-8")
    write_hard_files(out / "hard")


if __name__ == "__main__":
    main()

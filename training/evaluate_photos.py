"""Measure the product on real photographs that somebody else labelled; nothing is ever tuned on them.

A folder with ``images/`` and ``instances.json`` (COCO, file names relative to ``images``); the first part of a file
name is its set. The prompt of a set is its category names.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from training.evaluate_run import Product, on_clean, precisions


def photos(product: Product, folder: Path) -> dict[str, Any]:
    """Figures of every set in ``folder``, by the names of its categories as the prompt."""
    truth: dict[str, Any] = json.loads((folder / "instances.json").read_text())
    result = {}
    for name in sorted({_set_of(image) for image in truth["images"]}):
        images = [image for image in truth["images"] if _set_of(image) == name]
        ids = {image["id"] for image in images}
        annotations = [a for a in truth["annotations"] if a["image_id"] in ids]
        used = {a["category_id"] for a in annotations}
        categories = [category for category in truth["categories"] if category["id"] in used]
        target = product.folder / f"photos-{name}"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for image in images:
            (target / Path(image["file_name"]).name).symlink_to((folder / "images" / image["file_name"]).resolve())
        renamed = [{**image, "file_name": Path(image["file_name"]).name} for image in images]
        against = product.folder / f"photos-{name}.json"
        against.write_text(json.dumps({"images": renamed, "annotations": annotations, "categories": categories}))
        result[name] = _figures(product, name, target, against, [c["name"] for c in categories])
    return result


def _figures(product: Product, name: str, images: Path, truth: Path, prompts: list[str]) -> dict[str, Any]:
    run, spoken = product.run(f"photos-run-{name}", images, prompts)
    answer = product.evaluate(f"photos-run-{name}", truth, "proposals")
    return {
        "prompt": ". ".join(prompts) + ".",
        "photos": spoken["counts"]["images"],
        "truths": answer["truths"],
        "annotations": answer["annotations"],
        "box_ap50_per_class": {row["name"]: (row["box"] or {}).get("ap50") for row in answer["classes"]},
        "found_at_the_default_threshold": {
            row["name"]: [row["true_positives"], row["truths"], row["false_positives"]] for row in answer["classes"]
        },
        **precisions(run, truth),
        "clean": on_clean(run, truth),
    }


def _set_of(image: dict[str, Any]) -> str:
    return str(image["file_name"]).split("/")[0]

"""Labels and detections from COCO files, for an audit of labels that were made elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autolabel.errors import UsageError
from autolabel.ontology import Ontology
from autolabel.quality.material import Evidence, Labels, Pictures
from autolabel.truth import match_categories, match_images, read_coco


@dataclass(frozen=True, slots=True)
class Audit:
    """Labels of a COCO file, and how its ids map to places in pictures and classes; ``notes`` say what was left out.

    ``image_of`` and ``class_of`` map the file's own ids.
    """

    pictures: Pictures
    classes: tuple[str, ...]
    labels: Labels
    image_of: Mapping[int, int]
    class_of: Mapping[int, int]
    notes: tuple[str, ...]


def read_labels(path: Path, pictures: Pictures | None = None, ontology: Ontology | None = None) -> Audit:
    """Read COCO instances; with a run's ``pictures`` and ``ontology``, those images and classes that both know.

    Raises UsageError where the file is not COCO, a record is malformed, or nothing in it fits the run.
    """
    data = read_coco(path)
    records = _images(path, data["images"])
    categories = _categories(path, data["categories"])
    notes: list[str] = []
    if pictures is None:
        order = sorted(records, key=lambda key: str(records[key]["file_name"]))
        image_of = {key: place for place, key in enumerate(order)}
        pictures = Pictures(
            tuple(str(records[key]["file_name"]) for key in order), ("",) * len(order), _sizes(data, records, order)
        )
    else:
        matched = match_images(list(pictures.paths), {key: str(r["file_name"]) for key, r in records.items()})
        place_of = {name: place for place, name in enumerate(pictures.paths)}
        image_of = {key: place_of[name] for name, key in matched.items()}
        if not image_of:
            raise UsageError(
                f"no image of {path} is in the run ({_some(str(r['file_name']) for r in records.values())}, against "
                f"{_some(pictures.paths)}); label the same images first, or pass --evidence without a run"
            )
        _check_sizes(path, pictures, records, image_of)
        _note(
            notes,
            "images of the labels are not in the run",
            [records[k]["file_name"] for k in records if k not in image_of],
        )
        _note(notes, "images of the run are not in the labels", sorted(set(pictures.paths) - set(matched)))
    if ontology is None:
        ordered = sorted(categories)
        classes = tuple(categories[key] for key in ordered)
        class_of = {key: place for place, key in enumerate(ordered)}
    else:
        class_of, unmatched = match_categories(
            [{"id": key, "name": name} for key, name in categories.items()], ontology
        )
        classes = ontology.names
        if not class_of:
            raise UsageError(
                f"no category of {path} ({_some(categories.values())}) is a class of the run "
                f"({_some(ontology.names)}); name the classes alike, or add phrases to the recipe's classes"
            )
        _note(notes, "categories are no class of the run and were not judged", unmatched)
    labels = _labels(
        path,
        data["annotations"],
        records=records,
        categories=categories,
        image_of=image_of,
        class_of=class_of,
        pictures=pictures,
    )
    return Audit(pictures, classes, labels, image_of, class_of, tuple(notes))


def read_results(
    path: Path,
    pictures: Pictures,
    image_of: Mapping[int, int] | None = None,
    class_of: Mapping[int, int] | None = None,
    ontology: Ontology | None = None,
) -> Evidence:
    """Read detections in COCO results format; the evidence is named after the file.

    A bare list names images and categories by the ids of the labels' file (``image_of``, ``class_of``). A file with
    images and categories of its own is matched by names, to ``ontology`` where it is given.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read evidence {path}: {error}") from error
    if isinstance(rows, dict) and {"images", "categories", "annotations"} <= rows.keys():
        if ontology is not None:
            names = {key: str(record["file_name"]) for key, record in _images(path, rows["images"]).items()}
            place_of = {name: place for place, name in enumerate(pictures.paths)}
            image_of = {key: place_of[name] for name, key in match_images(list(pictures.paths), names).items()}
            categories = [{"id": k, "name": n} for k, n in _categories(path, rows["categories"]).items()]
            class_of = match_categories(categories, ontology)[0]
        rows = rows["annotations"]
    if not isinstance(rows, list):
        raise UsageError(
            f"{path} is not COCO results: a list of objects with image_id, category_id, bbox and score is expected"
        )
    if image_of is None or class_of is None:
        raise UsageError(
            f"{path} names images by ids of another file: give --labels, or a COCO file that lists images, categories "
            "and annotations with a score"
        )
    images, classes, boxes, scores = [], [], [], []
    for number, row in enumerate(rows):
        where = f"{path}: detection {number}"
        if not isinstance(row, dict):
            raise UsageError(f"{where} must be an object, got {row!r}")
        image, category, score = (_field(row, name, where) for name in ("image_id", "category_id", "score"))
        if image not in image_of or category not in class_of:
            continue
        if not 0 <= float(score) <= 1:
            raise UsageError(f"{where}: score must be in [0, 1], got {score}")
        images.append(image_of[image])
        classes.append(class_of[category])
        boxes.append(_box(row, where))
        scores.append(float(score))
    if rows and not images:
        raise UsageError(f"no detection of {path} is about a judged image and category; check its ids")
    order = np.lexsort((-np.array(scores), np.array(images, np.int64))) if images else np.zeros(0, np.int64)
    image = np.array(images, np.int64)[order]
    return Evidence(
        image,
        _clipped(np.array(boxes, np.float32).reshape(-1, 4)[order], pictures, image),
        np.array(classes, np.int64)[order],
        np.array(scores, np.float32)[order],
        np.zeros(len(image), np.int64),
        (path.name,),
    )


def _labels(
    path: Path,
    rows: Any,
    *,
    records: Mapping[int, Any],
    categories: Mapping[int, str],
    image_of: Mapping[int, int],
    class_of: Mapping[int, int],
    pictures: Pictures,
) -> Labels:
    kept: list[tuple[int, int, list[float], str, bool, Any]] = []
    seen: set[str] = set()
    for number, row in enumerate(rows):
        where = f"{path}: annotation {row.get('id', number) if isinstance(row, dict) else number}"
        if not isinstance(row, dict):
            raise UsageError(f"{where} must be an object, got {row!r}")
        image, category = _field(row, "image_id", where), _field(row, "category_id", where)
        if image not in records:
            raise UsageError(f"{where}: image_id {image!r} is not among the file's images; remove it or add the image")
        if category not in categories:
            raise UsageError(f"{where}: category_id {category!r} is not among the file's categories; add the category")
        box = _box(row, where)
        key = str(row.get("id", number))
        if key in seen:
            raise UsageError(f"{where}: id {key} is given twice; ids must differ, as issues name them")
        seen.add(key)
        if image in image_of and category in class_of:
            kept.append(
                (image_of[image], class_of[category], box, key, bool(row.get("iscrowd")), row.get("segmentation"))
            )
    kept.sort(key=lambda one: one[0])
    image = np.array([one[0] for one in kept], np.int64)
    shapes = [one[5] for one in kept]
    return Labels(
        image,
        _clipped(np.array([one[2] for one in kept], np.float32).reshape(-1, 4), pictures, image),
        np.array([one[1] for one in kept], np.int64),
        [one[3] for one in kept],
        np.zeros(len(kept), np.bool_),
        np.array([one[4] for one in kept], np.bool_),
        shapes if any(shapes) else None,
    )


def _images(path: Path, rows: Any) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or "id" not in row or "file_name" not in row:
            raise UsageError(f"{path}: image {number} needs id and file_name, got {row!r}")
        if row["id"] in found:
            raise UsageError(f"{path}: image id {row['id']!r} is given twice")
        found[row["id"]] = row
    return found


def _categories(path: Path, rows: Any) -> dict[int, str]:
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or "id" not in row or "name" not in row:
            raise UsageError(f"{path}: category {number} needs id and name, got {row!r}")
    return {row["id"]: str(row["name"]) for row in rows}


def _sizes(data: dict[str, Any], records: Mapping[int, Any], order: list[int]) -> Any:
    """Sizes as stated; where they are not, the image reaches as far as its labels."""
    reach: dict[int, tuple[float, float]] = {}
    if any(not records[key].get("width") or not records[key].get("height") for key in order):
        for row in data["annotations"]:
            x, y, w, h = (float(value) for value in row.get("bbox") or (0, 0, 1, 1))
            old = reach.get(row.get("image_id"), (1.0, 1.0))
            reach[row.get("image_id")] = max(old[0], x + w), max(old[1], y + h)
    sizes = [
        (
            records[key].get("width") or reach.get(key, (1, 1))[0],
            records[key].get("height") or reach.get(key, (1, 1))[1],
        )
        for key in order
    ]
    return np.array(sizes, np.float32).reshape(-1, 2)


def _check_sizes(path: Path, pictures: Pictures, records: Mapping[int, Any], image_of: Mapping[int, int]) -> None:
    for key, place in image_of.items():
        width, height = (int(value) for value in pictures.sizes_wh[place])
        stated = int(records[key].get("width") or width), int(records[key].get("height") or height)
        if stated != (width, height):
            raise UsageError(
                f"{pictures.paths[place]!r} is {width}×{height} px in the run and {stated[0]}×{stated[1]} px in "
                f"{path}; the labels must be for the upright image at its full size"
            )


def _field(row: Mapping[str, Any], name: str, where: str) -> Any:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{where}: {name} must be a number, got {value!r}")
    return value


def _box(row: Mapping[str, Any], where: str) -> list[float]:
    """Return xyxy px of an xywh ``bbox``."""
    box = row.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(isinstance(value, (int, float)) for value in box):
        x, y, w, h = map(float, box)
        if np.isfinite([x, y, w, h]).all() and w >= 0 and h >= 0:
            return [x, y, x + w, y + h]
    raise UsageError(f"{where}: bbox must be four finite numbers x, y, width, height in px, got {box!r}")


def _clipped(boxes_xyxy: Any, pictures: Pictures, image: Any) -> Any:
    limits = np.tile(pictures.sizes_wh[image], (1, 2)) if len(image) else boxes_xyxy
    return np.clip(boxes_xyxy, 0, limits).astype(np.float32)


def _note(notes: list[str], what: str, names: Any) -> None:
    if names:
        notes.append(f"{len(names)} {what}: {_some(names)}")


def _some(names: Any, most: int = 4) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")

"""Measure a run against ground truth in COCO format: AP and AR by pycocotools, and counts at the run's thresholds.

AP is taken over the annotations as stored, that is above the recipe's thresholds: it says how good the labels are.
Published figures rank everything a detector says; ``ranked="proposals"`` does that with the stored low-floor proposals.
Both rank by `Annotation.confidence`, what detector and classifier say together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from autolabel.candidates import candidates, gates_of
from autolabel.errors import UsageError
from autolabel.scores import Precision, Scores
from autolabel.truth import match_categories, match_images, read_coco
from autolabel.types import Annotation, Box, Mask

if TYPE_CHECKING:
    from rich.console import Console

    from autolabel.dataset import Run

Ranked = Literal["annotations", "proposals"]
_MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One class: COCO figures, and counts of boxes matched one to one at IoU 0.5; None where nothing is to measure."""

    name: str
    truths: int
    annotations: int
    true_positives: int
    false_positives: int
    misses: int
    precision: float | None
    recall: float | None
    box: Precision | None
    mask: Precision | None


@dataclass(frozen=True, slots=True)
class EvalResult:
    """What a run is worth against ground truth; ``to_json`` gives what JSON can hold.

    Only images on both sides count. ``clean_images`` have no ground truth at all; annotations on them are false.
    ``mask`` is None where either side has no masks. ``ranked`` says what AP and AR were taken over; the counts are
    always of annotations.
    """

    against: str
    ranked: Ranked
    images: int
    truths: int
    annotations: int
    box: Precision | None
    mask: Precision | None
    classes: tuple[ClassResult, ...]
    clean_images: int
    clean_images_annotated: int
    false_positives_on_clean: int
    images_only_in_truth: tuple[str, ...]
    images_only_in_run: tuple[str, ...]
    categories_only_in_truth: tuple[str, ...]
    classes_only_in_run: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Compared:
    """A run beside ground truth, as records of pycocotools; ``labels`` are the class ids that both sides know.

    ``annotations`` are what thresholds left, of all classes; ``ranked`` what AP is taken over, of ``labels`` alone.
    ``clean`` are the numbers of images without ground truth. ``paths`` names the images: number n is ``paths[n - 1]``.
    """

    paths: tuple[str, ...]
    images: list[dict[str, Any]]
    labels: list[int]
    truths: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    ranked: list[dict[str, Any]]
    clean: frozenset[int]
    images_only_in_truth: tuple[str, ...]
    images_only_in_run: tuple[str, ...]
    categories_only_in_truth: tuple[str, ...]


def compare(run: Run, coco_path: Path, *, ranked: Ranked = "annotations") -> Compared:
    """Match a run with the COCO file ``coco_path``; raises UsageError where the two cannot be matched clearly."""
    if ranked not in get_args(Ranked):
        raise UsageError(f"ranked must be one of {', '.join(get_args(Ranked))}, got {ranked!r}")
    truth = read_coco(coco_path)
    truth_images = {int(image["id"]): image for image in truth["images"]}
    category_to_label, categories_only_in_truth = match_categories(truth["categories"], run.labels)
    items = {item.image.path: item for item in run}
    image_of = match_images(list(items), {key: str(image["file_name"]) for key, image in truth_images.items()})
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for record in truth["annotations"]:
        by_image[int(record["image_id"])].append(record)

    truths: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    clean: set[int] = set()
    labels = sorted(set(category_to_label.values()))
    for number, (path, truth_id) in enumerate(sorted(image_of.items()), start=1):
        item, records = items[path], by_image[truth_id]
        size = (item.image.width, item.image.height)
        _check_size(path, size, truth_images[truth_id])
        images.append({"id": number, "width": size[0], "height": size[1]})
        for record in records:
            if (label := category_to_label.get(int(record["category_id"]))) is not None:
                # Ids count from 1: pycocotools takes a match with id 0 for no match.
                truths.append(_truth_record(record, len(truths) + 1, number, label))
        found += [_found_record(a, len(found) + i, number) for i, a in enumerate(item.annotations, start=1)]
        if not records:
            clean.add(number)
    over = found
    if ranked == "proposals":
        over = _proposal_records(run, {path: number for number, path in enumerate(sorted(image_of), start=1)})
    matched = set(image_of.values())
    return Compared(
        paths=tuple(sorted(image_of)),
        images=images,
        labels=labels,
        truths=truths,
        annotations=found,
        ranked=[record for record in over if record["category_id"] in labels],
        clean=frozenset(clean),
        images_only_in_truth=tuple(
            sorted(str(i["file_name"]) for key, i in truth_images.items() if key not in matched)
        ),
        images_only_in_run=tuple(sorted(path for path in items if path not in image_of)),
        categories_only_in_truth=categories_only_in_truth,
    )


def evaluate(run: Run, coco_path: Path, *, ranked: Ranked = "annotations") -> EvalResult:
    """Compare a run with the COCO file ``coco_path``; raises UsageError where the two cannot be matched clearly."""
    both = compare(run, coco_path, ranked=ranked)
    labels, truths = both.labels, both.truths
    counted = [record for record in both.annotations if record["category_id"] in labels]
    box = counts = Scores("bbox", both.images, labels, truths, counted)
    if ranked == "proposals":
        box = Scores("bbox", both.images, labels, truths, both.ranked)
    over = both.ranked
    has_masks = all("segmentation" in t for t in truths) and (not over or any("segmentation" in f for f in over))
    mask = Scores("segm", both.images, labels, truths, over) if has_masks and truths else None
    names = run.labels.names
    on_clean = Counter(record["image_id"] for record in both.annotations if record["image_id"] in both.clean)
    return EvalResult(
        against=str(coco_path),
        ranked=ranked,
        images=len(both.images),
        truths=len(truths),
        annotations=len(both.annotations),
        box=box.overall(),
        mask=mask.overall() if mask else None,
        classes=tuple(
            _class_result(names[label], counts.counts(place), box.of(place), mask.of(place) if mask else None)
            for place, label in enumerate(labels)
        ),
        clean_images=len(both.clean),
        clean_images_annotated=len(on_clean),
        false_positives_on_clean=on_clean.total(),
        images_only_in_truth=both.images_only_in_truth,
        images_only_in_run=both.images_only_in_run,
        categories_only_in_truth=both.categories_only_in_truth,
        classes_only_in_run=tuple(name for label, name in enumerate(names) if label not in labels),
    )


def print_result(result: EvalResult, console: Console | None = None) -> None:
    """Print the figures as a table, then what was left out and why."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = console or Console()
    title = escape(f"{result.images} images against {PurePosixPath(result.against).name}")
    # Eleven columns fit into eighty characters without lines between them.
    table = Table(title=title, box=SIMPLE_HEAD, padding=0)
    table.add_column("\nclass", overflow="fold")
    heads = ["\ntruths", "\nfound", "\nprec.", "\nrecall", "box\nAP", "\nAP50", "\nAP75", "\nAR", "mask\nAP", "\nAP50"]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in result.classes:
        figures = [str(row.truths), str(row.annotations), _figure(row.precision), _figure(row.recall)]
        table.add_row(escape(row.name), *figures, *_figures(row.box, row.mask))
    table.add_section()
    matched = sum(row.true_positives for row in result.classes)
    counted = sum(row.annotations for row in result.classes)
    precision, recall = _ratio(matched, counted), _ratio(matched, result.truths)
    totals = [str(result.truths), str(counted), _figure(precision), _figure(recall)]
    table.add_row("all", *totals, *_figures(result.box, result.mask), style="bold")
    console.print(table)
    console.print(
        f"{result.false_positives_on_clean} annotations on {result.clean_images_annotated} "
        f"of {result.clean_images} clean images; precision and recall at IoU {_MATCH_IOU}, AP over {result.ranked}"
    )
    for what, names in (
        ("images only in the ground truth", result.images_only_in_truth),
        ("images only in the run", result.images_only_in_run),
        ("categories only in the ground truth", result.categories_only_in_truth),
        ("classes only in the run", result.classes_only_in_run),
    ):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            console.print(f"{len(names)} {what}: {', '.join(names[:5])}{more}", style="yellow", markup=False)


def _truth_record(record: dict[str, Any], key: int, image: int, label: int) -> dict[str, Any]:
    x, y, w, h = record["bbox"]
    crowd = int(record.get("iscrowd", 0))
    result = {"id": key, "image_id": image, "category_id": label, "bbox": [x, y, w, h], "iscrowd": crowd}
    result["area"] = record.get("area", w * h)
    if record.get("segmentation"):
        result["segmentation"] = record["segmentation"]
    return result


def _found_record(annotation: Annotation, key: int, image: int) -> dict[str, Any]:
    return _record(annotation.box, annotation.label_id, annotation.confidence, annotation.mask) | {
        "id": key,
        "image_id": image,
    }


def _record(box: Box, label: int, confidence: float, mask: Mask | None) -> dict[str, Any]:
    bbox = [box.x_min, box.y_min, box.width, box.height]
    result = {"category_id": label, "bbox": bbox, "area": box.area, "score": confidence, "iscrowd": 0}
    return result | ({"segmentation": mask.to_coco()} if mask is not None else {})


def _proposal_records(run: Run, numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    """Settle every stored proposal of the numbered images as the recipe does, but with all thresholds at 0."""
    given = gates_of(run)
    none = np.zeros_like(given.min_score)
    found = candidates(run, replace(given, min_score=none, min_prob=none, min_area_px=none), numbers)
    records = [
        _record(Box(*box), label, confidence, mask) | {"image_id": numbers[one.image.path]}
        for one in found
        for box, label, confidence, mask in zip(
            one.boxes_xyxy.tolist(), one.label_ids.tolist(), one.confidences.tolist(), one.masks, strict=True
        )
    ]
    return [record | {"id": number} for number, record in enumerate(records, start=1)]


def _class_result(name: str, counts: Counter[str], box: Precision | None, mask: Precision | None) -> ClassResult:
    tp, fp, truths = counts["tp"], counts["fp"], counts["truths"]
    return ClassResult(
        name=name,
        truths=truths,
        annotations=tp + fp,
        true_positives=tp,
        false_positives=fp,
        misses=truths - tp,
        precision=_ratio(tp, tp + fp),
        recall=_ratio(tp, truths),
        box=box,
        mask=mask,
    )


def _check_size(path: str, size_wh: tuple[int, int], truth: dict[str, Any]) -> None:
    stated = (int(truth.get("width") or size_wh[0]), int(truth.get("height") or size_wh[1]))
    if stated != size_wh:
        raise UsageError(
            f"{path!r} is {size_wh[0]}×{size_wh[1]} px in the run and {stated[0]}×{stated[1]} px in the ground truth; "
            "the ground truth must be for the upright image at its full size"
        )


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _figures(box: Precision | None, mask: Precision | None) -> list[str]:
    boxes = (box.ap, box.ap50, box.ap75, box.ar) if box else (None,) * 4
    masks = (mask.ap, mask.ap50) if mask else (None,) * 2
    return [_figure(value) for value in (*boxes, *masks)]

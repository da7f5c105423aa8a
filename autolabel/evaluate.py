"""Measure a run against ground truth in COCO format: AP and AR by pycocotools, and counts at the run's thresholds.

AP is taken over the annotations as stored, that is above the recipe's thresholds: it says how good the labels are, and
is at most the AP of the detector's whole ranking.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autolabel.errors import UsageError
from autolabel.truth import match_categories, match_images, read_coco
from autolabel.types import Annotation

if TYPE_CHECKING:
    from rich.console import Console

    from autolabel.dataset import Run

_MAX_DETECTIONS = 100
_MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Precision:
    """COCO figures in [0, 1]: AP over IoU 0.50 to 0.95, AP at 0.50 and 0.75, AR with at most 100 an image."""

    ap: float
    ap50: float
    ap75: float
    ar: float


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
    """What a run is worth against ground truth; ``to_dict`` gives what JSON can hold.

    Only images on both sides count. ``clean_images`` have no ground truth at all; annotations on them are false.
    ``mask`` is None where either side has no masks.
    """

    against: str
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def evaluate(run: Run, coco_path: Path) -> EvalResult:
    """Compare a run with the COCO file ``coco_path``; raises UsageError where the two cannot be matched clearly."""
    truth = read_coco(coco_path)
    truth_images = {int(image["id"]): image for image in truth["images"]}
    category_to_label, categories_only_in_truth = match_categories(truth["categories"], run.ontology)
    items = {item.image.path: item for item in run}
    image_of = match_images(list(items), {key: str(image["file_name"]) for key, image in truth_images.items()})
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for record in truth["annotations"]:
        by_image[int(record["image_id"])].append(record)

    truths: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    image_records: list[dict[str, Any]] = []
    clean, on_clean = 0, []
    labels = sorted(set(category_to_label.values()))
    for number, (path, truth_id) in enumerate(sorted(image_of.items()), start=1):
        item, records = items[path], by_image[truth_id]
        size = (item.image.width, item.image.height)
        _check_size(path, size, truth_images[truth_id])
        image_records.append({"id": number, "width": size[0], "height": size[1]})
        for record in records:
            if (label := category_to_label.get(int(record["category_id"]))) is not None:
                # Ids count from 1: pycocotools takes a match with id 0 for no match.
                truths.append(_truth_record(record, len(truths) + 1, number, label))
        found += [_found_record(a, len(found) + i, number) for i, a in enumerate(item.annotations, start=1)]
        if not records:
            clean += 1
            on_clean.append(len(item.annotations))
    counted = [record for record in found if record["category_id"] in labels]
    box = _Scores("bbox", image_records, labels, truths, counted)
    has_masks = all("segmentation" in t for t in truths) and (not counted or any("segmentation" in f for f in counted))
    mask = _Scores("segm", image_records, labels, truths, counted) if has_masks and truths else None
    names = run.ontology.names
    matched_truths = set(image_of.values())
    return EvalResult(
        against=str(coco_path),
        images=len(image_of),
        truths=len(truths),
        annotations=len(found),
        box=box.overall(),
        mask=mask.overall() if mask else None,
        classes=tuple(_class_result(names[label], place, box, mask) for place, label in enumerate(labels)),
        clean_images=clean,
        clean_images_annotated=sum(count > 0 for count in on_clean),
        false_positives_on_clean=sum(on_clean),
        images_only_in_truth=tuple(
            sorted(str(i["file_name"]) for key, i in truth_images.items() if key not in matched_truths)
        ),
        images_only_in_run=tuple(sorted(path for path in items if path not in image_of)),
        categories_only_in_truth=categories_only_in_truth,
        classes_only_in_run=tuple(name for label, name in enumerate(names) if label not in labels),
    )


def print_result(result: EvalResult, console: Console | None = None) -> None:
    """Print the figures as a table, then what was left out and why."""
    from rich.console import Console
    from rich.table import Table

    console = console or Console()
    table = Table(title=f"{result.images} images against {PurePosixPath(result.against).name}")
    table.add_column("class")
    heads = ["truths", "found", "precision", "recall", "box AP", "AP50", "AP75", "AR", "mask AP", "mask AP50"]
    for head in heads:
        table.add_column(head, justify="right")
    for row in result.classes:
        figures = [str(row.truths), str(row.annotations), _figure(row.precision), _figure(row.recall)]
        table.add_row(row.name, *figures, *_figures(row.box, row.mask))
    table.add_section()
    matched = sum(row.true_positives for row in result.classes)
    counted = sum(row.annotations for row in result.classes)
    precision, recall = _ratio(matched, counted), _ratio(matched, result.truths)
    totals = [str(result.truths), str(counted), _figure(precision), _figure(recall)]
    table.add_row("all", *totals, *_figures(result.box, result.mask), style="bold")
    console.print(table)
    console.print(
        f"{result.false_positives_on_clean} annotations on {result.clean_images_annotated} "
        f"of {result.clean_images} clean images; precision and recall at IoU {_MATCH_IOU}"
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


class _Scores:
    """One pass of pycocotools over one kind of region; classes are addressed by their place in ``labels``."""

    def __init__(
        self,
        kind: str,
        images: list[dict[str, Any]],
        labels: list[int],
        truths: list[dict[str, Any]],
        found: list[dict[str, Any]],
    ) -> None:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        key = "segmentation" if kind == "segm" else "bbox"
        sides = []
        with contextlib.redirect_stdout(io.StringIO()):
            for records in (truths, found):
                side = COCO()
                side.dataset = {
                    "images": images,
                    "categories": [{"id": label, "name": str(label)} for label in labels],
                    "annotations": [dict(record) for record in records if key in record],
                }
                side.createIndex()
                sides.append(side)
            run = COCOeval(*sides, kind)
            run.params.catIds = labels
            run.params.maxDets = [1, 10, _MAX_DETECTIONS]
            self._precision = np.full((10, 101, len(labels)), -1.0)
            self._recall = np.full((10, len(labels)), -1.0)
            self._matches: list[dict[str, Any] | None] = []
            if images and labels:
                run.evaluate()
                run.accumulate()
                self._precision = run.eval["precision"][:, :, :, 0, -1]
                self._recall = run.eval["recall"][:, :, 0, -1]
                self._matches = run.evalImgs
        self._images = len(images)
        self._areas = len(run.params.areaRng)

    def overall(self) -> Precision | None:
        """Mean over the classes that have ground truth."""
        return self._figures(slice(None))

    def of(self, place: int) -> Precision | None:
        """Figures of one class."""
        return self._figures(slice(place, place + 1))

    def counts(self, place: int) -> Counter[str]:
        """Count the matches of one class at IoU 0.5; crowds, and what lies on them, do not count."""
        total: Counter[str] = Counter()
        # evalImgs runs over classes, then area ranges (all of them first), then images.
        start = place * self._areas * self._images
        for image in self._matches[start : start + self._images]:
            if image is None:
                continue
            counted = ~np.asarray(image["dtIgnore"][0], np.bool_)
            matched = np.asarray(image["dtMatches"][0]) > 0
            total["tp"] += int((matched & counted).sum())
            total["fp"] += int((~matched & counted).sum())
            total["truths"] += int((~np.asarray(image["gtIgnore"], np.bool_)).sum())
        return total

    def _figures(self, places: slice) -> Precision | None:
        precision, recall = self._precision[:, :, places], self._recall[:, places]
        if not (precision > -1).any():
            return None
        ap, ap50, ap75 = (_mean(p) for p in (precision, precision[0], precision[5]))
        return Precision(ap, ap50, ap75, _mean(recall))


def _truth_record(record: dict[str, Any], key: int, image: int, label: int) -> dict[str, Any]:
    x, y, w, h = record["bbox"]
    crowd = int(record.get("iscrowd", 0))
    result = {"id": key, "image_id": image, "category_id": label, "bbox": [x, y, w, h], "iscrowd": crowd}
    result["area"] = record.get("area", w * h)
    if record.get("segmentation"):
        result["segmentation"] = record["segmentation"]
    return result


def _found_record(annotation: Annotation, key: int, image: int) -> dict[str, Any]:
    box = annotation.box
    bbox = [box.x_min, box.y_min, box.width, box.height]
    result: dict[str, Any] = {"id": key, "image_id": image, "category_id": annotation.label_id, "bbox": bbox}
    result |= {"area": box.area, "score": annotation.score, "iscrowd": 0}
    if annotation.mask is not None:
        result["segmentation"] = annotation.mask.to_coco()
    return result


def _class_result(name: str, place: int, box: _Scores, mask: _Scores | None) -> ClassResult:
    counts = box.counts(place)
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
        box=box.of(place),
        mask=mask.of(place) if mask else None,
    )


def _check_size(path: str, size_wh: tuple[int, int], truth: dict[str, Any]) -> None:
    stated = (int(truth.get("width") or size_wh[0]), int(truth.get("height") or size_wh[1]))
    if stated != size_wh:
        raise UsageError(
            f"{path!r} is {size_wh[0]}×{size_wh[1]} px in the run and {stated[0]}×{stated[1]} px in the ground truth; "
            "the ground truth must be for the upright image at its full size"
        )


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of what was measured; pycocotools writes -1 where there is no ground truth."""
    return round(float(values[values > -1].mean()), 6)


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _figures(box: Precision | None, mask: Precision | None) -> list[str]:
    boxes = (box.ap, box.ap50, box.ap75, box.ar) if box else (None,) * 4
    masks = (mask.ap, mask.ap50) if mask else (None,) * 2
    return [_figure(value) for value in (*boxes, *masks)]

"""How well label errors are found: ``python -m benchmarks.noise --procedural FOLDER --shared FOLDER``.

Errors are planted in right labels (`noise_plant`), the noise pass judges them as a user would have it judge a COCO
file, and cleanlab's defaults score the same boxes. ``FOLDER`` of ``--procedural`` is what `noise_pictures` wrote, that
of ``--shared`` holds ``coco100`` and ``label_noise``. Prints a Markdown table and writes JSON with ``--out``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.noise_plant import Noisy, plant

SEEDS = (1, 2, 3)
LABEL_KINDS = ("swap", "location", "spurious")
HIT_IOU = 0.5


def judge(noisy: Noisy, work: Path, run: Path | None, evidence: Path | None) -> dict[str, Any]:
    """Judge noisy labels with the product; return scores and flags of annotations, and overlooked boxes."""
    from autolabel.dataset import Run
    from autolabel.issues import read_issues
    from autolabel.quality import NoiseOptions, find_noise, read_quality

    labels = work / "labels.json"
    labels.write_text(json.dumps(noisy.coco))
    find_noise(
        Run.open(run) if run else None,
        labels,
        [evidence] if evidence else [],
        out=work / "out",
        options=NoiseOptions(images=False),
    )
    table = read_quality(work / "out").to_pylist()
    issues = read_issues(work / "out")
    place_of = {image["file_name"]: image["id"] for image in noisy.coco["images"]}
    scores = {
        kind: {int(row["annotation_id"]): 1.0 if row[kind] is None else row[kind] for row in table}
        for kind in (*LABEL_KINDS, "quality")
    }
    flags: dict[str, set[int]] = {}
    for issue in issues:
        if issue.flagged and issue.annotation_id:
            flags.setdefault(issue.kind, set()).add(int(issue.annotation_id))
    overlooked = [
        (place_of[i.path], i.box.xyxy, i.quality, i.flagged) for i in issues if i.kind == "overlooked" and i.box
    ]
    lacking = {place_of[i.path]: i.quality for i in issues if i.kind == "incomplete"}
    return {"scores": scores, "flags": flags, "overlooked": overlooked, "lacking": lacking}


def cleanlab_scores(noisy: Noisy, predictions: list[dict[str, Any]]) -> dict[str, Any]:
    """Score the same labels with cleanlab's defaults; its location score stands in for one of spurious boxes."""
    from cleanlab.object_detection.filter import find_label_issues
    from cleanlab.object_detection.rank import (
        compute_badloc_box_scores,
        compute_overlooked_box_scores,
        compute_swap_box_scores,
    )

    images = [image["id"] for image in noisy.coco["images"]]
    categories = sorted({category["id"] for category in noisy.coco["categories"]})
    column = {key: place for place, key in enumerate(categories)}
    rows: dict[int, list[dict[str, Any]]] = {key: [] for key in images}
    found: dict[int, list[list[list[float]]]] = {key: [[] for _ in categories] for key in images}
    for one in noisy.coco["annotations"]:
        rows[one["image_id"]].append(one)
    for one in predictions:
        found[one["image_id"]][column[one["category_id"]]].append([*_xyxy(one["bbox"]), one["score"]])
    # cleanlab fails on images without labels or without predictions: they are left out, and score as clean.
    judged = [key for key in images if rows[key] and any(found[key])]
    labels = [
        {
            "bboxes": np.array([_xyxy(one["bbox"]) for one in rows[key]]),
            "labels": np.array([column[one["category_id"]] for one in rows[key]]),
        }
        for key in judged
    ]
    predicted = []
    for key in judged:
        one = np.empty(len(categories), dtype=object)
        for place, boxes in enumerate(found[key]):
            one[place] = np.array(boxes, np.float64).reshape(-1, 5)
        predicted.append(one)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        swap = compute_swap_box_scores(labels=labels, predictions=predicted)
        location = compute_badloc_box_scores(labels=labels, predictions=predicted)
        lost = compute_overlooked_box_scores(labels=labels, predictions=predicted)
        flagged = find_label_issues(labels, predicted)
    scores: dict[str, dict[int, float]] = {"swap": {}, "location": {}}
    for key, swaps, places in zip(judged, swap, location, strict=True):
        for one, s, b in zip(rows[key], swaps, places, strict=True):
            scores["swap"][one["id"]], scores["location"][one["id"]] = float(s), float(b)
    for one in noisy.coco["annotations"]:
        for kind in ("swap", "location"):
            scores[kind].setdefault(one["id"], 1.0)
    scores["spurious"] = scores["location"]
    overlooked = []
    for key, values in zip(judged, lost, strict=True):
        boxes = [box[:4] for boxes in found[key] for box in boxes]
        overlooked += [(key, box, float(v), False) for box, v in zip(boxes, values, strict=True) if not np.isnan(v)]
    return {
        "scores": scores,
        "overlooked": overlooked,
        "images": {k for k, f in zip(judged, flagged, strict=True) if f},
    }


def figures(noisy: Noisy, truth: dict[str, Any], found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """AUROC by kind; precision and recall at the flags, and missed errors, where there are flags."""
    from sklearn.metrics import roc_auc_score

    judged = [one["id"] for one in noisy.coco["annotations"] if not one.get("iscrowd")]
    result: dict[str, dict[str, float]] = {}
    flags: dict[str, set[int]] = found.get("flags", {})
    anything = set().union(*flags.values()) if flags else set()
    for kind in LABEL_KINDS:
        planted = np.array([noisy.kind.get(key) == kind for key in judged])
        scores = np.array([found["scores"][kind][key] for key in judged])
        row = {"auroc": float(roc_auc_score(planted, -scores))}
        if flags:
            hit = np.array([key in flags.get(kind, set()) for key in judged])
            row |= _rates(planted, hit)
            row["missed"] = 1 - float(np.mean([key in anything for key, p in zip(judged, planted, strict=True) if p]))
        result[kind] = row
    result["missing"] = _missing(noisy, truth, found, bool(flags))
    return result


def doubts_and_truth(noisy: Noisy, found: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Probability of an error as stated, and whether there is one, of labels (any kind) and of overlooked boxes."""
    judged = [one["id"] for one in noisy.coco["annotations"] if not one.get("iscrowd")]
    stated = sum(1 - np.array([found["scores"][kind][key] for key in judged]) for kind in LABEL_KINDS)
    gone: dict[int, list[Any]] = {}
    for one in noisy.missing:
        gone.setdefault(one["image_id"], []).append(_xyxy(one["bbox"]))
    boxes = found["overlooked"]
    right = [any(_iou(box, other) >= HIT_IOU for other in gone.get(image, [])) for image, box, _, _ in boxes]
    return {
        "label": (np.clip(stated, 0, 1), np.array([key in noisy.kind for key in judged])),
        "overlooked": (np.array([1 - quality for _, _, quality, _ in boxes]), np.array(right, np.bool_)),
    }


def _missing(noisy: Noisy, truth: dict[str, Any], found: dict[str, Any], flagged: bool) -> dict[str, float]:
    """Compare dropped with kept objects by the worst doubt at their place, and images that lack any with the others."""
    from sklearn.metrics import roc_auc_score

    by_image: dict[int, list[tuple[Any, float, bool]]] = {}
    for image, box, quality, flag in found["overlooked"]:
        by_image.setdefault(image, []).append((box, quality, flag))
    lost = {one["id"] for one in noisy.missing}
    objects = [one for one in truth["annotations"] if not one.get("iscrowd")]
    doubts = [
        [doubt for doubt in by_image.get(one["image_id"], []) if _iou(_xyxy(one["bbox"]), doubt[0]) >= HIT_IOU]
        for one in objects
    ]
    planted = np.array([one["id"] in lost for one in objects])
    worst = np.array([min((doubt[1] for doubt in here), default=1.0) for here in doubts])
    lacking = {one["image_id"] for one in noisy.missing}
    images = [image["id"] for image in truth["images"]]
    least = [min((doubt[1] for doubt in by_image.get(key, [])), default=1.0) for key in images]
    lack = [key in lacking for key in images]
    whole = [found.get("lacking", {}).get(key, 1.0) for key in images] if found.get("lacking") else least
    row = {
        "auroc": float(roc_auc_score(planted, -worst)),
        "auroc_images": float(roc_auc_score(lack, -np.array(whole))),
        "auroc_worst_doubt": float(roc_auc_score(lack, -np.array(least))),
        "seen": float(np.mean([bool(here) for here, p in zip(doubts, planted, strict=True) if p])),
    }
    if flagged:
        flags = [(image, box) for image, box, _, flag in found["overlooked"] if flag]
        gone: dict[int, list[Any]] = {}
        for one in noisy.missing:
            gone.setdefault(one["image_id"], []).append(_xyxy(one["bbox"]))
        right = [any(_iou(box, other) >= HIT_IOU for other in gone.get(image, [])) for image, box in flags]
        hit = [any(doubt[2] for doubt in here) for here, p in zip(doubts, planted, strict=True) if p]
        row |= {"precision": float(np.mean(right)) if right else 1.0, "recall": float(np.mean(hit))}
        row["missed"] = 1 - row["recall"]
        row["flags"] = len(flags)
    return row


def planted_noise(
    coco: Path, predictions: list[dict[str, Any]], run: Path | None, evidence: Path | None
) -> dict[str, Any]:
    """Run the protocol for all seeds; mean figures of ours and of cleanlab's defaults."""
    truth = json.loads(coco.read_text())
    from autolabel.quality.calibrate import reliability

    ours, theirs, seeds = [], [], []
    stated: list[dict[str, tuple[Any, Any]]] = []
    for seed in SEEDS:
        noisy = plant(truth, seed)
        with tempfile.TemporaryDirectory() as work:
            mine = judge(noisy, Path(work), run, evidence)
        stated.append(doubts_and_truth(noisy, mine))
        other = cleanlab_scores(noisy, predictions)
        ours.append(figures(noisy, truth, mine))
        theirs.append(figures(noisy, truth, other))
        seeds.append({"seed": seed, "ours": ours[-1], "cleanlab": theirs[-1]})
    return {
        "labels": len(truth["annotations"]),
        "images": len(truth["images"]),
        "ours": _mean(ours),
        "cleanlab": _mean(theirs),
        "seeds": seeds,
        "reliability": {
            kind: {**asdict(curve), "error": curve.error}
            for kind in ("label", "overlooked")
            for curve in [reliability(*(np.concatenate([one[kind][part] for one in stated]) for part in (0, 1)))]
        },
    }


def cifar(folder: Path) -> dict[str, Any]:
    """CIFAR-10's test labels with people's verdicts: how many of the bad ones the flags catch."""
    import csv

    from autolabel.quality.confident import confident_learning

    labels = np.load(folder / "original_labels.npy").astype(np.int64)
    probabilities = np.load(folder / "pyx.npy")
    with (folder / "human_verdicts.csv").open() as stream:
        bad = [int(row["index"]) for row in csv.DictReader(stream) if row["verdict"] != "given"]
    found = confident_learning(labels, probabilities)
    ranked = confident_learning(labels, probabilities, flags=int(found.flagged.sum()))
    return {
        "labels": len(labels),
        "flags": int(found.flagged.sum()),
        "bad": len(bad),
        "caught": int(found.flagged[bad].sum()),
        "caught_by_margin": int(ranked.flagged[bad].sum()),
    }


def proposals_of(run: Path, coco: Path) -> list[dict[str, Any]]:
    """List a run's proposals as COCO results, the input that cleanlab gets."""
    from autolabel.dataset import Run

    truth = json.loads(coco.read_text())
    image_of = {image["file_name"]: image["id"] for image in truth["images"]}
    opened = Run.open(run)
    category_of = {category["name"]: category["id"] for category in truth["categories"]}
    rows = []
    for one in opened.proposals():
        for box, scores in zip(one.boxes_xyxy.tolist(), one.class_scores, strict=True):
            x0, y0, x1, y1 = box
            rows.append(
                {
                    "image_id": image_of[Path(one.image.path).name],
                    "category_id": category_of[opened.ontology.names[int(scores.argmax())]],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": float(scores.max()),
                }
            )
    return rows


def table(results: dict[str, Any]) -> str:
    """Render the planted-noise figures as Markdown."""
    lines = [
        "| set | error | AUROC | cleanlab's defaults | precision | recall | missed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        for kind in (*LABEL_KINDS, "missing"):
            mine, other = result["ours"][kind], result["cleanlab"][kind]
            cells = [f"{mine[key]:.2f}" for key in ("precision", "recall", "missed")]
            lines.append(f"| {name} | {kind} | {mine['auroc']:.3f} | {other['auroc']:.3f} | {' | '.join(cells)} |")
        mine, other = result["ours"]["missing"], result["cleanlab"]["missing"]
        lines.append(f"| {name} | missing, by image | {mine['auroc_images']:.3f} | {other['auroc_images']:.3f} | | | |")
    return "\n".join(lines)


def reliability_table(results: dict[str, Any]) -> str:
    """Render how often what was called wrong with some probability was wrong, as Markdown."""
    lines = ["| set | doubt | stated | wrong | rows |", "|---|---|---|---|---|"]
    for name, result in results.items():
        for kind, curve in result["reliability"].items():
            for stated, seen, rows in zip(curve["predicted"], curve["observed"], curve["rows"], strict=True):
                lines.append(f"| {name} | {kind} | {stated:.2f} | {seen:.2f} | {rows} |")
            lines.append(f"| {name} | {kind} | mean distance | {curve['error']:.3f} | {sum(curve['rows'])} |")
    return "\n".join(lines)


def diagram(results: dict[str, Any]) -> str:
    """Draw what was stated against what came out, as SVG: one square for each set and doubt, dots as large as rows."""
    side, gap = 180, 60
    parts = []
    curves = [(f"{name}: {kind}", c) for name, r in results.items() for kind, c in r["reliability"].items()]
    for number, (title, curve) in enumerate(curves):
        x = gap // 2 + number * (side + gap)
        points = [
            (x + p * side, 40 + (1 - o) * side) for p, o in zip(curve["predicted"], curve["observed"], strict=True)
        ]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        dots = "".join(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{1.5 + np.log10(rows):.1f}"><title>{rows}</title></circle>'
            for (a, b), rows in zip(points, curve["rows"], strict=True)
        )
        parts.append(
            f'<text x="{x}" y="28">{title}, off by {curve["error"]:.3f}</text>'
            f'<rect x="{x}" y="40" width="{side}" height="{side}" fill="none" stroke="#999"/>'
            f'<path d="M{x} {40 + side}L{x + side} 40" stroke="#999" stroke-dasharray="4 4"/>'
            f'<polyline points="{line}" fill="none" stroke="#2563eb" stroke-width="1.5"/><g fill="#2563eb">{dots}</g>'
            f'<text x="{x}" y="{side + 58}">stated 0 to 1, wrong 0 to 1 upwards</text>'
        )
    width = len(curves) * (side + gap)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{side + 70}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _rates(planted: Any, hit: Any) -> dict[str, float]:
    both = int((planted & hit).sum())
    return {
        "precision": both / max(int(hit.sum()), 1),
        "recall": both / max(int(planted.sum()), 1),
        "flags": int(hit.sum()),
    }


def _mean(rows: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {kind: {key: float(np.mean([r[kind][key] for r in rows])) for key in rows[0][kind]} for kind in rows[0]}


def _xyxy(box: list[float]) -> list[float]:
    x, y, w, h = box
    return [x, y, x + w, y + h]


def _iou(a: Any, b: Any) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    return inter / max((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter, 1e-9)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--procedural", type=Path)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path, help="write the reliability diagram, SVG")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    if arguments.procedural:
        folder = arguments.procedural
        predictions = proposals_of(folder / "run", folder / "coco.json")
        results["procedural"] = planted_noise(folder / "coco.json", predictions, folder / "run", None)
    if arguments.shared:
        folder = arguments.shared / "coco100"
        evidence = folder / "yolox_nano_detections.json"
        predictions = json.loads(evidence.read_text())
        results["coco100"] = planted_noise(folder / "instances.json", predictions, None, evidence)
    report: dict[str, Any] = {"planted": results}
    sys.stdout.write(table(results) + "\n\n" + reliability_table(results) + "\n")
    if arguments.shared:
        report["cifar10"] = cifar(arguments.shared / "label_noise" / "cifar10_test")
        sys.stdout.write(f"\nCIFAR-10: {json.dumps(report['cifar10'])}\n")
    if arguments.plot:
        arguments.plot.write_text(diagram(results))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

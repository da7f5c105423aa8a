"""Fit what the noise pass knows before a run has told it anything: ``autolabel/quality/prior.json``.

``python -m benchmarks.noise_prior --fit FOLDER... --check FOLDER... --write`` reads folders that `noise_pictures`
wrote, and whose runs had a second look (``autolabel noise FOLDER/run``). The lessons are: which of a run's own labels
are wrong and what it overlooked, by the exact labels; and errors that were planted in the exact labels. Figures are
those of the ``--check`` folders alone, which nothing is fitted to.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from autolabel.dataset import Run
from autolabel.geometry import box_iou
from autolabel.quality import prior
from autolabel.quality.calibrate import Logistic, logit, reliability, sigmoid
from autolabel.quality.coco_files import read_labels
from autolabel.quality.detection import KINDS
from autolabel.quality.from_run import CLASSIFIER, RunEvidence, evidence_of_run, labels_of_run, pictures_of
from autolabel.quality.lessons import lessons_of
from autolabel.quality.material import Labels, joined
from autolabel.quality.own import own_proposal
from autolabel.quality.second_look import read_second_look

RIDGE = 5.0
OWN_RIDGE = {"location": 40.0, "spurious": 40.0, prior.ANY: 15.0}
"""A run's own wrong labels are few, and those of one kind fewer: two halves of the validation pictures, each judged by
the other, say how far to draw the weights of so few towards nought."""
USUAL = {"swap": 0.03, "location": 0.03, "spurious": 0.03, prior.ANY: 0.09, prior.LOST: 0.1}
"""Shares of errors that labels from elsewhere are taken to have; what is forgotten is the commonest."""
PLANTED = 0.1

Rows = dict[str, tuple[Any, Any]]


def own_rows(folder: Path, *, second: bool, without: tuple[str, ...] = ()) -> Rows:
    """Features and truth of a run's labels and candidates, by kind; ``without`` classifier or segmenter."""
    run = Run.open(folder / "run")
    pictures, labels = pictures_of(run), labels_of_run(run)
    classes = len(run.labels.classes)
    own = _stripped(evidence_of_run(run, pictures, masks=False), without)
    place = own_proposal(labels, own.evidence, len(pictures))
    evidence = read_second_look(run, pictures, classes) if second else own.evidence
    pivot = float(run.manifest.resolved["thresholds"]["min_score"])
    opinions = prior.relative(evidence, np.full(len(evidence.names), pivot), classes)
    views = prior.views_of(labels, opinions, pictures, own, place)
    truth = read_labels(folder / "coco.json", pictures, run.labels).labels
    best, shown = np.zeros(len(labels)), np.full(len(labels), -1)
    lost = np.zeros(len(views.rows), np.bool_)
    for image in range(len(pictures)):
        mine, real = np.flatnonzero(labels.image == image), np.flatnonzero(truth.image == image)
        iou = box_iou(labels.shown_xyxy[mine], truth.boxes_xyxy[real])
        best[mine] = iou.max(1, initial=0)
        if len(real):
            shown[mine] = truth.label[real][iou.argmax(1)]
        missed = real[iou.max(0, initial=0) < 0.5]
        free = np.flatnonzero(evidence.image[views.rows] == image)
        seen = box_iou(evidence.boxes_xyxy[views.rows[free]], truth.boxes_xyxy[missed])
        lost[free] = seen.max(1, initial=0) >= 0.4
    kinds = {"spurious": best < 0.2, "location": (best >= 0.2) & (best < 0.5)}
    kinds["swap"] = (best >= 0.5) & (shown != labels.label)
    wrong = np.any(list(kinds.values()), axis=0)
    return {
        **{kind: (views.labels, kinds[kind]) for kind in KINDS},
        prior.ANY: (views.labels, wrong),
        prior.LOST: (views.free, lost),
    }


def planted_rows(folder: Path, *, second: bool, opinions: bool) -> Rows:
    """Features and kind of errors planted in the exact labels, by a run's proposals."""
    run = Run.open(folder / "run")
    pictures = pictures_of(run)
    truth: Labels = read_labels(folder / "coco.json", pictures, run.labels).labels
    classes = len(run.labels.classes)
    found = [evidence_of_run(run, pictures, masks=False, boxes="mask").evidence]
    found += [read_second_look(run, pictures, classes)] if second else []
    evidence = joined(found, classes)
    if not opinions:
        evidence = replace(evidence, opinions=(), embeddings=None, mask_score=None)
    told = prior.relative(evidence, prior.usual_pivots(evidence, len(truth)), classes)
    taught = lessons_of(truth, told, pictures, seed=7)
    rows: Rows = {}
    for kind, code in KINDS.items():
        compared = (taught.kind == code) | (taught.kind == 0)
        rows[kind] = taught.features[compared], taught.kind[compared] == code
    rows[prior.ANY] = taught.features, taught.kind > 0
    rows[prior.LOST] = taught.free_features, taught.lost
    return rows


def rows_of(lesson: str, folders: list[Path], *, whole: bool) -> Rows:
    """All rows of a lesson; unless ``whole``, also as runs without classifier or segmenter would have them."""
    parts: list[Rows] = []
    for folder in folders:
        if lesson == "others":
            parts += [planted_rows(folder, second=s, opinions=o) for s in (True, False) for o in (True, False)]
            continue
        for without in ((),) if whole else ((), (), ("classifier",), ("segmenter",), ("classifier", "segmenter")):
            parts.append(own_rows(folder, second=lesson != "own", without=without))
    return {kind: tuple(np.concatenate([p[kind][i] for p in parts]) for i in (0, 1)) for kind in parts[0]}  # type: ignore[misc]


def fit(lesson: str, folders: list[Path]) -> dict[str, Logistic]:
    """Fit a lesson's regressions."""
    found = {}
    for kind, (x, y) in rows_of(lesson, folders, whole=False).items():
        model = Logistic.fit(x, y, ridge=RIDGE if lesson == "others" else OWN_RIDGE.get(kind, RIDGE))
        if lesson == "others":
            odds = logit(np.array([USUAL[kind], PLANTED * (3 if kind == prior.ANY else 1)]))
            weights = model.weights.copy()
            weights[0] += odds[0] - odds[1]
            model = replace(model, weights=weights)
        found[kind] = model
    return found


def _stripped(own: RunEvidence, without: tuple[str, ...]) -> RunEvidence:
    evidence, negative = own.evidence, own.negative
    if "classifier" in without:
        opinions = tuple((name, values) for name, values in evidence.opinions if name != CLASSIFIER)
        evidence, negative = replace(evidence, opinions=opinions, embeddings=None), np.zeros_like(negative)
    if "segmenter" in without:
        evidence = replace(evidence, mask_score=None)
    return RunEvidence(evidence, negative)


def _rounded(model: Logistic) -> dict[str, list[float]]:
    return {name: [float(f"{v:.5g}") for v in getattr(model, name)] for name in ("mean", "scale", "weights")}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", type=Path, nargs="+", required=True)
    parser.add_argument("--check", type=Path, nargs="+", required=True)
    parser.add_argument("--write", action="store_true", help="replace the product's file")
    arguments = parser.parse_args()
    from sklearn.metrics import roc_auc_score

    lessons: dict[str, Any] = {}
    checked: dict[str, Any] = {}
    for lesson in ("own", "own, second look", "others"):
        models = fit(lesson, arguments.fit)
        lessons[lesson] = {kind: _rounded(model) for kind, model in models.items()}
        for kind, (x, y) in rows_of(lesson, arguments.check, whole=True).items():
            p = sigmoid(models[kind].log_odds(x))
            flags, curve = p >= 0.5, reliability(p, y)
            right = float(y[flags].mean()) if flags.any() else float("nan")
            sys.stdout.write(
                f"{lesson}, {kind}: {len(y)} rows, {y.mean():.3f} wrong, AUROC {roc_auc_score(y, p):.3f}, "
                f"{flags.sum()} over 0.5, {right:.2f} of them right, {flags[y].mean():.2f} found, "
                f"calibration error {curve.error:.3f}\n"
            )
            if lesson != "others" and kind in (prior.ANY, prior.LOST):
                checked.setdefault(lesson, {})[kind] = asdict(curve)
    if arguments.write:
        path = Path(prior.__file__).with_name(prior.FILE)
        made_by = Run.open(arguments.fit[0] / "run").manifest.models
        models = {task: model.weights_sha256 for task, model in made_by.items()}
        known = {"models": models, "lessons": lessons, "checked": checked}
        path.write_text(json.dumps(known) + "\n")


if __name__ == "__main__":
    main()

"""All judgements of a pass: which evidence may judge which labels, and what becomes an issue."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from autolabel.quality.calibrate import reliability
from autolabel.quality.confident import confident_learning
from autolabel.quality.detection import KINDS, BoxScores, Overlooked, raw_scores, score_boxes
from autolabel.quality.further import add_conflicts, add_masks, add_outliers, add_pictures
from autolabel.quality.material import Labels
from autolabel.quality.opinions import MATCH_IOU, Opinions, opinions_of, raw_opinions
from autolabel.quality.own import class_probabilities, independent, own_proposal, score_own
from autolabel.quality.ragged import Flags, Ints, Reals
from autolabel.quality.table import IssueRows, Judged

if TYPE_CHECKING:
    from autolabel.quality.noise import Material, NoiseOptions

FEWEST_LABELS = 50
FEWEST_IMAGES = 10
_LIKELY = 0.4
_SURE = 0.3
_LEAST_DOUBT = 0.99
"""Unlabelled evidence is mostly background, so that even a small probability of an object says something."""


def judge(material: Material, options: NoiseOptions, on_step: Callable[[str], None]) -> Judged:
    """Judge labels, masks and pictures."""
    judged = Judged(IssueRows(material.pictures, material.names))
    labels = material.labels
    open_ = ~labels.crowd & (labels.label >= 0)
    if not options.people:
        open_ &= ~labels.human
        if kept := int((labels.human & ~labels.crowd).sum()):
            judged.notes.append(f"{kept} labels are people's decisions and were not judged; --people judges them too")
    on_step("boxes and labels")
    evidence_rows: Ints | None = None
    embeddings = material.evidence.embeddings
    if len(material.evidence):
        evidence_rows = _by_evidence(material, options, judged, open_)
    elif material.own is None:
        judged.notes.append("the evidence holds no box: boxes were not judged")
    if material.own is not None:
        own = own_proposal(labels, material.own.evidence, len(material.pictures))
        _by_other_opinion(material, judged, open_, own, boxes=not len(material.evidence))
        if embeddings is None:
            evidence_rows, embeddings = own, material.own.evidence.embeddings
    add_conflicts(material, judged)
    if evidence_rows is not None and embeddings is not None:
        on_step("outliers")
        add_outliers(material, judged, open_, evidence_rows, embeddings)
    if options.masks and labels.shapes is not None:
        on_step("masks")
        add_masks(material, judged, open_, evidence_rows)
    if options.images:
        on_step("pictures")
        add_pictures(material, judged)
    return judged


def _by_evidence(material: Material, options: NoiseOptions, judged: Judged, open_: Flags) -> Ints:
    labels, evidence, pictures = material.labels, material.evidence, material.pictures
    classes, names = len(material.names), material.names
    if min(len(labels), len(evidence)) < FEWEST_LABELS or len(pictures) < FEWEST_IMAGES:
        judged.notes.append(
            f"{len(labels)} labels of {len(pictures)} images and {len(evidence)} boxes of evidence are too few to "
            f"calibrate (at least {FEWEST_LABELS} and {FEWEST_IMAGES} are needed): the evidence's own scores were "
            "taken as probabilities"
        )
        opinions = raw_opinions(evidence, classes)
        boxes, overlooked = raw_scores(labels, opinions, pictures)
    else:
        opinions = opinions_of(evidence, labels, pictures, classes)
        boxes, overlooked = score_boxes(labels, opinions, pictures, options.seed)
        judged.shares |= boxes.share | {"overlooked": overlooked.share}
    if opinions.curve is not None:
        judged.curves["evidence"] = opinions.curve
    _box_issues(material, judged, open_, opinions, boxes)
    _overlooked_issues(material, judged, opinions, overlooked)
    place = np.where(boxes.support.iou >= MATCH_IOU, boxes.support.place, -1)
    if material.own is None:
        # A class is asked only of evidence that is likely to be about an object at all.
        rows = np.flatnonzero(open_ & (place >= 0))
        rows = rows[opinions.object[place[rows]] >= _SURE]
        who = " and ".join(name for name, _ in evidence.opinions) or ", ".join(evidence.names)
        _label_issues(judged, labels, names, rows, probabilities=opinions.distribution(place[rows]), who=who)
    return place


def _box_issues(material: Material, judged: Judged, open_: Flags, opinions: Opinions, boxes: BoxScores) -> None:
    labels, names, evidence = material.labels, material.names, opinions.evidence
    place, other, iou = boxes.support.place, boxes.support.other, boxes.support.iou
    total = np.sum([boxes.error[kind] for kind in KINDS], axis=0)
    likeliest = np.max([boxes.error[kind] for kind in KINDS], axis=0)
    there = np.where(place >= 0, opinions.object[place] if len(evidence) else 0, 0)
    better = evidence.boxes_xyxy[place] if len(evidence) else labels.boxes_xyxy

    def swap(row: int) -> str:
        named = names[other[row]] if other[row] >= 0 else "another class"
        return f"looks like {named} rather than {names[labels.label[row]]}"

    def location(row: int) -> str:
        return f"the {names[labels.label[row]]} seen here overlaps the box by IoU {iou[row]:.2f}"

    def spurious(row: int) -> str:
        if place[row] < 0 or iou[row] < 0.2:
            return f"nothing was seen here that a {names[labels.label[row]]} box could be about"
        return f"the best evidence for a {names[labels.label[row]]} here is weak ({there[row]:.0%} for any object)"

    reasons = {"swap": swap, "location": location, "spurious": spurious}
    for kind in KINDS:
        error = boxes.error[kind]
        flagged = open_ & (total >= _LIKELY) & (error >= likeliest)
        quality = np.where(open_, 1 - error, 1.0).astype(np.float32)
        judged.qualities[kind] = np.where(open_, quality, np.nan).astype(np.float32)
        judged.issues.add(
            kind,
            labels.image,
            quality,
            flagged,
            reasons[kind],
            ids=labels.ids,
            suggested=other if kind == "swap" else None,
            boxes_xyxy=np.where((place >= 0)[:, None], better, np.nan) if kind == "location" else None,
        )


def _overlooked_issues(material: Material, judged: Judged, opinions: Opinions, overlooked: Overlooked) -> None:
    rows = overlooked.rows
    evidence = opinions.evidence
    if material.closed.any():
        still = ~material.closed[evidence.image[rows]]
        overlooked = Overlooked(rows[still], overlooked.error[still], overlooked.share)
        rows = overlooked.rows
    sure = opinions.object[rows]
    label = opinions.likeliest(rows)
    judged.issues.add(
        "overlooked",
        evidence.image[rows],
        (1 - overlooked.error).astype(np.float32),
        overlooked.error >= _LIKELY,
        lambda row: f"a {material.names[label[row]]} was seen here ({sure[row]:.0%} sure) and has no label",
        suggested=label,
        boxes_xyxy=evidence.boxes_xyxy[rows],
        doubt=_LEAST_DOUBT,
    )


def _by_other_opinion(material: Material, judged: Judged, open_: Flags, own: Ints, *, boxes: bool) -> None:
    """Judge a run's labels by the opinion that did not make them."""
    assert material.own is not None
    labels, names = material.labels, material.names
    other = independent(material.own.evidence, material.assign)
    probabilities = class_probabilities(labels, other, own, len(names)) if len(other) else None
    if material.assign == "fused" and other.opinions:
        judged.notes.append("both models made the labels (assign = fused): each was compared with their product")
    if probabilities is None or len(names) < 2:
        why = "there is one class" if len(names) < 2 else "no opinion but the one that made them is stored"
        judged.notes.append(f"labels were not judged: {why}; pass --evidence, or store both opinions")
    else:
        rows = np.flatnonzero(open_ & (own >= 0))
        who = " and ".join(name for name, _ in other.opinions)
        _label_issues(judged, labels, names, rows, probabilities=probabilities[own[rows]], who=who)
    if not boxes:
        return
    scores = score_own(labels, material.own, own, material.pictures, classes=len(names), assign=material.assign)
    judged.notes.append(
        "swap and location need evidence from elsewhere (--evidence): the detector does not judge its own boxes"
    )
    if scores.spurious is None:
        judged.notes.append("too few annotations or rejects to compare: spurious and overlooked were not judged")
        return
    if scores.curve is not None:
        judged.curves["evidence"] = scores.curve
    error = scores.spurious
    judgeable = open_ & (own >= 0)
    judged.qualities["spurious"] = np.where(judgeable, 1 - error, np.nan).astype(np.float32)
    judged.issues.add(
        "spurious",
        labels.image,
        np.where(judgeable, 1 - error, 1.0).astype(np.float32),
        judgeable & (error >= _LIKELY),
        lambda row: "classifier and segmenter see here what they see in rejected proposals",
        ids=labels.ids,
    )
    evidence, rows = material.own.evidence, scores.rows
    still = ~material.closed[evidence.image[rows]]
    rows, missed = rows[still], scores.overlooked[still]
    label = evidence.label[rows]
    judged.issues.add(
        "overlooked",
        evidence.image[rows],
        (1 - missed).astype(np.float32),
        missed >= _LIKELY,
        lambda row: (
            f"a rejected proposal ({evidence.score[rows[row]]:.2f}) looks like the {names[label[row]]} labels to "
            "classifier and segmenter"
        ),
        suggested=label,
        boxes_xyxy=evidence.boxes_xyxy[rows],
        doubt=_LEAST_DOUBT,
    )


def _label_issues(
    judged: Judged, labels: Labels, names: tuple[str, ...], rows: Ints, *, probabilities: Reals, who: str
) -> None:
    given = labels.label[rows]
    verdicts = confident_learning(given, probabilities)
    judged.notes.append(f"label: {len(rows)} labels judged by {who}; {verdicts.method}")
    if verdicts.circular:
        judged.notes.append("label: probabilities that agree with every label tell nothing; none was flagged")
    elif len(rows):
        judged.curves["label"] = reliability(probabilities.max(1).astype(np.float64), verdicts.suggested == given)
    quality = np.full(len(labels), np.nan, np.float32)
    quality[rows] = verdicts.quality
    judged.qualities["label"] = quality

    def reason(row: int) -> str:
        first, second = int(verdicts.suggested[row]), int(given[row])
        if first == second:
            return f"{who}: {names[second]} at {verdicts.quality[row]:.0%} only"
        sure, given_sure = probabilities[row, first], verdicts.quality[row]
        return f"{who}: {names[first]} ({sure:.0%}) rather than {names[second]} ({given_sure:.0%})"

    judged.issues.add(
        "label",
        labels.image[rows],
        verdicts.quality,
        verdicts.flagged,
        reason,
        ids=[labels.ids[row] for row in rows],
        suggested=np.where(verdicts.suggested == given, -1, verdicts.suggested),
    )

"""All judgements of a pass: which evidence may judge which labels, and what becomes an issue."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from autolabel.quality.calibrate import reliability
from autolabel.quality.confident import confident_learning
from autolabel.quality.detection import KINDS, BoxScores, Overlooked, score_boxes
from autolabel.quality.further import add_conflicts, add_masks, add_outliers, add_pictures
from autolabel.quality.lessons import labels_left
from autolabel.quality.material import Evidence, Labels
from autolabel.quality.opinions import MATCH_IOU, Opinions, opinions_of
from autolabel.quality.own import class_probabilities, independent, own_proposal, score_own
from autolabel.quality.prior import ANY, LOST, Lesson, curves, relative, score_by_prior, usual_pivots, views_of
from autolabel.quality.ragged import Flags, Ints, Reals, pair_iou
from autolabel.quality.spots import one_a_place
from autolabel.quality.table import IssueRows, Judged

if TYPE_CHECKING:
    from autolabel.quality.noise import Material, NoiseOptions

FEWEST_LABELS = 200
FEWEST_IMAGES = 20
_LIKELY = 0.4
_LIKELY_BY_PRIOR = 0.5
_SURE = 0.3
_LEAST_DOUBT = 0.998
"""Unlabelled evidence is mostly background, so that even a small probability of an object says something."""
_MANY_DOUBTS = 200_000
_ELSEWHERE = "on generated pictures"


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
    own: Ints | None = None
    doubted: Flags | None = None
    if material.own is not None:
        own = own_proposal(labels, material.own.evidence, len(material.pictures))
    alone = material.own is not None and (material.again or not len(material.evidence))
    if own is not None and alone and (not material.strangers or _few(material)):
        doubted = _by_prior(material, judged, open_, own)
    elif len(material.evidence):
        evidence_rows = _by_evidence(material, options, judged, open_)
    elif own is None:
        judged.notes.append("the evidence holds no box: boxes were not judged")
    if own is not None and material.own is not None:
        _by_other_opinion(
            material, judged, open_, own, boxes=doubted is None and not len(material.evidence), doubted=doubted
        )
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
    likely = _LIKELY
    if _few(material):
        judged.notes.append(f"{_too_few(material)}: they were judged by comparisons that were learnt elsewhere")
        opinions = relative(evidence, usual_pivots(evidence, len(labels)), classes)
        views = views_of(labels, opinions, pictures)
        boxes, overlooked = score_by_prior("others", labels, views, pictures)
        likely = _LIKELY_BY_PRIOR
    else:
        opinions = opinions_of(evidence, labels, pictures, classes)
        boxes, overlooked = score_boxes(labels, opinions, pictures, options.seed)
        judged.shares |= boxes.share | {"overlooked": overlooked.share}
    if opinions.curve is not None:
        judged.curves["evidence"] = opinions.curve
    _box_issues(material, judged, open_, opinions, boxes=boxes, likely=likely)
    _overlooked_issues(material, judged, opinions, overlooked, likely=likely)
    place = np.where(boxes.support.iou >= MATCH_IOU, boxes.support.place, -1)
    if material.own is None:
        # A class is asked only of evidence that is likely to be about an object at all.
        rows = np.flatnonzero(open_ & (place >= 0))
        rows = rows[opinions.object[place[rows]] >= _SURE]
        who = " and ".join(name for name, _ in evidence.opinions) or ", ".join(evidence.names)
        # Two opinions flag a class: confident learning's, and half of what a flag of the box itself needs.
        doubted = np.asarray(np.sum([boxes.error[kind] for kind in KINDS], axis=0)) >= likely / 2
        _label_issues(
            judged, labels, names, rows, probabilities=opinions.distribution(place[rows]), who=who, doubted=doubted
        )
    return place


def _few(material: Material) -> bool:
    """Tell whether there is too little to learn from what is judged."""
    count = int((~material.labels.crowd).sum())
    if material.own is None or (len(material.evidence) and not material.again):
        count = min(count, len(material.evidence))
    return count < FEWEST_LABELS or len(material.pictures) < FEWEST_IMAGES


def _too_few(material: Material) -> str:
    return (
        f"{int((~material.labels.crowd).sum())} labels of {len(material.pictures)} images and "
        f"{len(material.evidence)} boxes of evidence are too few to learn from (at least {FEWEST_LABELS} and "
        f"{FEWEST_IMAGES} are needed)"
    )


def _by_prior(material: Material, judged: Judged, open_: Flags, own: Ints) -> Flags:
    """Judge a run's own boxes by what was learnt on pictures with exact labels; which are probably wrong ``(N,)``."""
    assert material.own is not None
    labels, pictures, classes = material.labels, material.pictures, len(material.names)
    lesson: Lesson = "own, second look" if material.again else "own"
    evidence = material.evidence if material.again else material.own.evidence
    opinions = relative(evidence, np.full(max(len(evidence.names), 1), material.threshold), classes)
    views = views_of(labels, opinions, pictures, material.own, own)
    boxes, overlooked = score_by_prior(lesson, labels, views, pictures)
    checked = curves()[lesson]
    judged.curves |= {f"boxes, {_ELSEWHERE}": checked[ANY], f"overlooked, {_ELSEWHERE}": checked[LOST]}
    judged.notes.append(
        "boxes were judged by comparisons learnt on generated pictures with exact labels (off by "
        f"{checked[ANY].error:.0%} on average there)"
        + (f"; this run's {_listed(material.strangers)} may err otherwise" if material.strangers else "")
    )
    if not material.again:
        judged.notes.append("no second look was taken: 'autolabel noise' takes it, and finds more")
    _box_issues(material, judged, open_, opinions, boxes=boxes, likely=_LIKELY_BY_PRIOR)
    _overlooked_issues(material, judged, opinions, overlooked, likely=_LIKELY_BY_PRIOR)
    return np.asarray(np.sum([boxes.error[kind] for kind in KINDS], axis=0)) >= _LIKELY_BY_PRIOR


def _listed(tasks: tuple[str, ...]) -> str:
    if len(tasks) == 1:
        return f"{tasks[0]} is another and"
    return f"{', '.join(tasks[:-1])} and {tasks[-1]} are others and"


def _box_issues(
    material: Material, judged: Judged, open_: Flags, opinions: Opinions, *, boxes: BoxScores, likely: float
) -> None:
    labels, names, evidence = material.labels, material.names, opinions.evidence
    place, other = boxes.support.place, boxes.support.other
    total = np.sum([boxes.error[kind] for kind in KINDS], axis=0)
    likeliest = np.max([boxes.error[kind] for kind in KINDS], axis=0)
    there = np.where(place >= 0, opinions.object[place] if len(evidence) else 0, 0)
    better = evidence.boxes_xyxy[place] if len(evidence) else labels.boxes_xyxy
    iou = np.where(place >= 0, pair_iou(labels.shown_xyxy, better), 0)

    def swap(row: int) -> str:
        named = names[other[row]] if other[row] >= 0 else "another class"
        return f"looks like {named} rather than {names[labels.label[row]]}"

    def location(row: int) -> str:
        return f"the {names[labels.label[row]]} seen here overlaps the box by IoU {iou[row]:.2f}"

    def spurious(row: int) -> str:
        if place[row] < 0 or iou[row] < 0.2:
            return f"nothing was seen here that a {names[labels.label[row]]} box could be about"
        sure = f" ({there[row]:.0%} for any object)" if opinions.curve is not None else ""
        return f"the best evidence for a {names[labels.label[row]]} here is weak{sure}"

    reasons = {"swap": swap, "location": location, "spurious": spurious}
    who = _who(material)
    for kind in KINDS:
        error = boxes.error[kind]
        flagged = open_ & (total >= likely) & (error >= likeliest)
        quality = np.where(open_, 1 - error, 1.0).astype(np.float32)
        judged.qualities[kind] = np.where(open_, quality, np.nan).astype(np.float32)
        judged.issues.add(
            kind,
            labels.image,
            quality,
            flagged,
            lambda row, say=reasons[kind]: say(row) + who,  # type: ignore[misc]
            ids=labels.ids,
            suggested=other if kind == "swap" else None,
            boxes_xyxy=np.where((place >= 0)[:, None], better, np.nan) if kind == "location" else None,
        )


def _who(material: Material) -> str:
    """Say of a reason that it comes from the detector that made the labels, which is weaker evidence than another."""
    if material.own is None or (len(material.evidence) and not material.again):
        return ""
    return " (second look by the same detector)" if material.again else " (by all proposals of the run)"


def _overlooked_issues(
    material: Material, judged: Judged, opinions: Opinions, overlooked: Overlooked, *, likely: float
) -> None:
    rows = overlooked.rows
    evidence = opinions.evidence
    if overlooked.lacking is not None:
        _add_incomplete(material, judged, overlooked.lacking)
    if material.closed.any():
        still = ~material.closed[evidence.image[rows]]
        overlooked = Overlooked(rows[still], overlooked.error[still], overlooked.share)
        rows = overlooked.rows
    sure = opinions.object[rows]
    label = opinions.likeliest(rows)
    who = _who(material)

    def reason(row: int) -> str:
        calibrated = f" ({sure[row]:.0%} sure)" if opinions.curve is not None else ""
        return f"a {material.names[label[row]]} was seen here{calibrated} and has no label{who}"

    judged.issues.add(
        "overlooked",
        evidence.image[rows],
        (1 - overlooked.error).astype(np.float32),
        _flagged(evidence, rows, label, error=overlooked.error, likely=likely, images=len(material.pictures)),
        reason,
        suggested=label,
        boxes_xyxy=evidence.boxes_xyxy[rows],
        doubt=_LEAST_DOUBT if len(rows) < _MANY_DOUBTS else 0.99,
    )


def _flagged(evidence: Evidence, rows: Ints, label: Ints, *, error: Reals, likely: float, images: int) -> Flags:
    """Flag likely gaps ``(C,)``, one a place; rows of lesser doubts cost nothing."""
    flagged = error >= likely
    chosen = np.flatnonzero(flagged)
    flagged[chosen] = one_a_place(evidence, rows[chosen], label[chosen], error[chosen], images)
    return flagged


def _add_incomplete(material: Material, judged: Judged, lacking: Reals) -> None:
    """Rank whole images by how likely they lack a label; never a flag, as there is nothing to point at."""
    given = labels_left(material.labels, len(material.pictures))
    judged.issues.add(
        "incomplete",
        np.arange(len(lacking)),
        np.where(material.closed, 1.0, 1 - lacking).astype(np.float32),
        np.zeros(len(lacking), np.bool_),
        lambda row: f"{given[row]} labels, and probably ({lacking[row]:.0%}) an object without one",
        doubt=_LEAST_DOUBT,
    )


def _by_other_opinion(
    material: Material, judged: Judged, open_: Flags, own: Ints, *, boxes: bool, doubted: Flags | None
) -> None:
    """Judge a run's labels by the opinion that did not make them; ``doubted`` ``(N,)``: which are probably wrong."""
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
        _label_issues(judged, labels, names, rows, probabilities=probabilities[own[rows]], who=who, doubted=doubted)
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
        _flagged(evidence, rows, label, error=missed, likely=_LIKELY, images=len(material.pictures)),
        lambda row: (
            f"a rejected proposal ({evidence.score[rows[row]]:.2f}) looks like the {names[label[row]]} labels to "
            "classifier and segmenter"
        ),
        suggested=label,
        boxes_xyxy=evidence.boxes_xyxy[rows],
        doubt=_LEAST_DOUBT if len(rows) < _MANY_DOUBTS else 0.99,
    )


def _label_issues(
    judged: Judged,
    labels: Labels,
    names: tuple[str, ...],
    rows: Ints,
    *,
    probabilities: Reals,
    who: str,
    doubted: Flags | None = None,
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
        # Where it is known how often such labels are wrong, a difference of opinion alone is no flag.
        verdicts.flagged if doubted is None else verdicts.flagged & doubted[rows],
        reason,
        ids=[labels.ids[row] for row in rows],
        suggested=np.where(verdicts.suggested == given, -1, verdicts.suggested),
    )

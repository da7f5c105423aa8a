"""Issues of masks, pictures and regions: everything but the boxes and labels themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autolabel.quality.conflicts import find_conflicts
from autolabel.quality.masks import as_mask, mask_iou, mask_quality
from autolabel.quality.outliers import find_outliers
from autolabel.quality.pictures import PictureIssue, find_picture_issues
from autolabel.quality.ragged import Flags, Ints, Reals
from autolabel.quality.table import Judged
from autolabel.types import Box

if TYPE_CHECKING:
    from autolabel.quality.noise import Material


def add_conflicts(material: Material, judged: Judged) -> None:
    """Add labels that contradict each other."""
    labels = material.labels
    found = find_conflicts(labels, len(material.pictures), material.names)
    judged.issues.add(
        "conflict",
        labels.image[found.first],
        found.quality,
        found.flagged,
        lambda row: found.reasons[row],
        ids=[labels.ids[row] for row in found.first],
        related=lambda row: [labels.ids[found.second[row]]],
    )


def add_outliers(material: Material, judged: Judged, open_: Flags, place: Ints, embeddings: Reals) -> None:
    """Add regions that look like no other."""
    labels = material.labels
    rows = np.flatnonzero(open_ & (place >= 0))
    found = find_outliers(embeddings[place[rows]])
    if found is None:
        judged.notes.append(f"{len(rows)} embeddings are too few to look for outliers")
        return
    quality, flagged = found
    judged.issues.add(
        "outlier",
        labels.image[rows],
        np.where(flagged, quality, 1.0),
        flagged,
        lambda row: f"this {material.names[labels.label[rows[row]]]} looks like no other region",
        ids=[labels.ids[row] for row in rows],
    )


def add_masks(material: Material, judged: Judged, open_: Flags, place: Ints | None) -> None:
    """Add masks that are empty, untidy, off their box, or that another mask contradicts."""
    labels, pictures = material.labels, material.pictures
    assert labels.shapes is not None
    rows, masks = [], []
    for row in np.flatnonzero(open_):
        width, height = (int(value) for value in pictures.sizes_wh[labels.image[row]])
        mask = as_mask(labels.shapes[row], (width, height))
        if mask is not None:
            rows.append(int(row))
            masks.append(mask)
    agreement: dict[int, float] = {}
    others = material.evidence.masks
    if others is not None and place is not None:
        compared = [(i, other) for i, row in enumerate(rows) if place[row] >= 0 and (other := others[place[row]])]
        values = mask_iou([(masks[i], other) for i, other in compared])
        usual = _usual([labels.label[rows[i]] for i, _ in compared], values)
        agreement = {
            i: float(value / max(usual[labels.label[rows[i]]], 0.05))
            for (i, _), value in zip(compared, values, strict=True)
        }
    quality = np.full(len(labels), np.nan, np.float32)
    flagged, reasons = np.zeros(len(labels), np.bool_), {}
    for i, (row, mask) in enumerate(zip(rows, masks, strict=True)):
        score = None if labels.mask_scores is None else float(labels.mask_scores[row])
        found = mask_quality(mask, Box(*labels.boxes_xyxy[row].tolist()), score, agreement.get(i))
        quality[row], flagged[row], reasons[row] = found.quality, found.flagged, found.reason
    judged.qualities["mask"] = quality
    judged.issues.add(
        "mask",
        labels.image,
        np.where(flagged, quality, 1.0),
        flagged,
        lambda row: reasons[row],
        ids=labels.ids,
    )


def _usual(classes: list[int], values: Reals) -> dict[int, float]:
    """Median agreement of each class: thin things agree less than round ones."""
    return {k: float(np.median(values[[c == k for c in classes]])) for k in set(classes)}


def add_pictures(material: Material, judged: Judged) -> None:
    """Add duplicates and pictures that are hard to label; notes say what could not be judged."""
    if material.read is None:
        judged.notes.append("pictures were not read (no run and no --images): duplicates and image problems not judged")
        return
    try:
        found, unread = find_picture_issues(material.pictures, material.read)
    except ImportError:
        judged.notes.append(
            'pictures were not judged: cleanvision is not installed; pip install "autolabel-vision[noise]"'
        )
        return
    if unread:
        judged.notes.append(f"{unread} pictures could not be read and were not judged")
    by_kind: dict[str, list[PictureIssue]] = {}
    for issue in found:
        by_kind.setdefault(issue.kind, []).append(issue)
    for kind, issues in by_kind.items():
        _add_pictures(judged, kind, issues)


def _add_pictures(judged: Judged, kind: str, issues: list[PictureIssue]) -> None:
    judged.issues.add(
        kind,
        np.array([issue.place for issue in issues]),
        np.array([issue.quality for issue in issues]),
        np.array([issue.flagged for issue in issues]),
        lambda row: issues[row].reason,
        related=lambda row: issues[row].related,
    )

"""The rules of a sync, as arithmetic on one image: what people did to our regions, and what a push may then do.

A region that a person made, moved, relabelled or deleted is theirs; a push changes only what is as we left it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from autolabel.corrections import SAME_OBJECT_IOU, overlap_iou
from autolabel.ontology import normalise
from autolabel.types import Action, Annotation, Box, Correction, Image
from autolabel_connectors.receipts import Receipt
from autolabel_connectors.shapes import Region, digest

_NAMESPACE = uuid.UUID("0d1f6f9a-3c55-5b0e-8f3a-6a4b7c2d9e11")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What became of one image's regions since they were pushed."""

    untouched: tuple[tuple[Receipt, Region], ...] = ()
    edited: tuple[tuple[Receipt, Region], ...] = ()
    deleted: tuple[Receipt, ...] = ()
    added: tuple[Region, ...] = ()

    @property
    def touched(self) -> bool:
        """Whether a person changed anything."""
        return bool(self.edited or self.deleted or self.added)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a push does to one image's regions; ``kept`` counts regions left alone because a person's work stands."""

    create: tuple[Annotation, ...] = ()
    update: tuple[tuple[Annotation, Receipt, Region], ...] = ()
    delete: tuple[tuple[Receipt, Region], ...] = ()
    same: int = 0
    kept: int = 0

    @property
    def empty(self) -> bool:
        """Whether nothing has to be sent."""
        return not (self.create or self.update or self.delete)


def shape_digest(region: Region) -> str:
    """Stand for a region's geometry alone, so that a change of label can be told from a change of shape."""
    return digest(region, with_label=False)


def added_id(source: str, task: str, remote_id: str) -> str:
    """Return the id of a region that a person made: the same each time it is pulled."""
    return str(uuid.uuid5(_NAMESPACE, f"{source}\n{task}\n{remote_id}"))


def compare(receipts: Sequence[Receipt], regions: Sequence[Region]) -> Comparison:
    """Tell what people did to one image's regions.

    Regions are found by the tool's id, then by the annotation id they carry (an import gives new ids), then, where one
    of ours is gone and a new one of a person lies on it (IoU above 0.5), as its replacement: drawn anew, in another
    kind perhaps. A region of ours that was made into something without an area counts as deleted.
    """
    pairs: list[tuple[Receipt, Region]] = []
    lost, rest = list(receipts), list(regions)
    for pairing in (_by_remote_id, _by_annotation_id, _by_place):
        found = pairing(lost, rest)
        pairs += [(lost[i], rest[j]) for i, j in found]
        lost = [receipt for i, receipt in enumerate(lost) if i not in {i for i, _ in found}]
        rest = [region for j, region in enumerate(rest) if j not in {j for _, j in found}]
    return Comparison(
        untouched=tuple(pair for pair in pairs if _same(*pair)),
        edited=tuple(pair for pair in pairs if not _same(*pair) and pair[1].box is not None),
        deleted=(*lost, *(receipt for receipt, region in pairs if region.box is None and not _same(receipt, region))),
        added=tuple(rest),
    )


def plan(
    annotations: Sequence[Annotation],
    comparison: Comparison,
    payload_of: Callable[[Annotation], str],
    *,
    own_ids: Collection[str] = (),
    closed: bool = False,
) -> Plan:
    """Decide what a push does to one image.

    ``annotations`` are the run's effective ones. ``payload_of`` stands for all that would be sent about one, to be
    compared with the receipt's. ``own_ids`` are ids of annotations that came from this project in the first place
    (`added_id` of its regions). ``closed``: people are done with the image, nothing is changed.
    """
    known = {annotation.id: annotation for annotation in annotations}
    if closed:
        total = len(comparison.untouched) + len(comparison.edited) + len(comparison.added)
        return Plan(kept=total)
    update: list[tuple[Annotation, Receipt, Region]] = []
    delete: list[tuple[Receipt, Region]] = []
    same = 0
    for receipt, region in comparison.untouched:
        annotation = known.get(receipt.annotation_id)
        if annotation is None:
            delete.append((receipt, region))
        elif payload_of(annotation) != receipt.payload:
            update.append((annotation, receipt, region))
        else:
            same += 1
    decided = {receipt.annotation_id for receipt, _ in (*comparison.untouched, *comparison.edited)}
    decided |= {receipt.annotation_id for receipt in comparison.deleted} | set(own_ids)
    people = [region for _, region in comparison.edited] + list(comparison.added)
    claimed = [region.box for region in people if region.box is not None]
    claimed += [receipt.box for receipt in comparison.deleted]
    create = tuple(
        annotation
        for annotation in annotations
        if annotation.id not in decided and (annotation.origin == "human" or not _lies_on(annotation.box, claimed))
    )
    return Plan(create, tuple(update), tuple(delete), same, len(comparison.edited) + len(comparison.added))


def corrections_of(
    image: Image,
    comparison: Comparison,
    *,
    source: str,
    task: str,
    accepted: bool,
    by: str | None = None,
    at: str = "",
    seconds: float | None = None,
    effective: bool = True,
) -> list[Correction]:
    """Turn a comparison into records; with ``accepted`` (a person is done with the image) untouched regions too.

    A region whose shape nobody changed keeps the run's own geometry, finer than what a tool returns. An added region
    without a label or an area becomes no record; the caller warns of it.
    """
    shared: dict[str, Any] = {
        "path": image.path,
        "image_id": image.id,
        "by": by,
        "at": at,
        "source": source,
        "seconds": seconds,
        "effective": effective,
    }
    unchanged = comparison.untouched if accepted else ()
    return [
        *(_correction("accepted", receipt, region, shared) for receipt, region in unchanged),
        *(_correction("edited", receipt, region, shared) for receipt, region in comparison.edited),
        *(_correction("deleted", receipt, None, shared) for receipt in comparison.deleted),
        *(
            Correction(
                "added",
                annotation_id=added_id(source, task, region.remote_id),
                label=region.label,
                box=region.box,
                mask=region.mask,
                **shared,
            )
            for region in comparison.added
            if region.box is not None and region.label is not None and region.problem is None
        ),
    ]


def _correction(action: Action, receipt: Receipt, region: Region | None, shared: dict[str, Any]) -> Correction:
    label = box = mask = iou = None
    if region is not None and region.box is not None:
        # A region without a label (its class was deleted, say) is still the person's shape; the class is ours to keep.
        label = receipt.label if region.label is None else region.label
        same_shape = shape_digest(region) == receipt.digest
        box, mask = (receipt.box, receipt.mask) if same_shape else (region.box, region.mask)
        iou = 1.0 if same_shape else overlap_iou((receipt.box, receipt.mask), (region.box, region.mask))
    return Correction(
        action,
        annotation_id=receipt.annotation_id,
        label=label,
        box=box,
        mask=mask,
        before_label=receipt.label,
        before_box=receipt.box,
        before_mask=receipt.mask,
        before_score=receipt.score,
        iou=iou,
        **shared,
    )


def _same(receipt: Receipt, region: Region) -> bool:
    same_label = region.label is not None and normalise(region.label) == normalise(receipt.label)
    return same_label and shape_digest(region) == receipt.digest


def _by_remote_id(receipts: Sequence[Receipt], regions: Sequence[Region]) -> list[tuple[int, int]]:
    places = {uid: j for j, region in enumerate(regions) for uid in (region.remote_id, *region.part_ids)}
    return _first_come(
        (i, next((places[uid] for uid in receipt.remote_ids if uid in places), None))
        for i, receipt in enumerate(receipts)
    )


def _by_annotation_id(receipts: Sequence[Receipt], regions: Sequence[Region]) -> list[tuple[int, int]]:
    places: dict[str, int] = {}
    for j, region in enumerate(regions):
        if region.annotation_id is not None:
            places.setdefault(region.annotation_id, j)
    return _first_come((i, places.get(receipt.annotation_id)) for i, receipt in enumerate(receipts))


def _by_place(receipts: Sequence[Receipt], regions: Sequence[Region]) -> list[tuple[int, int]]:
    overlaps = [
        (overlap_iou((receipt.box, None), (region.box, None)), i, j)
        for i, receipt in enumerate(receipts)
        for j, region in enumerate(regions)
        if region.box is not None
    ]
    best = sorted(overlaps, key=lambda found: (-found[0], found[1], found[2]))
    return _first_come((i, j) for iou, i, j in best if iou > SAME_OBJECT_IOU)


def _first_come(wishes: Iterable[tuple[int, int | None]]) -> list[tuple[int, int]]:
    """Take each wish whose receipt and region are still free."""
    pairs: dict[int, int] = {}
    for i, j in wishes:
        if j is not None and i not in pairs and j not in pairs.values():
            pairs[i] = j
    return list(pairs.items())


def _lies_on(box: Box, claimed: Sequence[Box]) -> bool:
    return any(overlap_iou((box, None), (other, None)) > SAME_OBJECT_IOU for other in claimed)

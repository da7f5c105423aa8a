"""What became of our regions on a task, image by image: ours and people's, told apart by receipts and by the ledger."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from autolabel.types import Image
from autolabel_connectors.cvat.client import Row
from autolabel_connectors.cvat.compose import Composer, Wanted, part_digest, same_notes
from autolabel_connectors.cvat.convert import from_shapes
from autolabel_connectors.cvat.held import HeldTask
from autolabel_connectors.cvat.labels import ANNOTATION_ID, MODEL, NONE, Labels
from autolabel_connectors.cvat.ledger import Intent, Ledger, read_ledger
from autolabel_connectors.merge import Comparison, compare, shape_digest
from autolabel_connectors.receipts import Receipt, Receipts
from autolabel_connectors.shapes import Region


@dataclass(slots=True)
class HeldImage:
    """One image's regions against its receipts; ``put`` and ``drop`` bring the receipts up to date.

    ``twins`` are shapes that a network delivered twice. ``foreign`` counts another run's untouched regions.
    """

    comparison: Comparison
    shapes: Mapping[str, Row]
    put: list[Receipt] = field(default_factory=list)
    drop: list[Receipt] = field(default_factory=list)
    twins: list[Row] = field(default_factory=list)
    foreign: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """A task as it was read, beside what is known of our own last requests to it.

    ``done`` are the numbers of the requests that were certainly carried out. ``homes`` gives the path of each
    annotation that is known: one that turns up elsewhere is a person's copy of it.
    """

    held: HeldTask
    composer: Composer
    homes: Mapping[str, str]
    ledger: Ledger
    done: Collection[int]

    def at(self, frame: int, image: Image, receipts: Sequence[Receipt], wanted: Wanted | None) -> HeldImage:
        """Tell what people did to one image's regions, settling first what became of our own last requests."""
        labels, task = self.composer.labels, self.held.id
        receipts = [r for r in receipts if r.image_id == image.id and r.remote_task == str(task)]
        intents = {uid: intent for (path, uid), intent in self.ledger.items() if path == image.path}
        ids = {part: receipt.annotation_id for receipt in receipts for part in receipt.remote_ids}
        shapes, twins = _without_twins(self.held.shapes.get(frame, []), ids, labels)
        by_id = {str(shape["id"]): shape for shape in shapes}
        for uid, intent in intents.items():
            if intent.deed == "create":
                ids |= _created(uid, intent.parts, shapes, ids, labels)
        regions = [self._copy_told(region, image) for region in from_shapes(shapes, image, labels, ids)]
        found = {region.annotation_id: region for region in regions if region.annotation_id is not None}
        seen = HeldImage(Comparison(), by_id, twins=twins)
        known = {receipt.annotation_id: receipt for receipt in receipts}
        for uid, intent in intents.items():
            _settle(seen, known, intent, found.get(uid), shapes=by_id, done_batches=self.done)
        ours: list[Region] = []
        for region in regions:
            owner = region.annotation_id
            if owner is None or owner in known:
                ours.append(region)
                continue
            made = _rebuilt(region, image, self.composer, wanted, task=task, shapes=by_id)
            if made is not None:
                known[owner] = made
                seen.put.append(made)
                ours.append(region)
            elif region.origin == "prediction":
                seen.foreign += 1
            else:
                ours.append(replace(region, annotation_id=None))
        seen.comparison = compare(list(known.values()), ours)
        return seen

    def _copy_told(self, region: Region, image: Image) -> Region:
        """Give a copy of one of our regions to the person who made it; CVAT lets it keep our id, and the source too."""
        owner = region.annotation_id
        if owner is not None and self.homes.get(owner, image.path) == image.path:
            return region
        carried = region.attributes.get(ANNOTATION_ID, NONE) not in ("", NONE)
        return replace(region, annotation_id=None, origin="manual") if owner is not None or carried else region


def look_over(
    held: HeldTask,
    receipts: Receipts,
    composer: Composer,
    homes: Mapping[str, str],
    answered: Iterable[int] = (),
) -> Look:
    """Look at a task as it was read; ``answered`` are requests of this process that the server confirmed."""
    ledger = read_ledger(receipts, held.id)
    return Look(held, composer, homes, ledger, {*_batches_done(ledger, held, composer.labels), *answered})


def homes_of(receipts: Iterable[Receipt]) -> dict[str, str]:
    """Return the path of the image that each annotation of ours belongs to."""
    return {receipt.annotation_id: receipt.path for receipt in receipts}


def _batches_done(ledger: Ledger, held: HeldTask, labels: Labels) -> set[int]:
    """Batches of new regions of which at least one is on the server: then all were."""
    present = {_owner(shape, labels) for shapes in held.shapes.values() for shape in shapes}
    present |= {part_digest(shape) for shapes in held.shapes.values() for shape in shapes} if ledger else set()
    return {
        intent.batch
        for (_, uid), intent in ledger.items()
        if intent.deed == "create" and (uid in present or intent.parts & present)
    }


def _settle(  # noqa: PLR0912, one branch for each thing that may have become of a request
    held: HeldImage,
    known: dict[str, Receipt],
    intent: Intent,
    region: Region | None,
    *,
    shapes: Mapping[str, Row],
    done_batches: Collection[int],
) -> None:
    """Bring the receipt of one annotation up to what became of an intent."""
    receipt = intent.receipt
    uid = receipt.annotation_id
    if intent.deed == "create":
        if uid in known:
            return
        if region is not None:
            known[uid] = replace(receipt, remote_ids=region.part_ids)
        elif intent.batch in done_batches:
            known[uid] = receipt  # it was there, and a person has deleted it since
        else:
            return
    elif intent.deed == "delete":
        if region is None and uid in known:
            held.drop.append(known.pop(uid))
        return
    else:
        if region is None or region.origin != "prediction":
            return
        if not all(part_digest(shapes[part]) in intent.parts for part in region.part_ids):
            return
        if shape_digest(region) == receipt.digest and region.label == receipt.label:
            # Without an answer nobody knows whether the attributes arrived too: an empty payload has them sent again.
            payload = receipt.payload if intent.batch in done_batches else ""
            known[uid] = replace(receipt, remote_ids=region.part_ids, payload=payload)
        elif uid in known and shape_digest(region) != known[uid].digest:
            # Halfway between two requests of ours: machine-made still, and to be sent again.
            half = replace(known[uid], digest=shape_digest(region), payload="", remote_ids=region.part_ids)
            known[uid] = replace(half, label=region.label or half.label)
        else:
            return
    held.put.append(known[uid])


def _without_twins(shapes: Sequence[Row], ids: Mapping[str, str], labels: Labels) -> tuple[list[Row], list[Row]]:
    """Set aside shapes of ours that are there twice, all the same but for their id: a request was delivered twice."""
    kept: list[Row] = []
    twins: list[Row] = []
    seen: set[tuple[str, str]] = set()
    for shape in sorted(shapes, key=lambda shape: (str(shape["id"]) not in ids, int(shape["id"]))):
        owner = _owner(shape, labels)
        key = (owner, part_digest(shape)) if owner else None
        if key is not None and key in seen and str(shape["id"]) not in ids and shape.get("source") == "auto":
            twins.append(shape)
            continue
        if key is not None:
            seen.add(key)
        kept.append(shape)
    return kept, twins


def _owner(shape: Row, labels: Labels) -> str:
    """Return the annotation id that a shape carries, empty where it carries none."""
    label = labels.by_id.get(shape.get("label_id", -1))
    spec = label.attributes.get(ANNOTATION_ID) if label else None
    if spec is None:
        return ""
    value = next((str(a["value"]) for a in shape.get("attributes") or () if a["spec_id"] == spec.id), "")
    return "" if value == NONE else value


def _created(
    uid: str, parts: frozenset[str], shapes: Sequence[Row], ids: Mapping[str, str], labels: Labels
) -> dict[str, str]:
    """Find the shapes of a new annotation by what was sent, for labels that have no place for its id."""
    found: dict[str, str] = {}
    missing = set(parts)
    for shape in shapes:
        digest = part_digest(shape)
        if digest in missing and str(shape["id"]) not in ids and _owner(shape, labels) in ("", uid):
            found[str(shape["id"])] = uid
            missing.discard(digest)
    return {} if missing else found


def _rebuilt(
    region: Region, image: Image, composer: Composer, wanted: Wanted | None, *, task: int, shapes: Mapping[str, Row]
) -> Receipt | None:
    """Make the receipt of a region that carries our id and has none; None where it is not of this run.

    Where the run still has the annotation, the region counts as untouched if it is drawn in a way that we may have
    drawn it; else a person changed it, and the receipt says what we would have sent.
    """
    owner, box = region.annotation_id, region.box
    assert owner is not None
    if wanted is not None and owner in wanted.annotations:
        receipt = composer.receipt(wanted, owner, task, region.part_ids)
        digest = shape_digest(region)
        if digest == receipt.digest and region.label == receipt.label:
            same = same_notes(wanted.shapes[owner], [shapes[part] for part in region.part_ids])
            return receipt if same or region.origin != "prediction" else replace(receipt, payload="")
        drawn = digest in composer.digests(wanted, owner)
        if drawn and region.origin == "prediction":
            return replace(receipt, digest=digest, label=region.label or receipt.label, payload="")
        return receipt
    if region.origin != "prediction" or box is None or region.label is None:
        return None
    if region.attributes.get(MODEL) != composer.version:
        return None
    return Receipt(
        path=image.path,
        image_id=image.id,
        annotation_id=owner,
        remote_task=str(task),
        remote_ids=region.part_ids,
        digest=shape_digest(region),
        payload="",
        label=region.label,
        box=box,
        mask=region.mask,
        score=region.score,
        model_version=composer.version,
    )

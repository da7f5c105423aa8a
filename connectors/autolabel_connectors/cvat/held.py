"""What a CVAT task holds of ours and of people's, image by image, told apart by receipts and by the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from autolabel.types import Image
from autolabel_connectors.cvat.client import Cvat, Row
from autolabel_connectors.cvat.compose import Composer, Wanted, part_digest, same_notes
from autolabel_connectors.cvat.convert import from_shapes
from autolabel_connectors.cvat.labels import ANNOTATION_ID, MODEL, NONE, Labels
from autolabel_connectors.cvat.ledger import Intent, Ledger
from autolabel_connectors.merge import Comparison, compare, shape_digest
from autolabel_connectors.receipts import Receipt
from autolabel_connectors.shapes import Region


@dataclass(frozen=True, slots=True)
class HeldTask:
    """All that was read of a task: shapes by frame, how many tags and tracks there are by frame, its jobs."""

    id: int
    shapes: Mapping[int, list[Row]]
    others: Mapping[int, int]
    jobs: tuple[Row, ...]

    def job_of(self, frame: int) -> Row | None:
        """Return the job that shows a frame."""
        return next((job for job in self.jobs if job["start_frame"] <= frame <= job["stop_frame"]), None)

    def closed(self, frame: int) -> bool:
        """Whether people are done with a frame, or at reviewing it."""
        job = self.job_of(frame)
        return job is not None and (job["state"] == "completed" or job["stage"] in ("validation", "acceptance"))

    def complete(self, frame: int) -> bool:
        """Whether a person said that all on a frame is as it should be."""
        job = self.job_of(frame)
        if job is None or job["state"] == "rejected":
            return False
        return bool(job["state"] == "completed" or job["stage"] == "acceptance")


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


def read_task(server: Cvat, task: int) -> HeldTask:
    """Read a task; jobs that hold consensus replicas or ground truth are not ours to look at."""
    jobs = [job for job in server.listed("/api/jobs", task_id=task) if job.get("type") in (None, "annotation")]
    values = server.annotations(task)
    shapes: dict[int, list[Row]] = {}
    for shape in values.get("shapes") or ():
        shapes.setdefault(int(shape["frame"]), []).append(shape)
    others: dict[int, int] = {}
    for row in (*(values.get("tags") or ()), *(values.get("tracks") or ())):
        others[int(row["frame"])] = others.get(int(row["frame"]), 0) + 1
    first = {}
    for job in jobs:
        if not job.get("parent_job_id"):
            first[job["start_frame"], job["stop_frame"]] = job
    return HeldTask(task, shapes, others, tuple(first.values()))


def look_at(
    image: Image,
    shapes: Sequence[Row],
    receipts: Sequence[Receipt],
    *,
    ledger: Ledger,
    done_batches: set[int],
    composer: Composer,
    wanted: Wanted | None,
    task: int,
    homes: Mapping[str, str],
) -> HeldImage:
    """Tell what people did to one image's regions, settling first what became of our own last requests.

    ``homes`` gives the path of each annotation that is known: one that turns up elsewhere is a person's copy of it.
    """
    labels = composer.labels
    receipts = [r for r in receipts if r.image_id == image.id and r.remote_task == str(task)]
    intents = {uid: intent for (path, uid), intent in ledger.items() if path == image.path}
    ids = {part: receipt.annotation_id for receipt in receipts for part in receipt.remote_ids}
    shapes, twins = _without_twins(shapes, ids, labels)
    by_id = {str(shape["id"]): shape for shape in shapes}
    for uid, intent in intents.items():
        if intent.deed == "create":
            ids |= _created(uid, intent.parts, shapes, ids, labels)
    regions = [_copy_told(region, image, homes) for region in from_shapes(shapes, image, labels, ids)]
    found = {region.annotation_id: region for region in regions if region.annotation_id is not None}
    held = HeldImage(Comparison(), by_id, twins=twins)
    known = {receipt.annotation_id: receipt for receipt in receipts}
    for uid, intent in intents.items():
        _settle(held, known, intent, found.get(uid), shapes=by_id, done_batches=done_batches)
    ours: list[Region] = []
    for region in regions:
        owner = region.annotation_id
        if owner is None or owner in known:
            ours.append(region)
            continue
        made = _rebuilt(region, image, composer, wanted, task=task, shapes=by_id)
        if made is not None:
            known[owner] = made
            held.put.append(made)
            ours.append(region)
        elif region.origin == "prediction":
            held.foreign += 1
        else:
            ours.append(replace(region, annotation_id=None))
    held.comparison = compare(list(known.values()), ours)
    return held


def homes_of(receipts: Iterable[Receipt], wanted: Iterable[Wanted] = ()) -> dict[str, str]:
    """Return the path of the image that each annotation of ours belongs to."""
    homes = {uid: image.image.path for image in wanted for uid in image.annotations}
    return homes | {receipt.annotation_id: receipt.path for receipt in receipts}


def _copy_told(region: Region, image: Image, homes: Mapping[str, str]) -> Region:
    """Give a copy of one of our regions to the person who made it; CVAT lets it keep our id, and the source too."""
    owner = region.annotation_id
    if owner is not None and homes.get(owner, image.path) == image.path:
        return region
    carried = region.attributes.get(ANNOTATION_ID, NONE) not in ("", NONE)
    return replace(region, annotation_id=None, origin="manual") if owner is not None or carried else region


def batches_done(ledger: Ledger, held: HeldTask, labels: Labels) -> set[int]:
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
    done_batches: set[int],
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

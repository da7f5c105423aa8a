"""Bringing a dataset up to date with its run: what changed is written, what a reviewer left there is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from autolabel.ontology import Ontology
from autolabel_connectors.fiftyone import fields
from autolabel_connectors.fiftyone.documents import FORMAT, Document, Subject, object_id, sample_fields
from autolabel_connectors.fiftyone.verdicts import is_sample_verb, is_verb, read_sample

if TYPE_CHECKING:
    from autolabel.dataset import Run

_BATCH = 500
_OURS = frozenset(
    ("_id", "_cls", "tags", "attributes", "label", "bounding_box", "mask", "mask_path", "confidence", "index")
) | frozenset(fields.ATTRIBUTES)


@dataclass
class Tally:
    """What a refresh did to samples; ``kept`` hold a reviewer's decisions that are not applied yet."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    kept: int = 0
    seen: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Settled:
    """Samples whose verdicts are in the run now, and the regions in them that could not be settled."""

    held: Mapping[str, frozenset[str]]

    def covers(self, sample_id: str) -> bool:
        """Whether a sample's verdicts are in the run."""
        return sample_id in self.held


NOTHING_SETTLED = Settled({})


def fingerprint(run: Run, *parts: object) -> str:
    """Stand for all that a dataset is made from, so that nothing is read when nothing changed."""
    digest = hashlib.blake2b(repr((FORMAT, parts)).encode(), digest_size=16)
    found = [
        run.path / "manifest.json",
        run.path / "issues.parquet",
        *sorted((run.path / "corrections").glob("*.parquet")),
    ]
    for path in found:
        digest.update(path.name.encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    shards = run.path / "shards"
    digest.update(repr(sorted(entry.name for entry in shards.iterdir()) if shards.is_dir() else []).encode())
    return digest.hexdigest()


def write(
    dataset: Any,
    subjects: Iterable[Subject],
    ontology: Ontology,
    *,
    settled: Settled = NOTHING_SETTLED,
    on_step: Callable[[int], None] = lambda _: None,
) -> Tally:
    """Write what changed, in batches; samples that a reviewer changes at that moment are left for the next time."""
    collection = dataset._sample_collection
    tally = Tally()
    there = _there(collection)
    batch: list[tuple[Subject, str]] = []
    for subject in subjects:
        path = subject.item.image.path
        tally.seen.add(path)
        digest = subject.digest(ontology)
        known = there.get(path)
        if known is not None and known[1] == digest and not settled.covers(known[0]):
            tally.unchanged += 1
        else:
            batch.append((subject, known[0] if known else ""))
        if len(batch) >= _BATCH:
            _write_batch(dataset, batch, ontology, settled, tally)
            batch = []
        on_step(len(tally.seen))
    _write_batch(dataset, batch, ontology, settled, tally)
    return tally


def drop_gone(dataset: Any, paths: Iterable[str], tally: Tally) -> None:
    """Take out samples whose images the run no longer has, but for those that hold a reviewer's work."""
    there, keep = _there(dataset._sample_collection), set(paths)
    gone = [uid for path, (uid, _) in there.items() if path not in keep]
    doomed = []
    for document in _read(dataset, gone):
        if document.get("tags") or read_sample(document).pending:
            tally.kept += 1
        else:
            doomed.append(str(document["_id"]))
    if doomed:
        dataset.delete_samples(doomed)
        tally.removed += len(doomed)


def read_all(dataset: Any) -> Iterable[Document]:
    """Read all samples that are ours, as stored."""
    found: Iterable[Document] = dataset._sample_collection.find({fields.SHOWN: {"$exists": True}})
    return found


def _write_batch(
    dataset: Any, batch: Sequence[tuple[Subject, str]], ontology: Ontology, settled: Settled, tally: Tally
) -> None:
    if not batch:
        return
    from pymongo import InsertOne, UpdateOne

    now = datetime.now(UTC).replace(tzinfo=None)
    present = {str(document["_id"]): document for document in _read(dataset, [uid for _, uid in batch if uid])}
    operations: list[Any] = []
    updates = 0
    for subject, uid in batch:
        document = present.get(uid)
        if document is None:
            operations.append(InsertOne(_new(dataset, sample_fields(subject, ontology), now)))
            continue
        if not settled.covers(uid) and read_sample(document).pending:
            tally.kept += 1
            continue
        ours = sample_fields(subject, ontology)
        held = settled.held.get(uid, frozenset())
        _carry_over(ours, document, held)
        tags = document.get("tags") or []
        if settled.covers(uid) and not held:
            tags = [tag for tag in tags if not is_sample_verb(tag)]
        updates += 1
        # Only where nobody saved it since it was read: an edit made at this moment is not overwritten.
        unmoved = {"_id": document["_id"], "last_modified_at": document.get("last_modified_at")}
        operations.append(UpdateOne(unmoved, {"$set": {**ours, "tags": tags, "last_modified_at": now}}))
    if operations:
        result = dataset._sample_collection.bulk_write(operations, ordered=False)
        tally.added += result.inserted_count
        tally.updated += result.matched_count
        tally.kept += updates - result.matched_count


def _carry_over(ours: Document, document: Mapping[str, Any], held: frozenset[str]) -> None:
    """Keep a reviewer's own tags and attributes of regions, and the regions that could not be settled."""
    for place in (fields.ANNOTATIONS, fields.DOUBTS):
        old = (document.get(place) or {}).get("detections") or []
        new = ours[place]["detections"]
        by_id = {str(region["_id"]): region for region in new}
        by_annotation = {region["annotation_id"]: region for region in new if place == fields.ANNOTATIONS}
        for region in old:
            uid = str(region["_id"])
            target = by_id.get(uid) or by_annotation.get(region.get("annotation_id"))
            if target is None:
                if uid in held:
                    new.append(region)
                continue
            tags = region.get("tags") or []
            target["tags"] = list(tags) if uid in held else [tag for tag in tags if not is_verb(tag)]
            target |= {key: value for key, value in region.items() if key not in _OURS}
    whole = {str(issue["_id"]): issue for issue in ours[fields.IMAGE_ISSUES]["classifications"]}
    for issue in (document.get(fields.IMAGE_ISSUES) or {}).get("classifications") or []:
        if str(issue["_id"]) in whole:
            whole[str(issue["_id"])]["tags"] = [tag for tag in issue.get("tags") or [] if not is_verb(tag)]


def _new(dataset: Any, ours: Document, now: datetime) -> Document:
    return {
        "_id": object_id(str(dataset._doc.id), ours["path"]),
        "_dataset_id": dataset._doc.id,
        "_media_type": "image",
        # FiftyOne gives each sample a number for random draws; ours comes of the path, and is the same every time.
        "_rand": int(hashlib.blake2b(ours["path"].encode(), digest_size=4).hexdigest(), 16) / 2**32,
        "tags": [],
        "created_at": now,
        "last_modified_at": now,
        **{key: value for key, value in ours.items() if value is not None},
    }


def _there(collection: Any) -> dict[str, tuple[str, str]]:
    """Map the path of each sample that is ours to its database id and the digest of what it shows."""
    wanted = {"path": 1, f"{fields.SHOWN}.digest": 1}
    return {
        document["path"]: (str(document["_id"]), document[fields.SHOWN]["digest"])
        for document in collection.find({f"{fields.SHOWN}.digest": {"$exists": True}}, wanted)
    }


def _read(dataset: Any, uids: Sequence[str]) -> Iterable[Document]:
    from bson import ObjectId

    if not uids:
        return []
    found: Iterable[Document] = dataset._sample_collection.find({"_id": {"$in": [ObjectId(uid) for uid in uids]}})
    return found

"""What a reviewer did to one sample, by tags and by edits, read from the sample and from what was shown there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from autolabel_connectors.fiftyone import fields
from autolabel_connectors.fiftyone.documents import Document, mask_digest, pixel_digest

Verb = Literal["keep", "delete", "add", "undo"]
_MOVED_PX = 0.01  # what arithmetic on shares of the image adds is less


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reviewer wants of one region.

    ``keep`` it as it is now (accepted, relabelled, moved), ``delete`` it, ``add`` what was not there, ``undo`` what was
    decided here before. ``label`` is None where it was not changed, ``shown_label`` what was shown. ``same_shape``
    tells that box and mask are as shown.
    """

    verb: Verb
    key: str
    place: str
    region: Document
    label: str | None = None
    same_shape: bool = True
    shown_label: str | None = None


@dataclass(frozen=True, slots=True)
class SampleVerdicts:
    """What a reviewer wants of one sample; ``untouched`` are the shown annotations nobody said anything about.

    ``problems`` name what cannot be done as it stands; ``held`` are the database ids of the regions they are about,
    which stay as they are in the app.
    """

    verdicts: tuple[Verdict, ...] = ()
    review: Literal["complete", "skipped"] | None = None
    undo: bool = False
    untouched: tuple[Verdict, ...] = ()
    problems: tuple[str, ...] = ()
    held: frozenset[str] = field(default_factory=frozenset)

    @property
    def pending(self) -> bool:
        """Whether the reviewer left anything here that is not in the run yet."""
        return bool(self.verdicts or self.review or self.undo or self.problems)


@dataclass(frozen=True, slots=True)
class _Tags:
    """The verbs among a region's or sample's tags."""

    accept: bool
    reject: bool
    undo: bool
    labels: tuple[str, ...]

    @property
    def problem(self) -> str | None:
        """What contradicts itself, or None."""
        if "" in self.labels:
            return f"the tag {fields.RELABEL_PREFIX} names no class; write {fields.RELABEL_PREFIX}CLASS"
        if len(set(self.labels)) > 1:
            return f"it has more than one {fields.RELABEL_PREFIX} tag ({', '.join(self.labels)}); leave one"
        if self.undo + self.reject + (self.accept or bool(self.labels)) > 1:
            return "its tags contradict each other; leave one of accept, reject, relabel:CLASS, undo"
        return None

    @property
    def any(self) -> bool:
        """Whether any tag is a verb."""
        return self.accept or self.reject or self.undo or bool(self.labels)


def read_sample(document: Mapping[str, Any]) -> SampleVerdicts:
    """Compare a sample with what was shown in it, and read its tags."""
    shown = document.get(fields.SHOWN) or {}
    size_wh = document["metadata"]["width"], document["metadata"]["height"]
    regions = _read_field(fields.ANNOTATIONS, shown, document, size_wh)
    doubts = _read_field(fields.DOUBTS, shown, document, size_wh)
    found = SampleVerdicts(
        verdicts=regions.verdicts + doubts.verdicts,
        untouched=regions.untouched,
        problems=regions.problems + doubts.problems,
        held=regions.held | doubts.held,
    )
    return _read_sample_tags(found, {tag.strip().lower() for tag in document.get("tags") or ()})


def is_verb(tag: str) -> bool:
    """Tell a tag that says what to do with a region from a reviewer's own."""
    text = tag.strip().lower()
    return text in (fields.ACCEPT, fields.REJECT, fields.UNDO) or text.startswith(fields.RELABEL_PREFIX)


def is_sample_verb(tag: str) -> bool:
    """Tell a tag that says what to do with an image from a reviewer's own."""
    return tag.strip().lower() in (fields.REVIEWED, fields.SKIP, fields.UNDO)


def _read_field(
    place: str, shown: Mapping[str, Any], document: Mapping[str, Any], size_wh: tuple[int, int]
) -> SampleVerdicts:
    regions = (document.get(place) or {}).get("detections") or []
    verdicts, untouched, problems, held = [], [], [], set()
    pairs, added = _pair(shown.get(place) or (), regions)
    for entry, region in pairs:
        key = entry.get("doubt_id") or entry["annotation_id"]
        if region is None:
            verdicts.append(Verdict("delete", key, place, _as_region(entry)))
            continue
        tags = _tags(region)
        if tags.problem:
            problems.append(f"region {entry['label']!r}: {tags.problem}")
            held.add(str(region["_id"]))
            continue
        label = _label(entry, region, tags)
        same_shape = _same_shape(entry, region, size_wh)
        verdict = Verdict("keep", key, place, region, label, same_shape, entry["label"])
        if tags.undo or tags.reject:
            verdicts.append(replace(verdict, verb="undo" if tags.undo else "delete", label=None, same_shape=True))
        elif tags.accept or label is not None or not same_shape:
            verdicts.append(verdict)
        else:
            untouched.append(verdict)
    for region in added:
        tags = _tags(region)
        label = tags.labels[0] if tags.labels else region.get("label")
        if tags.reject or tags.undo:
            continue
        if tags.problem or not label:
            problems.append(f"a new region: {tags.problem or 'it has no class; give it one in the app'}")
            held.add(str(region["_id"]))
        else:
            verdicts.append(Verdict("add", str(region["_id"]), place, region, label, same_shape=False))
    return SampleVerdicts(tuple(verdicts), None, False, tuple(untouched), tuple(problems), frozenset(held))


def _read_sample_tags(found: SampleVerdicts, tags: set[str]) -> SampleVerdicts:
    wanted = tags & {fields.REVIEWED, fields.SKIP, fields.UNDO}
    if len(wanted) > 1:
        return replace(
            found, problems=(*found.problems, f"the image has the tags {', '.join(sorted(wanted))}; leave one")
        )
    if fields.UNDO in wanted:
        return replace(found, undo=True)
    if fields.SKIP in wanted:
        return replace(found, review="skipped")
    if fields.REVIEWED in wanted and found.problems:
        return replace(found, problems=(*found.problems, "the image is not marked as reviewed until that is settled"))
    return replace(found, review="complete") if fields.REVIEWED in wanted else found


def _pair(
    shown: Sequence[Document], regions: Sequence[Document]
) -> tuple[list[tuple[Document, Document | None]], list[Document]]:
    """Find each shown region by its database id, then by the annotation id it carries; the rest are new."""
    by_id = {str(region["_id"]): region for region in regions}
    found = {entry["id"]: by_id.pop(entry["id"], None) for entry in shown}
    carried = {region["annotation_id"]: uid for uid, region in by_id.items() if region.get("annotation_id")}
    for entry in shown:
        uid = carried.pop(entry["annotation_id"], None) if found[entry["id"]] is None else None
        if uid is not None:
            found[entry["id"]] = by_id.pop(uid)
    return [(entry, found[entry["id"]]) for entry in shown], list(by_id.values())


def _label(entry: Document, region: Document, tags: _Tags) -> str | None:
    """Return the class a reviewer gave, or None where it is as shown; a region without a class keeps its own."""
    if tags.labels:
        return tags.labels[0]
    label = region.get("label")
    return label if label and label != entry["label"] else None


def _same_shape(entry: Document, region: Document, size_wh: tuple[int, int]) -> bool:
    scale = (*size_wh, *size_wh)
    old, new = entry["box"], region["bounding_box"]
    if any(abs(a - b) * size > _MOVED_PX for a, b, size in zip(old, new, scale, strict=True)):
        return False
    mask = region.get("mask")
    # The app packs every mask of a sample anew when it saves one, so other bytes may be the same pixels.
    return bool(mask_digest(mask) == entry["mask"] or pixel_digest(mask) == entry["pixels"])


def _as_region(entry: Document) -> Document:
    return {"_id": entry["id"], "label": entry["label"], "bounding_box": entry["box"], "tags": []}


def _tags(region: Mapping[str, Any]) -> _Tags:
    tags = [tag.strip() for tag in region.get("tags") or ()]
    lower = {tag.lower() for tag in tags}
    labels = [
        tag[len(fields.RELABEL_PREFIX) :].strip() for tag in tags if tag.lower().startswith(fields.RELABEL_PREFIX)
    ]
    return _Tags(fields.ACCEPT in lower, fields.REJECT in lower, fields.UNDO in lower, tuple(dict.fromkeys(labels)))

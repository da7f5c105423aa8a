"""How a review dataset looks in the app: sidebar groups, colours, classes to draw with, and saved views."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from autolabel.colours import PALETTE, class_colour
from autolabel.ontology import Ontology
from autolabel_connectors.fiftyone import fields

_CLASS_VIEWS = 30
_RADIO_BUTTONS = 5
_SIDEBAR = {
    "review": ("review", "reviewed_by", "worst_quality", "flagged_count", "issue_kinds", "uncertainty"),
    "labels": (fields.ANNOTATIONS, fields.DOUBTS, fields.IMAGE_ISSUES),
    "image": ("path", "annotation_count", "human_count", "disagreements", "duplicate_group"),
    "metadata": (
        *("id", "filepath", "image_id", "metadata.width", "metadata.height", "metadata.size_bytes"),
        *("metadata.mime_type", "metadata.num_channels", "created_at", "last_modified_at", fields.SHOWN),
    ),
}
_OPEN_GROUPS = ("review", "labels")


def dress(fo: ModuleType, dataset: Any, labels: Ontology) -> None:
    """Arrange the sidebar, colour the classes and offer them for drawing; once, and when classes came."""
    config = dataset.app_config
    config.sidebar_groups = [
        fo.SidebarGroupDocument(name="tags", paths=["tags", "_label_tags"], expanded=True),
        *(
            fo.SidebarGroupDocument(name=name, paths=list(paths), expanded=name in _OPEN_GROUPS)
            for name, paths in _SIDEBAR.items()
        ),
    ]
    config.active_fields = fo.ActiveFields(
        exclude=False, paths=[fields.ANNOTATIONS, fields.DOUBTS, fields.IMAGE_ISSUES]
    )
    colours = [{"value": label.name, "color": class_colour(place)} for place, label in enumerate(labels.classes)]
    config.color_scheme = fo.ColorScheme(
        color_pool=list(PALETTE),
        color_by="value",
        fields=[
            {"path": place, "colorByAttribute": "label", "valueColors": colours}
            for place in (fields.ANNOTATIONS, fields.DOUBTS)
        ],
    )
    dataset.save()
    schema = {
        "type": "detections",
        "component": "radio" if len(labels.classes) <= _RADIO_BUTTONS else "dropdown",
        "classes": [label.name for label in labels.classes],
        "attributes": [],
    }
    dataset.set_label_schemas({fields.ANNOTATIONS: schema})
    dataset.activate_label_schemas([fields.ANNOTATIONS])


def save_views(fo: ModuleType, dataset: Any, labels: Sequence[str], earlier: Mapping[str, str]) -> dict[str, str]:
    """Save the views that answer a reviewer's first questions; a reviewer's own are kept.

    ``earlier`` are the names saved by an earlier refresh and what they held, and what is returned are those of now. A
    view that is as it was is not saved again; one that answers nothing any more goes.
    """
    saved: dict[str, str] = {}
    for number, (name, text, view) in enumerate(_views(fo, dataset, labels)):
        held = hashlib.blake2b(repr(view._serialize(include_uuids=False)).encode(), digest_size=8).hexdigest()
        # A class's name may have no letter that FiftyOne can make an address of.
        for unique in (name, f"{name} ({number})"):
            if earlier.get(unique) == held and dataset.has_saved_view(unique):
                saved[unique] = held
                break
            try:
                dataset.save_view(unique, view, description=text, overwrite=True)
            except ValueError:
                continue
            saved[unique] = held
            break
    for name in set(earlier) - set(saved):
        if dataset.has_saved_view(name):
            dataset.delete_saved_view(name)
    return saved


def _views(fo: ModuleType, dataset: Any, labels: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    field: Callable[[str], Any] = fo.ViewField
    regions, doubts = fields.ANNOTATIONS, fields.DOUBTS
    worst_first = [("flagged_count", -1), ("worst_quality", 1)]
    todo = field("review") == "todo"
    yield "to review", "Images nobody has reviewed, the most doubtful first.", dataset.match(todo).sort_by(worst_first)
    doubtful = dataset.match(field("worst_quality") != None)  # noqa: E711  (an expression of the database)
    yield "noisiest first", "Images with open issues, the worst quality first.", doubtful.sort_by("worst_quality")
    suspects = dataset.filter_labels(regions, field("flagged") == True)  # noqa: E712
    yield (
        "suspects (patches)",
        "Every annotation with a flagged issue as a picture of its own, the worst quality first.",
        _patches(fo, suspects, regions),
    )
    disagree = dataset.filter_labels(regions, field("disagree") == True)  # noqa: E712
    yield (
        "models disagree",
        "Annotations whose detector and classifier name different classes.",
        disagree.sort_by("disagreements", reverse=True),
    )
    unsure = dataset.match(field("uncertainty") > 0.5).sort_by("uncertainty", reverse=True)
    yield "uncertain", "Images with an annotation whose two best classes are close.", unsure
    kinds = sorted({*dataset.distinct("issue_kinds"), *dataset.distinct(f"{doubts}.detections.kind")} - {None})
    for kind in kinds:
        yield f"issue: {kind}", f"Images with a flagged issue of the kind {kind!r}.", _of_kind(field, dataset, kind)
    overlooked = dataset.filter_labels(doubts, field("kind") == "overlooked")
    yield "overlooked", "Where something was probably missed.", overlooked.sort_by("worst_quality")
    duplicates = dataset.match(field("duplicate_group") != None).sort_by("duplicate_group")  # noqa: E711
    yield "duplicates", "Images that are the same or nearly so, side by side.", duplicates
    yield "reviewed", "Images that people marked as reviewed.", dataset.match(field("review") == "reviewed")
    yield "skipped", "Images that people skipped.", dataset.match(field("review") == "skipped")
    yield (
        "decided by people",
        "Annotations a person decided about.",
        dataset.filter_labels(regions, field("origin") == "human"),
    )
    for label in labels[:_CLASS_VIEWS]:
        of_class = dataset.filter_labels(regions, field("label") == label)
        yield f"class: {label}", f"Annotations of the class {label!r}.", of_class


def _of_kind(field: Callable[[str], Any], dataset: Any, kind: str) -> Any:
    return dataset.match(field("issue_kinds").contains(kind)).sort_by("worst_quality")


def _patches(fo: ModuleType, view: Any, place: str) -> Any:
    """Add the patches stage without running it: the app makes the patches anew each time the view is opened."""
    view._stages.extend([fo.ToPatches(place), fo.SortBy(f"{place}.quality")])
    return view

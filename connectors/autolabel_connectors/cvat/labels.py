"""CVAT's labels and their attributes: written for a new project, and understood for an existing one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autolabel.colours import class_colour
from autolabel.connect import Shape
from autolabel.ontology import Ontology, normalise
from autolabel_connectors.shapes import DrawnKind

SCORE, ANNOTATION_ID, NOISE, NOISE_REASON, SUGGESTED, MODEL = (
    "score",
    "annotation_id",
    "noise",
    "noise_reason",
    "suggested",
    "model_version",
)
NONE = "none"
"""What a text attribute holds where there is nothing to say. It is never empty: CVAT's exports choke on that."""

NOISE_VALUES = ("no", "suspect")
TYPES: Mapping[DrawnKind, str] = {"box": "rectangle", "polygon": "polygon", "mask": "mask"}
KINDS: Mapping[Shape, tuple[DrawnKind, ...]] = {
    "box": ("box",),
    "polygon": ("polygon", "box"),
    "mask": ("mask", "box"),
    "auto": ("polygon", "mask", "box"),
}
"""The kinds of shape a choice of shapes may lead to; a box stands in where there is no mask."""


@dataclass(frozen=True, slots=True)
class AttributeSpec:
    """One attribute of a label as the server describes it."""

    id: int
    name: str
    input_type: str = "text"
    values: tuple[str, ...] = ()
    default: str = ""


@dataclass(frozen=True, slots=True)
class LabelSpec:
    """One label as the server describes it; ``type`` says which shapes it allows, ``any`` for all."""

    id: int
    name: str
    type: str = "any"
    attributes: Mapping[str, AttributeSpec] = field(default_factory=dict)

    def allows(self, kind: DrawnKind) -> bool:
        """Whether shapes of ``kind`` may have this label."""
        return self.type in ("any", TYPES[kind])

    @property
    def only(self) -> DrawnKind | None:
        """The one kind of shape it allows, of those that we draw; None where it allows all or none of them."""
        return next((kind for kind, type_ in TYPES.items() if type_ == self.type), None)


@dataclass(frozen=True, slots=True)
class Labels:
    """A project's labels: ``by_name`` under our names of classes, ``by_id`` all of them, also those that are not ours.

    ``our_names`` gives our name of each label id; a label that is not ours has its own.
    """

    by_name: Mapping[str, LabelSpec]
    by_id: Mapping[int, LabelSpec]
    our_names: Mapping[int, str]


def label_specs(ontology: Ontology, colours: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Describe the labels of a new project as CVAT's API wants them, in the order of the ontology.

    Each has a numeric ``score``, our ``annotation_id``, ``noise`` (no or suspect) with ``noise_reason``, ``suggested``
    and ``model_version``. ``colours`` are ``#rrggbb``, one for each class; without them each class has the colour of
    the report.
    """
    if colours is None:
        colours = [class_colour(place) for place in range(len(ontology.names))]
    return [
        {"name": name, "color": colour, "type": "any", "attributes": attribute_specs()}
        for name, colour in zip(ontology.names, colours, strict=True)
    ]


def attribute_specs() -> list[dict[str, Any]]:
    """Describe the attributes that every label of ours has."""
    number = {"input_type": "number", "values": ["0", "1", "0.0001"], "default_value": "0"}
    choice = {"input_type": "select", "values": list(NOISE_VALUES), "default_value": NOISE_VALUES[0]}
    text = {"input_type": "text", "values": [NONE], "default_value": NONE}
    kinds = {SCORE: number, ANNOTATION_ID: text, NOISE: choice, NOISE_REASON: text, SUGGESTED: text, MODEL: text}
    return [{"name": name, "mutable": False, **kind} for name, kind in kinds.items()]


def check_labels(
    existing: Sequence[Mapping[str, Any]],
    ontology: Ontology | Sequence[str],
    shapes: Shape = "auto",
    known: Mapping[str, int] | None = None,
) -> tuple[Labels, list[str]]:
    """Read the labels of an existing project (``GET /api/labels``): what to use, and in plain words what does not fit.

    A class is found by its exact name, else by its name without regard to case, spaces and underscores, else by the id
    that it had before (``known``), as people rename labels.
    """
    names = ontology.names if isinstance(ontology, Ontology) else tuple(ontology)
    specs = [_read(label) for label in existing if not label.get("has_parent")]
    by_name: dict[str, LabelSpec] = {}
    problems = []
    for name in names:
        found = next((spec for spec in specs if spec.name == name), None) or next(
            (spec for spec in specs if normalise(spec.name) == normalise(name)), None
        )
        if found is None:
            found = next((spec for spec in specs if spec.id == (known or {}).get(name)), None)
            if found is not None:
                problems.append(f"somebody calls label {name!r} {found.name!r} now; it is used as {name!r}")
        if found is None:
            problems.append(f"the project has no label {name!r}; add it in the project's settings")
            continue
        by_name[name] = found
        problems += _misfits(found, shapes)
    ours = {spec.id: name for name, spec in by_name.items()}
    labels = Labels(
        by_name, {spec.id: spec for spec in specs}, {spec.id: ours.get(spec.id, spec.name) for spec in specs}
    )
    return labels, problems


def _misfits(label: LabelSpec, shapes: Shape) -> list[str]:
    """Say which shapes a label refuses and which of our attributes it lacks or has in another form."""
    problems = []
    refused = [TYPES[kind] for kind in KINDS[shapes] if not label.allows(kind)]
    if shapes == "auto" and label.only is not None:
        problems.append(f"label {label.name!r} is for {label.type} only, so its regions are drawn like that")
    elif refused:
        problems.append(
            f"label {label.name!r} is for {label.type} only and refuses {' and '.join(refused)}; "
            "set its shape to any in the project's settings, or choose other shapes"
        )
    wanted = {spec["name"]: spec for spec in attribute_specs()}
    absent = [name for name in wanted if name not in label.attributes]
    if absent:
        problems.append(
            f"label {label.name!r} has no attribute {', '.join(absent)}; add it (text) in the project's settings, "
            "or what it would hold is not sent"
        )
    noise = label.attributes.get(NOISE)
    if noise is not None and noise.input_type in ("select", "radio"):
        unknown = [value for value in NOISE_VALUES if value not in noise.values]
        if unknown:
            problems.append(
                f"attribute {NOISE!r} of label {label.name!r} does not offer {', '.join(unknown)}; add it to its values"
            )
    score = label.attributes.get(SCORE)
    if score is not None and not _is_number(score.default):
        problems.append(
            f"attribute {SCORE!r} of label {label.name!r} has the default {score.default!r}, which breaks CVAT's own "
            "export of what people draw; set it to 0"
        )
    return problems


def _is_number(text: str) -> bool:
    """Whether CVAT's exports can read a number from ``text``."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read(label: Mapping[str, Any]) -> LabelSpec:
    """Read one label of the server's answer."""
    attributes = {}
    for spec in label.get("attributes") or ():
        name = str(spec["name"])
        attributes[name] = AttributeSpec(
            int(spec["id"]),
            name,
            str(spec.get("input_type") or "text"),
            tuple(map(str, spec.get("values") or ())),
            str(spec.get("default_value") or ""),
        )
    return LabelSpec(int(label["id"]), str(label["name"]), str(label.get("type") or "any"), attributes)

"""Label Studio's labeling configuration: written for a new project, and understood for an existing one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from xml.etree import ElementTree as ET

from autolabel.colours import class_colour
from autolabel.connect import Shape
from autolabel.errors import AutolabelError
from autolabel.ontology import Ontology, normalise
from autolabel_connectors.shapes import DrawnKind

FormKind = Literal["rectangle", "polygon", "brush", "bitmask"]
KINDS: Mapping[Shape, tuple[DrawnKind, ...]] = {
    "box": ("box",),
    "polygon": ("polygon", "box"),
    "mask": ("mask", "box"),
    "auto": ("polygon", "mask", "box"),
}
"""The kinds of region a choice of shapes may lead to; a box stands in where there is no mask."""

_FORMS: Mapping[DrawnKind, tuple[FormKind, ...]] = {
    "box": ("rectangle",),
    "polygon": ("polygon",),
    "mask": ("brush", "bitmask"),
}
_TAGS: Mapping[DrawnKind, str] = {"box": "RectangleLabels", "polygon": "PolygonLabels", "mask": "BrushLabels"}
_IMAGE = "image"
_YES = ("1", "true", "yes")


@dataclass(frozen=True, slots=True)
class Control:
    """A tag that draws one form: its ``name``, and ``labels_name`` of a separate ``<Labels>`` where there is one.

    ``labels`` maps each class of ours to the spelling that the tag's results use. ``min_score`` is the least score that
    the tag asks of a model's regions.
    """

    name: str
    form: FormKind
    labels: Mapping[str, str]
    labels_name: str | None = None
    min_score: float = 0.0


@dataclass(frozen=True, slots=True)
class Controls:
    """What to put into results for a project: for each kind its controls, and the names of the image tag and field."""

    to_name: str
    image_key: str
    by_kind: Mapping[DrawnKind, tuple[Control, ...]] = field(default_factory=dict)

    def find(self, kind: DrawnKind, label: str) -> Control | None:
        """Return the control that draws ``kind`` with ``label``, or None."""
        return next((control for control in self.by_kind.get(kind, ()) if label in control.labels), None)

    def form(self, kind: DrawnKind, label: str) -> FormKind | None:
        """Return the form in which ``kind`` is drawn with ``label``, or None."""
        control = self.find(kind, label)
        return None if control is None else control.form

    def ours(self, theirs: str) -> str:
        """Return our name of a label in a result; a label that is not ours is returned as it is."""
        for controls in self.by_kind.values():
            for control in controls:
                for name, spelling in control.labels.items():
                    if spelling == theirs:
                        return name
        return theirs


def label_config(ontology: Ontology, shapes: Shape = "auto", colours: Sequence[str] | None = None) -> str:
    """Write the ``<View>`` of a new project: one tag of labels for each kind, with zoom, in colours that stay.

    The tags are named ``box``, ``polygon`` and ``mask``, the image ``image`` with the field ``$image``. ``colours``
    are ``#rrggbb``, one for each class; without them each class has the colour of the report.
    """
    if colours is None:
        colours = [class_colour(place) for place in range(len(ontology.names))]
    view = ET.Element("View")
    ET.SubElement(view, "Image", name=_IMAGE, value=f"${_IMAGE}", zoom="true", zoomControl="true")
    for kind in KINDS[shapes]:
        tag = ET.SubElement(view, _TAGS[kind], name=kind, toName=_IMAGE)
        if kind != "mask":
            tag.set("strokeWidth", "2")
            tag.set("opacity", "0.3")
        for name, colour in zip(ontology.names, colours, strict=True):
            ET.SubElement(tag, "Label", value=name, background=colour)
    ET.indent(view)
    return ET.tostring(view, encoding="unicode")


def check_label_config(
    xml: str, ontology: Ontology | Sequence[str], shapes: Shape = "auto", *, serving: bool = False
) -> tuple[Controls, list[str]]:
    """Read an existing project's configuration: the controls to use, and in plain words what does not fit.

    Control names may be anything. A class is found by its exact name, else by its name without regard to case,
    spaces and underscores. A class that no control draws as a box is a mismatch, and so is one that none can draw in
    the shape asked for. ``serving`` follows what such a configuration tells a model that is asked for predictions:
    ``predicted_values`` of a label, ``model_score_threshold`` and ``model_skip`` of a tag. Raises AutolabelError if
    ``xml`` cannot be read.
    """
    names = ontology.names if isinstance(ontology, Ontology) else tuple(ontology)
    try:
        root = ET.fromstring(xml)
    except ET.ParseError as error:
        raise AutolabelError(
            f"the project's label config is no valid XML ({error}); repair it in its settings"
        ) from error
    pictures = [tag for tag in root.iter() if tag.tag == "Image" and tag.get("name")]
    if not pictures:
        return Controls(_IMAGE, _IMAGE), [
            'the label config has no <Image> tag; add <Image name="image" value="$image"/>'
        ]
    problems = []
    picture = _picture(root, pictures)
    if len(pictures) > 1:
        problems.append(
            f"the label config shows {len(pictures)} images to a task; regions go to {picture.get('name')!r}"
        )
    to_name = str(picture.get("name"))
    field_name = (picture.get("value") or picture.get("valueList") or "").lstrip("$").strip()
    if not field_name:
        problems.append(f'<Image name="{to_name}"> has no value; write value="$image"')
    elif picture.get("valueList"):
        problems.append(f'<Image name="{to_name}"> shows a list of images; one image to a task is needed')
    by_kind = {kind: tuple(_controls(root, kind, to_name, names, serving=serving)) for kind in _FORMS}
    controls = Controls(to_name, field_name or _IMAGE, by_kind)
    return controls, problems + _missing(controls, names, shapes)


def _picture(root: ET.Element, pictures: Sequence[ET.Element]) -> ET.Element:
    """Choose the image tag that most controls point to; the first where none does."""
    aims = [name for tag in root.iter() for name in _aims(tag)]
    return max(pictures, key=lambda tag: aims.count(str(tag.get("name"))))


def _controls(
    root: ET.Element, kind: DrawnKind, to_name: str, names: Sequence[str], *, serving: bool
) -> Iterable[Control]:
    """Find the tags that draw ``kind`` on the image: with labels of their own, or beside a ``<Labels>`` tag."""
    here = [tag for tag in root.iter() if tag.get("name") and to_name in _aims(tag)]
    if serving:
        here = [tag for tag in here if tag.get("model_skip", "").lower() not in _YES]
    for form in _FORMS[kind]:
        for tag in here:
            least = _least_score(tag) if serving else 0.0
            if tag.tag.lower() == f"{form}labels":
                yield Control(str(tag.get("name")), form, _labels(tag, names, serving=serving), min_score=least)
        for tag in here:
            if tag.tag.lower() == form:
                for labels in (other for other in here if other.tag == "Labels"):
                    least = max(_least_score(tag), _least_score(labels)) if serving else 0.0
                    found = _labels(labels, names, serving=serving)
                    yield Control(str(tag.get("name")), form, found, str(labels.get("name")), least)


def _least_score(tag: ET.Element) -> float:
    """Read the score below which a tag wants no regions of a model; raises AutolabelError where it is no number."""
    text = tag.get("model_score_threshold") or tag.get("score_threshold") or "0"
    try:
        return float(text)
    except ValueError:
        raise AutolabelError(
            f"model_score_threshold of <{tag.tag} name={tag.get('name')!r}> must be a number in [0, 1], got {text!r}; "
            "repair it in the project's settings"
        ) from None


def _labels(tag: ET.Element, names: Sequence[str], *, serving: bool) -> dict[str, str]:
    """Map our class names to a tag's spellings; a tag that reads its labels from the task takes any name."""
    if tag.get("value", "").startswith("$"):
        return {name: name for name in names}
    shown = [child for child in tag.iter("Label") if child.get("value") or child.get("alias")]
    found = {}
    for name in names:
        for same in (_exactly, _loosely, *((_predicted,) if serving else ())):
            match = next((child for child in shown if same(name, child)), None)
            if match is not None:
                found[name] = str(match.get("alias") or match.get("value"))
                break
    return found


def _exactly(name: str, label: ET.Element) -> bool:
    """Whether a label's alias or value is ``name``."""
    return name in (label.get("alias"), label.get("value"))


def _loosely(name: str, label: ET.Element) -> bool:
    """Whether a label's alias or value is ``name`` but for case, spaces and underscores."""
    return normalise(name) in (normalise(label.get("alias") or ""), normalise(label.get("value") or ""))


def _predicted(name: str, label: ET.Element) -> bool:
    """Whether a label stands for what a model calls ``name``, by its list of such names."""
    return normalise(name) in map(normalise, label.get("predicted_values", "").split(","))


def _aims(tag: ET.Element) -> list[str]:
    """Names of the object tags that a control draws on."""
    return [name.strip() for name in tag.get("toName", "").split(",") if name.strip()]


def _missing(controls: Controls, names: Sequence[str], shapes: Shape) -> list[str]:
    """Say which kinds and classes no control can draw."""
    problems = []
    for kind in KINDS[shapes]:
        tag = _TAGS[kind]
        if not controls.by_kind.get(kind):
            problems.append(
                f'the label config has no <{tag}> for <Image name="{controls.to_name}">; add '
                f'<{tag} name="{kind}" toName="{controls.to_name}"> with a <Label> for each class'
            )
            continue
        absent = [name for name in names if controls.find(kind, name) is None]
        if absent:
            listed = ", ".join(repr(name) for name in absent)
            problems.append(
                f"the label config has no <Label> for {listed} in <{tag}>; add it in the project's settings"
            )
    return problems

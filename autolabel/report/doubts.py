"""The report's section on label noise: what was flagged, the worst of it as pictures, and how far to trust it."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autolabel.errors import AutolabelError
from autolabel.issues import read_notes
from autolabel.report.cards import data_uri, outline
from autolabel.types import RGB, AnnotatedImage, Annotation, Box, Image, LabelIssue

if TYPE_CHECKING:
    from autolabel.dataset import Run

WORST = 50
_SIDE_PX = 300
_CONTEXT = 0.6
_LEAST_VIEW_PX = 96.0
_PICTURES_KEPT = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle as drawn, px of the image."""

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def of(cls, box: Box) -> Frame:
        """Round a box for drawing."""
        return cls(round(box.x_min, 1), round(box.y_min, 1), round(box.width, 1), round(box.height, 1))


@dataclass(frozen=True, slots=True)
class Doubt:
    """One flagged issue as shown: the part ``view`` of its picture, the annotation's ``box``, a ``better`` one."""

    kind: str
    path: str
    quality: float
    reason: str
    label: str | None
    label_id: int | None
    suggested: str | None
    source: str
    problem: str
    view: Frame
    box: Frame | None
    better: Frame | None
    mask: str


@dataclass(slots=True)
class Doubts:
    """Flagged issues of a run, gathered while its images pass by."""

    flagged: list[LabelIssue]
    _labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    _found: dict[str, Annotation] = field(default_factory=dict)
    _images: dict[str, Image] = field(default_factory=dict)
    _by_path: dict[str, list[LabelIssue]] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> Doubts | None:
        """Start with a run's flagged issues; None when no noise pass was made."""
        if read_notes(run.path) is None:
            return None
        doubts = cls(run.issues(flagged_only=True))
        for issue in doubts.flagged:
            doubts._by_path.setdefault(issue.path, []).append(issue)
        return doubts

    def add(self, item: AnnotatedImage) -> None:
        """Remember what the issues of one image speak of."""
        issues = self._by_path.get(item.image.path)
        if not issues:
            return
        self._images[item.image.path] = item.image
        by_id = {annotation.id: annotation for annotation in item.annotations}
        for issue in issues:
            annotation = by_id.get(issue.annotation_id or "")
            if annotation is not None:
                self._labels[annotation.label, issue.kind] += 1
                self._found[annotation.id] = annotation

    def section(self, run: Run) -> dict[str, Any]:
        """Return what the page says: counts by kind and class, the worst with pictures, calibration curves."""
        notes = read_notes(run.path) or {}
        kinds = Counter(issue.kind for issue in self.flagged)
        most = max(kinds.values(), default=1)
        pictures: OrderedDict[str, RGB] = OrderedDict()
        return {
            "flagged": len(self.flagged),
            "judged": notes.get("judged"),
            "kinds": [{"name": k, "count": n, "width": 100 * n / most} for k, n in kinds.most_common()],
            "classes": [
                {"name": name, "counts": [self._labels[name, kind] for kind, _ in kinds.most_common()]}
                for name in run.labels.names
                if any(self._labels[name, kind] for kind in kinds)
            ],
            "worst": [self._doubt(run, issue, pictures) for issue in self.flagged[:WORST]],
            "curves": [_curve(name, values) for name, values in sorted(notes.get("reliability", {}).items())],
            "notes": notes.get("notes", []),
        }

    def _doubt(self, run: Run, issue: LabelIssue, pictures: OrderedDict[str, RGB]) -> Doubt:
        annotation = self._found.get(issue.annotation_id or "")
        image = self._images.get(issue.path)
        box = annotation.box if annotation else None
        source, problem, view = "", "the image is not part of the run any more", Frame(0, 0, 1, 1)
        path = ""
        if image is not None:
            window = _window([b for b in (box, issue.box) if b is not None], image)
            view = Frame.of(window)
            try:
                source, problem = data_uri(_cut(_picture(run, image, pictures), window), _SIDE_PX), ""
            except (AutolabelError, OSError, KeyError) as error:
                problem = str(error) or type(error).__name__
            if annotation is not None and annotation.mask is not None:
                path = outline(annotation.mask, max(window.width, window.height) / _SIDE_PX)
        return Doubt(
            kind=issue.kind.replace("_", " "),
            path=issue.path,
            quality=issue.quality,
            reason=issue.reason,
            label=annotation.label if annotation else None,
            label_id=annotation.label_id if annotation else None,
            suggested=issue.suggested_label,
            source=source,
            problem=problem,
            view=view,
            box=Frame.of(box) if box else None,
            better=Frame.of(issue.box) if issue.box and issue.box != box else None,
            mask=path,
        )


def _window(boxes: list[Box], image: Image) -> Box:
    """Part of the image to show, whole px: the boxes with some context, or all of it where there is no box."""
    if not boxes:
        return Box(0, 0, image.width, image.height)
    x_min, y_min = min(b.x_min for b in boxes), min(b.y_min for b in boxes)
    x_max, y_max = max(b.x_max for b in boxes), max(b.y_max for b in boxes)
    side = max((1 + 2 * _CONTEXT) * max(x_max - x_min, y_max - y_min), _LEAST_VIEW_PX)
    x, y = (x_min + x_max) / 2, (y_min + y_max) / 2
    # Shifted rather than cut at the image's edges, so that what is shown has one size.
    left = max(0.0, min(x - side / 2, image.width - side))
    top = max(0.0, min(y - side / 2, image.height - side))
    return Box(int(left), int(top), min(image.width, round(left + side)), min(image.height, round(top + side)))


def _picture(run: Run, image: Image, pictures: OrderedDict[str, RGB]) -> RGB:
    """Decode an image, or take it from the last few that were shown."""
    if image.path not in pictures:
        if len(pictures) >= _PICTURES_KEPT:
            pictures.popitem(last=False)
        pictures[image.path] = run.read_image(image)
    pictures.move_to_end(image.path)
    return pictures[image.path]


def _cut(pixels: RGB, window: Box) -> RGB:
    x_min, y_min, x_max, y_max = (int(value) for value in window.xyxy)
    return pixels[y_min:y_max, x_min:x_max]


def _curve(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Points of a reliability diagram in percent, and the mean distance from the diagonal weighted by rows."""
    rows = values["rows"]
    total = sum(rows) or 1
    points = list(zip(values["predicted"], values["observed"], rows, strict=True))
    return {
        "name": name.replace("_", " "),
        "error": sum(abs(p - o) * n for p, o, n in points) / total,
        "rows": sum(rows),
        "points": [
            {
                "x": round(100 * p, 1),
                "y": round(100 - 100 * o, 1),
                "size": round(2 + 4 * (n / total) ** 0.5, 1),
                "rows": n,
            }
            for p, o, n in points
        ],
    }

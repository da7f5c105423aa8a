"""How well people agreed with the models: acceptance, edits, misses and minutes for each class."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autolabel.corrections import Decision, standing
from autolabel.ontology import normalise
from autolabel.types import Correction, Review


@dataclass(frozen=True, slots=True)
class ClassAgreement:
    """What people did to one class's annotations.

    ``accepted``, ``reshaped``, ``relabelled`` and ``deleted`` add up to what the models had proposed and people looked
    at; a region that was both moved and renamed counts as relabelled. ``missed`` were added by people. ``acceptance``
    is the share accepted, with its 95 % interval (Wilson); ``edit_iou`` the median IoU of reshaped regions with what
    they were. ``minutes`` shares each image's time evenly among its regions.
    """

    label: str
    accepted: int = 0
    reshaped: int = 0
    relabelled: int = 0
    deleted: int = 0
    missed: int = 0
    edit_iou: float | None = None
    minutes: float = 0.0

    @property
    def proposed(self) -> int:
        """Annotations of the models that people decided about."""
        return self.accepted + self.reshaped + self.relabelled + self.deleted

    @property
    def acceptance(self) -> float | None:
        """Share of proposals left as they were, in [0, 1]; None where there are none."""
        return self.accepted / self.proposed if self.proposed else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the acceptance."""
        return wilson_interval(self.accepted, self.proposed) if self.proposed else None

    def to_json(self) -> dict[str, Any]:
        """Return all figures as JSON-able values."""
        return {**asdict(self), "proposed": self.proposed, "acceptance": self.acceptance, "interval": self.interval}


@dataclass(frozen=True, slots=True)
class Agreement:
    """What people made of a run: a row for each class, the images they finished or skipped, and who they are."""

    classes: tuple[ClassAgreement, ...]
    complete: int
    skipped: int
    minutes: float
    people: tuple[tuple[str, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Return all figures as JSON-able values."""
        return {
            "classes": [row.to_json() for row in self.classes],
            "images": {"complete": self.complete, "skipped": self.skipped},
            "minutes": self.minutes,
            "people": dict(self.people),
        }


def agreement(names: Sequence[str], corrections: Iterable[Correction], reviews: Iterable[Review]) -> Agreement:
    """Count what stands of people's decisions, by the class that the models had given; ``names`` come first."""
    stands = standing([*corrections, *reviews])
    # What was deleted without ever having had a label was a doubt that a person turned down, not a label.
    decided = [c for image in stands.values() for c in image.corrections.values() if c.before_label or c.label]
    finished = [image.review for image in stands.values() if image.review is not None]
    per_image = Counter((c.path, c.image_id) for c in decided)
    spelled = {normalise(name): name for name in names}
    rows: dict[str, list[Correction]] = {name: [] for name in names}
    for correction in decided:
        label = correction.before_label or correction.label or ""
        rows.setdefault(spelled.setdefault(normalise(label), label), []).append(correction)
    everything: list[Decision] = [*decided, *finished]
    people = Counter(decision.by or "unknown" for decision in everything)
    seconds = {(d.path, d.image_id): d.seconds for d in everything if d.seconds}
    classes = tuple(_of_class(label, found, per_image) for label, found in rows.items())
    states = Counter(review.state for review in finished)
    minutes = sum(seconds.values()) / 60
    return Agreement(classes, states["complete"], states["skipped"], minutes, tuple(people.most_common()))


def wilson_interval(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share of ``hits`` among ``count`` (Wilson 1927), within [0, 1]."""
    share, spread = hits / count, z * z / count
    middle = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def _of_class(label: str, corrections: Sequence[Correction], per_image: Counter[tuple[str, str]]) -> ClassAgreement:
    counts = Counter(map(_outcome, corrections))
    ious = [c.iou for c in corrections if c.iou is not None and _outcome(c) == "reshaped"]
    seconds = sum(c.seconds / per_image[c.path, c.image_id] for c in corrections if c.seconds)
    return ClassAgreement(label, **counts, edit_iou=statistics.median(ious) if ious else None, minutes=seconds / 60)


def _outcome(correction: Correction) -> str:
    if correction.action == "added":
        return "missed"
    if correction.action != "edited":
        return correction.action
    same = normalise(correction.label or "") == normalise(correction.before_label or "")
    return "reshaped" if same else "relabelled"

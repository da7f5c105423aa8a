"""The tables of issues and of qualities, gathered by columns: a million labels are not a million objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from autolabel.issues import SCHEMA
from autolabel.quality.calibrate import Reliability
from autolabel.quality.material import Labels, Pictures
from autolabel.quality.ragged import Flags, Ints, Reals
from autolabel.types import Float

DOUBT = 0.9
"""A better quality is no doubt and gets no row, unless it is flagged."""
_BOX = ("x_min", "y_min", "x_max", "y_max")


class IssueRows:
    """Collects issues of all kinds and gives them out as one table."""

    def __init__(self, pictures: Pictures, names: tuple[str, ...]) -> None:
        self._pictures = pictures
        self._names = names
        self._tables: list[pa.Table] = []

    def add(
        self,
        kind: str,
        image: Ints,
        quality: Reals,
        flagged: Flags,
        reason: Callable[[int], str],
        *,
        ids: Sequence[str] | None = None,
        suggested: Ints | None = None,
        boxes_xyxy: Float | None = None,
        related: Callable[[int], Sequence[str]] | None = None,
        doubt: float = DOUBT,
    ) -> None:
        """Add rows of one kind that are flagged or of a quality below ``doubt``; callables are asked by row."""
        quality = np.clip(np.asarray(quality, np.float32), 0, 1)
        rows = np.flatnonzero(flagged | (quality < doubt)).tolist()
        none = [None] * len(rows)
        columns: dict[str, Any] = {
            "kind": [kind] * len(rows),
            "path": [self._pictures.paths[image[row]] for row in rows],
            "image_id": [self._pictures.ids[image[row]] for row in rows],
            "annotation_id": none if ids is None else [ids[row] for row in rows],
            "quality": quality[rows],
            "flagged": np.asarray(flagged, np.bool_)[rows],
            "suggested_label": none if suggested is None else [self._name(suggested[row]) for row in rows],
            "reason": [reason(row) for row in rows],
            "related": [list(related(row)) if related else [] for row in rows],
        }
        for place, name in enumerate(_BOX):
            columns[name] = none if boxes_xyxy is None else _known(boxes_xyxy[rows, place])
        arrays = [pa.array(columns[field.name], field.type) for field in SCHEMA if field.name != "kind"]
        kinds = pa.array(columns["kind"], pa.string()).dictionary_encode().cast(SCHEMA.field("kind").type)
        self._tables.append(pa.Table.from_arrays([kinds, *arrays], schema=SCHEMA))

    def table(self) -> pa.Table:
        """All issues, in the order they were added."""
        return pa.concat_tables(self._tables).unify_dictionaries() if self._tables else SCHEMA.empty_table()

    def _name(self, label: int) -> str | None:
        return self._names[label] if 0 <= label < len(self._names) else None


@dataclass(slots=True)
class Judged:
    """Issues, quality of each label by kind ``(N,)`` (NaN: not judged), reliability curves, shares of error, notes."""

    issues: IssueRows
    qualities: dict[str, Reals] = field(default_factory=dict)
    curves: dict[str, Reliability] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def quality_table(labels: Labels, pictures: Pictures, names: tuple[str, ...], qualities: dict[str, Reals]) -> pa.Table:
    """One row for each label: where it is, its quality of each kind (null: not judged), and the worst."""
    rows = np.flatnonzero(~labels.crowd)
    stacked = np.stack([values[rows] for values in qualities.values()]) if qualities else np.ones((1, len(rows)))
    worst = np.fmin.reduce(stacked, axis=0)
    columns: dict[str, Any] = {
        "path": [pictures.paths[labels.image[row]] for row in rows],
        "image_id": [pictures.ids[labels.image[row]] for row in rows],
        "annotation_id": [labels.ids[row] for row in rows],
        "label": [names[labels.label[row]] if labels.label[row] >= 0 else None for row in rows],
        **{name: labels.shown_xyxy[rows, place] for place, name in enumerate(_BOX)},
        **{name: _known(values[rows]) for name, values in qualities.items()},
        "quality": _known(worst),
    }
    return pa.table(columns)


def _known(values: Reals) -> pa.Array:
    values = np.asarray(values, np.float32)
    return pa.array(values, pa.float32(), mask=np.isnan(values))

"""What can be loaded: the parts of every named set, with size, licence, and whether they are on this disk."""

from __future__ import annotations

from dataclasses import dataclass

from autolabel.errors import ModelError
from autolabel.models.hub import Located, cached, on_disk
from autolabel.models.sets import SETS, Part
from autolabel.protocols import Task


@dataclass(frozen=True, slots=True)
class Row:
    """One model of one set; ``megabytes`` is what a pull fetches (0: bundled), ``folder`` where it lies, if it does."""

    models: str
    task: Task
    spec: str
    licence: str
    megabytes: int
    folder: str | None
    note: str

    @property
    def here(self) -> bool:
        """Whether the model loads without a download."""
        return self.folder is not None


def catalogue() -> tuple[Row, ...]:
    """List the models of all sets; looks at the disk, never at the network."""
    return tuple(_row(each.name, part) for each in SETS.values() for part in each.parts)


def _row(models: str, part: Part) -> Row:
    found = find(part)
    folder = str(found.folder) if found else None
    return Row(models, part.task, str(part.ref), part.licence, part.megabytes, folder, part.note)


def find(part: Part) -> Located | None:
    """Return where a part lies on this disk, or None."""
    try:
        return on_disk(part.ref) or (None if part.ref.reference == "starter" else cached(part.ref))
    except ModelError:
        return None

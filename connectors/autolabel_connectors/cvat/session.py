"""What all parts of one push share: the server, the run, what was asked for, and what there is to tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autolabel_connectors.account import PushAccount
from autolabel_connectors.cvat.client import Cvat
from autolabel_connectors.cvat.compose import Composer
from autolabel_connectors.cvat.project import Project

if TYPE_CHECKING:
    from autolabel.connect import OnStep, PushOptions, Target
    from autolabel.dataset import Run
    from autolabel_connectors.receipts import Receipts

MAX_BYTES = 8 * 2**20
ROUNDS = 10
"""How often the server is looked at anew before a push gives up on it."""


@dataclass(slots=True)
class Session:
    """One push of a run to a project.

    ``judged``: a noise pass said what is doubted and what is not. ``own_ids`` are annotations that people drew in this
    project, so that they are there already; ``homes`` the path of each annotation that is known. ``limit_bytes`` is
    what goes into one request, and shrinks where a server takes less.
    """

    server: Cvat
    run: Run
    target: Target
    options: PushOptions
    receipts: Receipts
    on_step: OnStep
    project: Project
    composer: Composer
    account: PushAccount
    judged: bool = False
    own_ids: frozenset[str] = field(default_factory=frozenset)
    homes: dict[str, str] = field(default_factory=dict)
    limit_bytes: int = MAX_BYTES

    @property
    def dry(self) -> bool:
        """Whether nothing may be changed."""
        return self.options.dry_run


def named(label: str, score: float | None) -> str:
    """Name a region to a person: its label, and its score where there is one."""
    return label if score is None else f"{label} {score:.2f}"

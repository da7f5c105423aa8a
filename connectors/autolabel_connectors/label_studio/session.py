"""What all parts of one push share: the server, the run, what was asked for, and what there is to tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autolabel.types import LabelIssue
from autolabel_connectors.account import PushAccount
from autolabel_connectors.label_studio.compose import Composer
from autolabel_connectors.label_studio.http import Api
from autolabel_connectors.label_studio.project import Project
from autolabel_connectors.label_studio.remote import Key
from autolabel_connectors.label_studio.uploads import Uploads

if TYPE_CHECKING:
    from autolabel.connect import OnStep, PushOptions
    from autolabel.dataset import Run
    from autolabel_connectors.label_studio.media import Media
    from autolabel_connectors.receipts import Receipts

WINDOW = 500
"""Most tasks of one request: what Label Studio does to count a request's tasks grows with their number squared."""


@dataclass(slots=True)
class Session:
    """One push of a run to a project.

    ``limit`` is how many tasks go into one request, and shrinks where a server takes less. ``in_flight`` are tasks
    whose request was sent and not answered. ``media`` is there as soon as the project is.
    """

    api: Api
    run: Run
    options: PushOptions
    receipts: Receipts
    on_step: OnStep
    project: Project
    composer: Composer
    issues: Mapping[str, Sequence[LabelIssue]]
    account: PushAccount
    media: Media | None = None
    limit: int = WINDOW
    in_flight: dict[Key, str] = field(default_factory=dict)

    @property
    def dry(self) -> bool:
        """Whether nothing may be changed."""
        return self.options.dry_run

    @property
    def uploads(self) -> Uploads | None:
        """Where the images are sent to the server: what sends them."""
        return self.media if isinstance(self.media, Uploads) else None

    def task_note(self, path: str) -> str:
        """Name of the fact that an image had a task in this project."""
        return f"task {self.project.identity} {path}"


def count_regions(count: int) -> str:
    """Say a number of regions."""
    return f"{count} region{'' if count == 1 else 's'}"

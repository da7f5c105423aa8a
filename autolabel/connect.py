"""What an annotation tool's connector offers, and what it is asked and answers; connectors are found by entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from autolabel.errors import UsageError

if TYPE_CHECKING:
    from autolabel.dataset import Run

CONNECTOR_ENTRY_POINTS = "autolabel.connectors"
Shape = Literal["auto", "box", "polygon", "mask"]
Media = Literal["upload", "local", "cloud", "share"]
Order = Literal["path", "noisiest", "uncertain"]
OnStep = Callable[[str, int, int], None]
"""Called with what is being done ("images", "regions" …), how many are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Target:
    """A project on a server. The token is never shown, stored or logged."""

    tool: str
    project: str
    url: str
    token: str = field(default="", repr=False)

    @property
    def source(self) -> str:
        """Name of this target in a run's corrections and receipts: tool, host and project."""
        host = self.url.split("://")[-1].split("@")[-1].strip("/")
        return f"{self.tool} {host} {self.project}"


@dataclass(frozen=True, slots=True)
class PushOptions:
    """How a run is shown to people.

    ``shape`` is what regions become; polygons have at most ``max_vertices`` and are used by ``auto`` where their IoU
    with the mask is at least ``min_iou``. ``media`` says how image data reach the server; ``media_root`` is the folder,
    share or bucket prefix that the server sees. ``order`` decides which images people get first.
    """

    shape: Shape = "auto"
    max_vertices: int = 100
    min_iou: float = 0.95
    media: Media = "upload"
    media_root: str | None = None
    storage_id: int | None = None
    order: Order = "path"
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One thing a push does, or would do: ``what`` ("create task", "update region" …) to which image, and why."""

    what: str
    path: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PushReport:
    """What a push did, or with ``dry_run`` would do.

    ``counts`` by what, ``warnings`` each with a remedy, ``notes`` that need none.
    """

    url: str
    counts: Mapping[str, int]
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PullReport:
    """What came back: ``counts`` of corrections by action and of reviews by state, and what could not be read."""

    url: str
    counts: Mapping[str, int]
    warnings: tuple[str, ...] = ()


@runtime_checkable
class Connector(Protocol):
    """Two-way sync with one kind of annotation tool; both calls are resumable and idempotent.

    ``env_url`` and ``env_token`` are the ecosystem's own environment variables, the most usual first. A connector may
    also have ``env_login``, pairs of variables with user and password, and ``finds_token = True`` if it knows where
    else to look for a token.
    """

    env_url: tuple[str, ...]
    env_token: tuple[str, ...]
    default_url: str | None

    def push(self, run: Run, target: Target, options: PushOptions, on_step: OnStep) -> PushReport:
        """Bring the project up to date with the run, without touching what people made or changed."""
        ...

    def pull(self, run: Run, target: Target, on_step: OnStep, *, dry_run: bool = False) -> PullReport:
        """Bring people's decisions into the run."""
        ...


def connector_names() -> list[str]:
    """Names of the connectors that are installed."""
    return sorted(point.name for point in entry_points(group=CONNECTOR_ENTRY_POINTS))


def load_connector(name: str) -> Connector:
    """Load a connector by name; raises UsageError that lists the known ones or names the missing package."""
    for point in entry_points(group=CONNECTOR_ENTRY_POINTS):
        if point.name == name:
            made = point.load()()
            if not isinstance(made, Connector):
                raise UsageError(f"connector {name!r} ({point.value}) offers no push and pull")
            return made
    raise UsageError(f"no connector {name!r}; known are {', '.join(connector_names()) or 'none'}")

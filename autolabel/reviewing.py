"""What a review tool offers the command line: a run shown to people, and their decisions back; found by entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from autolabel.connect import Change, OnStep
from autolabel.errors import UsageError

if TYPE_CHECKING:
    from autolabel.dataset import Run

REVIEWER_ENTRY_POINTS = "autolabel.reviewers"


@dataclass(frozen=True, slots=True)
class RefreshOptions:
    """What of a run is shown: at most ``limit`` images, the most doubtful first; ``fetch`` copies remote ones here."""

    limit: int | None = None
    fetch: bool = False


@dataclass(frozen=True, slots=True)
class RefreshReport:
    """What a refresh did: images ``added``, ``updated``, ``unchanged``, ``removed``, ``kept`` as a person left them."""

    dataset: str
    counts: Mapping[str, int]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What came back: ``counts`` of decisions by what they are, each a change, and what could not be understood."""

    dataset: str
    counts: Mapping[str, int]
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()


@runtime_checkable
class Reviewer(Protocol):
    """Shows a run to people and brings their decisions back; every call is idempotent."""

    def refresh(self, run: Run, options: RefreshOptions, on_step: OnStep) -> RefreshReport:
        """Bring what is shown up to date with the run; what people did there and did not apply stays."""
        ...

    def serve(
        self, run: Run, *, remote: bool, address: str | None, port: int | None, on_ready: Callable[[str], None]
    ) -> int:
        """Open the app until the person is done; returns on how many images decisions wait to be applied."""
        ...

    def apply(self, run: Run, *, by: str | None, dry_run: bool, on_step: OnStep) -> ApplyReport:
        """Bring people's decisions into the run."""
        ...

    def delete(self, run: Run) -> str | None:
        """Remove what is shown and return its name; None when there was nothing."""
        ...


def load_reviewer(name: str = "fiftyone") -> Reviewer:
    """Load a review tool by name; raises UsageError that lists the known ones."""
    known = {point.name: point for point in entry_points(group=REVIEWER_ENTRY_POINTS)}
    if name not in known:
        raise UsageError(f"no review tool {name!r}; known are {', '.join(sorted(known)) or 'none'}")
    made = known[name].load()()
    if not isinstance(made, Reviewer):
        raise UsageError(f"review tool {name!r} ({known[name].value}) offers no refresh, serve, apply and delete")
    return made

"""What a sync has to tell when it is done, gathered on the way: counts, changes, warnings; the same for every tool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autolabel.connect import Change, PullReport, PushReport
from autolabel.corrections import Decision, write_decisions
from autolabel.types import Review

_MOST_WARNINGS = 50


@dataclass(slots=True)
class PushAccount:
    """What a push did, or with a dry run would do; each warning is kept once."""

    counts: Counter[str] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)
    _told: set[tuple[str, str]] = field(default_factory=set)

    def tell(self, what: str, path: str = "", detail: str = "", *, key: str = "") -> None:
        """Note a change; with a ``key`` once, however often it has to be sent."""
        if key and (what, key) in self._told:
            return
        self._told.add((what, key))
        self.counts[what] += 1
        self.changes.append(Change(what, path, detail))

    def warn(self, text: str) -> None:
        """Note what a person should know, with its remedy."""
        self.warnings[text] = None

    def report(self, url: str, *notes: str) -> PushReport:
        """Sum up; empty notes are left out."""
        said = tuple(note for note in notes if note)
        return PushReport(url, _sorted(self.counts), tuple(self.changes), tuple(self.warnings), said)


@dataclass(slots=True)
class PullAccount:
    """What a pull found beside the decisions themselves."""

    counts: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    def finish(
        self, decisions: Sequence[Decision], run: Path, source: str, *, url: str, dry_run: bool = False
    ) -> PullReport:
        """Make the decisions all that ``source`` says about the run, unless ``dry_run``, and sum up."""
        for decision in decisions:
            if isinstance(decision, Review):
                self.counts[f"images {decision.state}"] += 1
            else:
                self.counts[decision.action if decision.effective else "not effective"] += 1
        if not dry_run:
            write_decisions(run, source, decisions)
        warnings = tuple(dict.fromkeys(self.warnings))
        if (more := len(warnings) - _MOST_WARNINGS) > 0:
            warnings = (*warnings[:_MOST_WARNINGS], f"… and {more} more of the kind")
        return PullReport(url, _sorted(self.counts), warnings)


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in sorted(counts.items()) if count}

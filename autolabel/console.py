"""What a person sees: progress with images/s and the time left, summary tables, errors in one line."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from autolabel.execute import OnProgress, Progress

if TYPE_CHECKING:
    from autolabel.dataset import Run
    from autolabel.models.catalogue import Row
    from autolabel.models.doctor import Check
    from autolabel.models.registry import Backend

_PLAIN_EVERY_S = 10.0
# Eight digits of a commit are enough to read; --json has them all.
_COMMIT = re.compile(r"(@[0-9a-f]{8})[0-9a-f]{32}")


class Screen:
    """Where output goes: tables to stdout, progress and errors to stderr; silent with ``quiet``, JSON with ``json``."""

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet or as_json
        self.out = Console(quiet=self.quiet, highlight=False, soft_wrap=True)
        self.err = Console(stderr=True, quiet=self.quiet, highlight=False, soft_wrap=True)

    def say(self, *parts: Any) -> None:
        """Print for people; nothing with ``quiet`` or ``json``."""
        self.out.print(*parts)

    def emit(self, value: object) -> None:
        """Print JSON for machines, only with ``json``."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")

    def note(self, message: str) -> None:
        """Print a line about work under way, on stderr."""
        self.err.print(message, markup=False)

    @contextmanager
    def progress(self) -> Iterator[OnProgress]:
        """Show how far a run is: a live bar on a terminal, a line every ten seconds elsewhere."""
        if self.quiet:
            yield lambda _: None
        elif self.err.is_terminal:
            with self._live() as show:
                yield show
        else:
            yield self._lines()

    @contextmanager
    def _live(self) -> Iterator[OnProgress]:
        columns = (
            SpinnerColumn(),
            TextColumn("labeling"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with RichProgress(*columns, console=self.err, transient=True, refresh_per_second=4) as bar:
            task = bar.add_task("labeling", total=None, note="loading models")
            clock = _Clock()

            def show(state: Progress) -> None:
                bar.update(task, total=state.total, completed=state.done, note=clock.note(state))

            yield show

    def _lines(self) -> OnProgress:
        clock = _Clock()
        last = time.monotonic()

        def show(state: Progress) -> None:
            nonlocal last
            if state.done and (state.done == state.total or time.monotonic() - last >= _PLAIN_EVERY_S):
                last = time.monotonic()
                self.err.print(f"  {state.done}/{state.total} images  {clock.note(state)}")

        return show


class _Clock:
    """Images per second and the time left, both counted from the first batch on, since that one loads the models."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._before = 0
        self._first: tuple[float, int] | None = None

    def note(self, state: Progress) -> str:
        if state.done == 0:
            return f"loading models ({state.already} images were done before)" if state.already else "loading models"
        now = time.monotonic()
        if self._first is None:
            self._first = (now, state.done)
        elif state.done > self._first[1]:
            self._started, self._before = self._first
        rate = (state.done - self._before) / max(now - self._started, 1e-6)
        left = (state.total - state.done) / rate
        parts = [f"{rate:.1f} images/s" if rate >= 0.1 else f"{1 / rate:.0f} s an image"]
        if state.done < state.total:
            parts.append(f"{_duration(left)} left")
        parts.append(f"{state.annotations} annotations")
        if state.failed:
            parts.append(f"{state.failed} failed")
        return "  ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def run_summary(run: Run, seconds: float | None = None, done: int | None = None) -> dict[str, Any]:
    """Collect what a run came to, as JSON-able values."""
    manifest = run.manifest
    summary: dict[str, Any] = {
        "run": str(run.path),
        "status": manifest.status,
        "counts": manifest.counts,
        "labels": {name: manifest.labels.get(name, 0) for name in run.ontology.names},
        "rejects": manifest.rejects,
        "timings_s": manifest.timings,
        "models": {task: info.spec for task, info in manifest.models.items()},
    }
    if seconds is not None:
        summary["seconds"] = round(seconds, 2)
        summary["images_per_s"] = round((done or 0) / seconds, 2) if seconds > 0 else None
    return summary


def summary_table(run: Run) -> Table:
    """Annotations by class, and what was dropped and why."""
    manifest = run.manifest
    counts = manifest.counts
    path = _plain(str(run.path))
    title = f"{path}  ·  {counts.get('labelled', 0)} images, {counts.get('annotations', 0)} annotations"
    if counts.get("failed"):
        title += f", {counts['failed']} failed"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("class")
    table.add_column("annotations", justify="right")
    for name in run.ontology.names:
        table.add_row(_plain(name), str(manifest.labels.get(name, 0)))
    if manifest.rejects:
        table.add_section()
        for reason, count in sorted(manifest.rejects.items(), key=lambda item: -item[1]):
            table.add_row(f"[dim]dropped: {reason.replace('_', ' ')}[/dim]", f"[dim]{count}[/dim]")
    return table


def empty_hint(run: Run) -> str | None:
    """Say what to try when a run labelled images and found nothing."""
    manifest = run.manifest
    if manifest.counts.get("annotations") or not manifest.counts.get("labelled"):
        return None
    dropped = manifest.rejects.get("low_score", 0)
    hints = []
    if manifest.resolved.get("models") == "starter" and manifest.resolved.get("detector", "").endswith(":starter"):
        hints.append("the starter models know surface defects only: for anything else use --models tiny, base or large")
    if dropped:
        hints.append(f"{dropped} boxes scored too low: look at them with autolabel resolve --min-score 0.2")
    return "nothing found; " + "; ".join(hints or ["try other words for the same thing"])


def failures_table(run: Run, limit: int = 10) -> Table | None:
    """List the first images of the failure ledger, or nothing when it is empty."""
    failures = run.failures()
    if not failures:
        return None
    table = Table(title=f"{len(failures)} images failed", title_justify="left", title_style="bold red")
    for column in ("image", "stage", "why"):
        table.add_column(column, overflow="fold")
    for failure in failures[:limit]:
        table.add_row(_plain(failure.path), failure.stage, _plain(failure.message))
    if len(failures) > limit:
        table.add_row("…", "", f"{len(failures) - limit} more in {run.path / 'failures.jsonl'}")
    return table


def models_table(rows: Sequence[Row]) -> Table:
    """List the named sets."""
    table = Table(title="named sets: --models NAME", title_justify="left", title_style="bold")
    for column in ("set", "part", "model", "licence"):
        table.add_column(column, overflow="fold")
    table.add_column("size", justify="right")
    table.add_column("on disk")
    previous = ""
    for row in rows:
        if previous and row.models != previous:
            table.add_section()
        size = f"{row.megabytes} MB" if row.megabytes else "bundled"
        state = "[green]yes[/green]" if row.here else "[dim]no[/dim]"
        name = "" if row.models == previous else row.models
        table.add_row(name, row.task, _plain(_COMMIT.sub(r"\1", row.spec)), row.licence, size, state)
        previous = row.models
    return table


def backends_table(backends: Sequence[Backend]) -> Table:
    """List the installed backends, a third party's too."""
    table = Table(title="installed backends: --detector BACKEND:MODEL", title_justify="left", title_style="bold")
    for column in ("part", "backend", "from"):
        table.add_column(column)
    for backend in backends:
        table.add_row(backend.task, _plain(backend.name), _plain(f"{backend.distribution} {backend.version}"))
    return table


def checks_table(checks: Sequence[Check]) -> Table:
    """List what the doctor found, with a remedy where something is not fine."""
    marks = {"ok": "[green]ok[/green]", "warn": "[yellow]warn[/yellow]", "fail": "[bold red]fail[/bold red]"}
    table = Table(show_header=False)
    for check in checks:
        remedy = f"\n[bold]{_plain(check.remedy)}[/bold]" if check.remedy else ""
        table.add_row(marks[check.status], _plain(check.name), _plain(check.detail) + remedy)
    return table


def _plain(text: str) -> str:
    return escape(text)

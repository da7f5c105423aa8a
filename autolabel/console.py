"""Where output goes, and progress: images/s and the time left, on a terminal a live bar, elsewhere lines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from autolabel.connect import OnStep
from autolabel.execute import OnProgress, Progress

_PLAIN_EVERY_S = 10.0


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
    def steps(self) -> Iterator[OnStep]:
        """Show how far work with several counted steps is: a bar for each on a terminal, lines elsewhere."""
        if self.quiet:
            yield lambda what, done, total: None
        elif self.err.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn())
            with RichProgress(*columns, TimeRemainingColumn(), console=self.err, transient=True) as bar:
                yield _bars(bar)
        else:
            yield self._step_lines()

    def _step_lines(self) -> OnStep:
        last = time.monotonic()

        def show(what: str, done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= _PLAIN_EVERY_S:
                last = time.monotonic()
                self.err.print(f"  {what}: {done}/{total}")

        return show

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


def _bars(bar: RichProgress) -> OnStep:
    tasks: dict[str, TaskID] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)

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

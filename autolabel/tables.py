"""Tables and summaries of runs, models and people's work, as a person reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from autolabel.agreement import Agreement
    from autolabel.dataset import Run
    from autolabel.models.catalogue import Row
    from autolabel.models.doctor import Check
    from autolabel.models.registry import Backend
    from autolabel.tuning import Outcome, Tuning

# Eight digits of a commit are enough to read; --json has them all.
_COMMIT = re.compile(r"(@[0-9a-f]{8})[0-9a-f]{32}")


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
    if (pace := manifest.pace) is not None:
        share, cost = pace.forward_share, pace.cost_per_1000_images
        summary["pace"] = {
            **pace.model_dump(mode="json"),
            "images_per_s": round(pace.images_per_second, 3),
            "forward_share": None if share is None else round(share, 3),
            "cost_per_1000_images": None if cost is None else round(cost, 6),
        }
    return summary


def pace_line(run: Run, seconds: float, done: int) -> str:
    """Say how fast a pass was that labelled ``done`` images in ``seconds``, and what 1,000 images cost."""
    said = f"{done} images in {seconds:.1f} s, loading included ({done / seconds:.1f} images/s)"
    pace = run.manifest.pace
    if pace is None:
        return said
    said += f"; {pace.images_per_second:.2g} images/s once loaded"
    if (share := pace.forward_share) is not None:
        said += f", {share:.0%} of the time in forward passes"
    if (cost := pace.cost_per_1000_images) is not None:
        said += f"\n1,000 images cost {cost:.4g} at {pace.cost_per_hour:g} an hour"
    return said


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
    if manifest.resolved.get("models") == "starter" and str(manifest.resolved.get("detector")).endswith(":starter"):
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


def agreement_table(found: Agreement) -> Table:
    """List how people corrected each class."""
    table = Table(title="what people made of the labels", title_justify="left", title_style="bold")
    table.add_column("class")
    for column in ("accepted", "95 %", "reshaped", "edit IoU", "relabelled", "deleted", "missed", "minutes"):
        table.add_column(column, justify="right")
    for row in found.classes:
        interval = row.interval
        table.add_row(
            _plain(row.label),
            f"{row.accepted} of {row.proposed}",
            "–" if interval is None else f"{100 * interval[0]:.0f}–{100 * interval[1]:.0f} %",
            str(row.reshaped),
            "–" if row.edit_iou is None else f"{row.edit_iou:.2f}",
            str(row.relabelled),
            str(row.deleted),
            str(row.missed),
            f"{row.minutes:.1f}" if row.minutes else "–",
        )
    return table


def tuning_table(found: Tuning) -> Table:
    """List what each class's threshold comes to, and what a better one would on images not looked at."""
    table = Table(
        title=f"{found.images} images, by {_plain(PurePath(found.against).name)}",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,  # ten columns fit into eighty characters without lines between them
    )
    f = f"\nF{found.beta:g}"
    table.add_column("\nclass", overflow="fold")
    heads = ("\nobjects", "min\nscore", "now\nprec.", "\nrecall", f, "better\nscore", "then\nprec.", "\nrecall", f)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)

    def figures(outcome: Outcome) -> list[str]:
        ratios = (outcome.precision, outcome.recall, outcome.f(found.beta))
        return ["–" if ratio is None else f"{ratio:.2f}" for ratio in ratios]

    for row in found.classes:
        objects = str(row.now.true_positives + row.now.misses)
        better = ["–"] if row.suggested is None else [f"[bold]{row.suggested:.2f}[/bold]", *figures(row.expected)]
        table.add_row(_plain(row.name), objects, f"{row.min_score:.2f}", *figures(row.now), *better)
    table.add_section()
    total = str(found.now.true_positives + found.now.misses)
    table.add_row("all", total, "", *figures(found.now), "", *figures(found.expected), style="bold")
    return table


def tuning_reasons(found: Tuning) -> list[str]:
    """Say why classes keep their thresholds, those of one reason together."""
    reasons: dict[str, list[str]] = {}
    for row in found.classes:
        if row.reason:
            reasons.setdefault(row.reason, []).append(_plain(row.name))
    return [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]

"""``review``: a run in the FiftyOne App, and people's decisions back into the run."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autolabel.commands.common import open_run, output_options, run_argument, screen_for
from autolabel.errors import UsageError

if TYPE_CHECKING:
    from autolabel.console import Screen
    from autolabel.dataset import Run
    from autolabel.reviewing import ApplyReport, RefreshReport, Reviewer

_SHOWN_CHANGES = 20


@click.command()
@run_argument
@click.option("--apply", is_flag=True, help="Bring what was decided in the app into the run, and open nothing.")
@click.option("--dry-run", is_flag=True, help="With --apply: say what would come back, and change nothing.")
@click.option("--by", help="Name of the reviewer.  [default: who is logged in]")
@click.option("--no-app", is_flag=True, help="Bring the dataset up to date and stop.")
@click.option("--remote", is_flag=True, help="Open no browser, and serve until Ctrl-C.")
@click.option("--address", help="Address to serve on; 0.0.0.0 lets other machines in.  [default: localhost]")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to serve on.  [default: the first free from 5151]")
@click.option("--limit", type=click.IntRange(1), help="Show this many images, the most doubtful first.  [default: all]")
@click.option("--fetch", is_flag=True, help="Copy images of other machines into the run folder, to show them.")
@click.option("--delete", is_flag=True, help="Remove the dataset from FiftyOne; the run keeps what was applied.")
@output_options
def review(
    run: Path | None,
    apply: bool,
    dry_run: bool,
    by: str | None,
    no_app: bool,
    remote: bool,
    address: str | None,
    port: int | None,
    limit: int | None,
    fetch: bool,
    delete: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Look through a RUN in the FiftyOne App: boxes, masks, both opinions, label issues; needs the review extra.

    In the app, tag regions accept, reject or relabel:CLASS, change or draw them, and tag images reviewed or skip; then
    bring that into the run with --apply. Images are not copied. Opening again shows the same dataset, up to date.

    \b
    Examples:
      autolabel review                         open the app
      autolabel review --remote --port 5151    on a server; forward the port to your machine
      autolabel review --apply --dry-run       what the reviewer decided
      autolabel review --apply                 into the run, where later passes never overwrite it
    """
    from autolabel.reviewing import RefreshOptions, load_reviewer

    _check_combination(apply=apply, dry_run=dry_run, delete=delete, no_app=no_app)
    screen = screen_for(quiet, as_json)
    opened, reviewer = open_run(run), load_reviewer()

    if delete:
        name = reviewer.delete(opened)
        screen.emit({"deleted": name})
        screen.say(f"removed the dataset [bold]{name}[/bold]" if name else "there was no dataset of this run")
        return
    if apply:
        _tell_applied(screen, reviewer.apply(opened, by=by or _login(), dry_run=dry_run, on_step=_silent), dry_run)
        return
    report = reviewer.refresh(opened, RefreshOptions(limit, fetch), _silent)
    _tell_refreshed(screen, report)
    if not no_app:
        _serve(screen, reviewer, opened, remote=remote, address=address, port=port)


def _serve(
    screen: Screen, reviewer: Reviewer, run: Run, *, remote: bool, address: str | None, port: int | None
) -> None:
    waiting = reviewer.serve(
        run,
        remote=remote,
        address=address,
        port=port,
        on_ready=lambda url: screen.say(f"FiftyOne shows it at [bold]{url}[/bold]; Ctrl-C ends"),
    )
    if waiting:
        screen.say(f"{waiting} images hold decisions that are not in the run yet: autolabel review --apply")


def _tell_refreshed(screen: Screen, report: RefreshReport) -> None:
    screen.emit({"dataset": report.dataset, "counts": report.counts, "warnings": report.warnings})
    what = ", ".join(f"{count} {name}" for name, count in report.counts.items() if count)
    screen.say(f"dataset [bold]{report.dataset}[/bold]: {what or 'no images'}")
    for warning in report.warnings:
        screen.note(f"note: {warning}")


def _tell_applied(screen: Screen, report: ApplyReport, dry_run: bool) -> None:
    from rich.markup import escape

    screen.emit(
        {
            "dataset": report.dataset,
            "dry_run": dry_run,
            "counts": report.counts,
            "changes": [{"what": c.what, "path": c.path, "detail": c.detail} for c in report.changes],
            "warnings": report.warnings,
        }
    )
    for change in report.changes[: None if dry_run else _SHOWN_CHANGES]:
        screen.say(escape(f"  {change.what:<9} {change.path}  {change.detail}".rstrip()))
    if len(report.changes) > _SHOWN_CHANGES and not dry_run:
        screen.say(f"  … {len(report.changes) - _SHOWN_CHANGES} more")
    what = ", ".join(f"{count} {name}" for name, count in report.counts.items())
    verb = "would come" if dry_run else "came"
    screen.say(f"{what} {verb} back from the dataset [bold]{report.dataset}[/bold]" if what else "nothing new to apply")
    for warning in report.warnings:
        screen.note(f"note: {warning}")


def _check_combination(*, apply: bool, dry_run: bool, delete: bool, no_app: bool) -> None:
    if dry_run and not apply:
        raise UsageError("--dry-run says what --apply would do; give both")
    if apply + delete + no_app > 1:
        raise UsageError("--apply, --delete and --no-app are different things to do; give one")


def _login() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a user that has no name
        return None


def _silent(what: str, done: int, total: int) -> None:
    """Show no progress: a refresh of 10,000 images takes seconds."""

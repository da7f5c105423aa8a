"""``push``, ``pull``, ``sync``, ``corrections``: a run and the people who correct it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autolabel.commands.common import open_run, options, output_options, run_argument, screen_for
from autolabel.errors import UsageError

if TYPE_CHECKING:
    from autolabel.connect import Connector, PullReport, PushOptions, PushReport, Target
    from autolabel.console import Screen
    from autolabel.dataset import Run

_MOST_CHANGES = 50
server_options = options(
    click.option("--project", help="The project's name on the server.  [default: the run's name]"),
    click.option("--url", help="The server's address; else LABEL_STUDIO_URL, CVAT_URL … of the environment or .env."),
    click.option("--token", help="Its access token; better set in the environment or in .env than typed."),
    click.option("--env-file", type=click.Path(path_type=Path), help="File with such variables.  [default: .env]"),
    click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing."),
)
push_options = options(
    click.option(
        "--shape",
        type=click.Choice(["auto", "box", "polygon", "mask"]),
        help="What regions become; auto: polygons where they keep the mask, else the mask.  [default: auto]",
    ),
    click.option("--max-vertices", type=click.IntRange(4), help="Most corners of a region's polygons.  [default: 100]"),
    click.option("--min-iou", type=click.FloatRange(0, 1), help="Least IoU of polygon and mask.  [default: 0.95]"),
    click.option(
        "--media",
        type=click.Choice(["upload", "local", "cloud", "share"]),
        help="How images reach the server: sent, or read by it from --media-root.  [default: upload]",
    ),
    click.option("--media-root", help="The folder, share or bucket that holds the images, as the server sees it."),
    click.option("--storage-id", type=int, help="CVAT's number of the cloud storage, with --media cloud."),
    click.option(
        "--order",
        type=click.Choice(["path", "noisiest", "uncertain"]),
        help="Which images people get first.  [default: path]",
    ),
)
_OPTION_NAMES = ("shape", "max_vertices", "min_iou", "media", "media_root", "storage_id", "order")


def _tool_option(name: str, text: str) -> Callable[[Any], Any]:
    return click.option(name, "tool", metavar="TOOL", help=f"{text}: label-studio or cvat.")


@click.command()
@run_argument
@_tool_option("--to", "The tool to push to")
@server_options
@push_options
@output_options
def push(run: Path | None, quiet: bool, as_json: bool, dry_run: bool, **settings: Any) -> None:
    """Bring a RUN's labels to a project of Label Studio or CVAT, where people correct them.

    Makes the project if it is missing. The same push again changes nothing; after a change of the run it updates what
    no person has touched. What people drew, moved, renamed or deleted stays as they left it.

    \b
    Examples:
      autolabel push --to label-studio --project defects
      autolabel push runs/line-3 --to cvat --project line-3 --shape mask --order noisiest
      autolabel push --to label-studio --media local --media-root /data/photos
      autolabel push --dry-run                          again, to where it was pushed before

    The address and the token are read from LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY, CVAT_URL and CVAT_ACCESS_TOKEN.
    """
    screen, opened = screen_for(quiet, as_json), open_run(run)
    results = []
    for connector, target, shown in _targets(opened, settings, "--to"):
        results.append(_push(screen, opened, connector, target, replace(shown, dry_run=dry_run)))
    screen.emit(results[0] if len(results) == 1 else results)


@click.command()
@run_argument
@_tool_option("--from", "The tool to pull from")
@server_options
@output_options
def pull(run: Path | None, quiet: bool, as_json: bool, dry_run: bool, **settings: Any) -> None:
    """Bring people's corrections home into a RUN: what they accepted, changed, deleted and added.

    \b
    Examples:
      autolabel pull                                    from where it was pushed
      autolabel pull runs/line-3 --from cvat --project line-3
      autolabel pull && autolabel export --format coco --out labels/
    """
    screen, opened = screen_for(quiet, as_json), open_run(run)
    results = []
    for connector, target, _ in _targets(opened, settings, "--from"):
        results.append(_pull(screen, opened, connector, target, dry_run=dry_run))
    screen.emit(results[0] if len(results) == 1 else results)


@click.command()
@run_argument
@_tool_option("--with", "The tool to sync with")
@server_options
@push_options
@output_options
def sync(run: Path | None, quiet: bool, as_json: bool, dry_run: bool, **settings: Any) -> None:
    """Pull people's corrections into a RUN, then push what is new.

    \b
    Examples:
      autolabel sync                                    with where it was pushed
      autolabel sync runs/line-3 --with cvat --project line-3 --dry-run
    """
    screen, opened = screen_for(quiet, as_json), open_run(run)
    results = []
    for connector, target, shown in _targets(opened, settings, "--with"):
        pulled = _pull(screen, opened, connector, target, dry_run=dry_run)
        # The run is read anew: what came home is part of what goes out.
        pushed = _push(screen, open_run(opened.path), connector, target, replace(shown, dry_run=dry_run))
        results.append({"pull": pulled, "push": pushed})
    screen.emit(results[0] if len(results) == 1 else results)


@click.command()
@run_argument
@output_options
def corrections(run: Path | None, quiet: bool, as_json: bool) -> None:
    """Say how people corrected a RUN, by class: share accepted, how far edits went, misses, minutes.

    \b
    Examples:
      autolabel corrections
      autolabel corrections runs/line-3 --json
    """
    from autolabel.agreement import agreement
    from autolabel.tables import agreement_table
    from autolabel.tuning import FOLDS
    from autolabel.wording import counted

    screen, opened = screen_for(quiet, as_json), open_run(run)
    found = agreement(opened.ontology.names, opened.corrections(), opened.reviews())
    screen.emit(found.to_json())
    if not found.people:
        screen.say("nobody has corrected this run yet; 'autolabel pull' brings corrections home")
        return
    screen.say(agreement_table(found))
    people = ", ".join(f"{name} ({count})" for name, count in found.people)
    images = counted(found.complete, "images complete")
    screen.say(f"{images}, {found.skipped} skipped, {found.minutes:.1f} minutes; by {people}")
    if found.complete >= FOLDS:
        screen.say("'autolabel tune' finds the thresholds that fit them")


def _targets(run: Run, settings: Mapping[str, Any], option: str) -> Iterator[tuple[Connector, Target, PushOptions]]:
    """Find which projects are meant: the one named, or those the run was pushed to."""
    from autolabel.connect import PushOptions, connector_names, load_connector
    from autolabel.targets import remembered, target_for

    tool, project = settings["tool"], settings["project"]
    known = remembered(run.path, tool, project)
    changes = {name: settings[name] for name in _OPTION_NAMES if settings.get(name) is not None}
    if not known:
        names = ", ".join(connector_names())
        if tool is None:
            raise UsageError(f"{run.path} was not pushed to any such project yet; say {option} TOOL ({names})")
        places = [(tool, project or run.name, settings["url"], PushOptions())]
    else:
        places = [
            (one.target.tool, one.target.project, settings["url"] or one.target.url, one.options) for one in known
        ]
    for name, title, url, shown in places:
        connector = load_connector(name)
        target = target_for(connector, name, title, url=url, token=settings["token"], env_file=settings["env_file"])
        yield connector, target, replace(shown, **changes)


def _push(screen: Screen, run: Run, connector: Connector, target: Target, shown: PushOptions) -> dict[str, Any]:
    from autolabel.targets import forget, remember, remembered

    known = any(one.target.source == target.source for one in remembered(run.path))
    with screen.steps() as on_step:
        # Remembered first: a push that is cut off is found again by a plain `autolabel push`.
        if not shown.dry_run:
            remember(run.path, target, shown)
        try:
            report = connector.push(run, target, shown, on_step)
        except UsageError:
            if not known:
                forget(run.path, target)
            raise
    _say_push(screen, report, dry_run=shown.dry_run)
    return asdict(report)


def _pull(screen: Screen, run: Run, connector: Connector, target: Target, *, dry_run: bool) -> dict[str, Any]:
    with screen.steps() as on_step:
        report = connector.pull(run, target, on_step, dry_run=dry_run)
    _say(screen, "would bring" if dry_run else "pulled", report)
    return asdict(report)


def _say_push(screen: Screen, report: PushReport, *, dry_run: bool) -> None:
    from rich.markup import escape

    if dry_run:
        for change in report.changes[:_MOST_CHANGES]:
            # Names of tasks and files may hold brackets, which are no markup.
            path = f"  [bold]{escape(change.path)}[/bold]" if change.path else ""
            screen.say(f"  {change.what}{path}  {escape(change.detail)}")
        if len(report.changes) > _MOST_CHANGES:
            screen.say(f"  … and {len(report.changes) - _MOST_CHANGES} more; --json lists them all")
    _say(screen, "would change" if dry_run else "pushed", report, done=not dry_run)
    for note in report.notes:
        screen.say(escape(note))


def _say(screen: Screen, verb: str, report: PushReport | PullReport, *, done: bool = True) -> None:
    from autolabel.wording import summed

    screen.say(f"{verb}: {summed(report.counts, done=done) or 'nothing; all is as it should be'}")
    for warning in report.warnings:
        screen.note(f"warning: {warning}")
    screen.say(f"project: [bold]{report.url}[/bold]")

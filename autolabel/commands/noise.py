"""``noise``: which labels a person should look at."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autolabel.commands.common import open_run, output_options, run_argument, screen_for
from autolabel.commands.flags import flag_lines

if TYPE_CHECKING:
    from autolabel.console import Screen
    from autolabel.dataset import Run


@click.command()
@run_argument
@click.option(
    "--labels",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Judge the labels of this COCO file instead of the RUN's own.",
)
@click.option(
    "--evidence",
    "-e",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Another detector's output, COCO results. Can be given more than once.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the pictures of --labels lie, when there is no RUN; for duplicates and image problems.",
)
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Folder to write to.  [default: the RUN]")
@click.option(
    "--second-look",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Show the RUN's detector its images again, mirrored and in pieces; kept in the RUN. auto: up to ten minutes.",
)
@click.option("--people", is_flag=True, help="Judge what people decided, too.")
@click.option("--skip-images", is_flag=True, help="Do not read the pictures: no duplicates, no image problems.")
@click.option("--skip-masks", is_flag=True, help="Do not look at masks.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the errors planted for calibration.")
@output_options
def noise(
    run: Path | None,
    labels: Path | None,
    evidence: tuple[Path, ...],
    images: Path | None,
    out: Path | None,
    second_look: str,
    people: bool,
    skip_images: bool,
    skip_masks: bool,
    seed: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Find labels that are probably wrong in a RUN, or in a dataset that was labelled elsewhere.

    A label is judged by evidence that did not make it. Every doubt has a kind, a quality from 0 (worst) to 1, a reason
    and, where there is one, a suggestion: RUN/issues.parquet; the quality of every label: RUN/quality.parquet.

    \b
    Examples:
      autolabel noise                                            the last run, by other opinions and a second look
      autolabel noise runs/scratch-dent-1f0c2a --second-look on  however long the second look takes
      autolabel noise --labels people.json                       people's labels, by the run
      autolabel noise --evidence other_detector.json             the run, by another detector too
      autolabel noise --labels coco.json --evidence results.json --images photos/     no run at all
    """
    from autolabel.quality.noise import NoiseOptions, find_noise

    screen = screen_for(quiet, as_json)
    # Labels and evidence from elsewhere are complete without a run; one that is named is further evidence.
    opened = None if run is None and labels is not None and evidence else open_run(run)
    if opened is not None and second_look != "off":
        _look_again(screen, opened, wanted=second_look == "on")
    options = NoiseOptions(people=people, images=not skip_images, masks=not skip_masks, seed=seed)
    result = find_noise(opened, labels, evidence, out=out, images=images, options=options)
    screen.emit({**asdict(result), "folder": str(result.folder)})
    lesser = result.doubts - sum(result.flagged.values())
    screen.say(f"{result.labels} labels of {result.images} images were judged; {lesser} lesser doubts are not flagged")
    shown = "autolabel review" if opened is not None and out is None and labels is None else str(result.folder)
    for line in flag_lines(result, shown) or ["nothing was flagged"]:
        screen.say(line)
    for note in result.notes:
        screen.say(f"note: {note}")
    screen.say(f"issues: [bold]{result.folder / 'issues.parquet'}[/bold]")


def _look_again(screen: Screen, run: Run, *, wanted: bool) -> None:
    """Take a run's second look; unless it was ``wanted``, what stands in its way is said and no error."""
    from autolabel.errors import AutolabelError
    from autolabel.second_look import LONGEST_S, estimate, look_again

    seconds = estimate(run)
    if seconds > LONGEST_S and not wanted:
        screen.note(f"no second look: it would take about {seconds / 60:.0f} min; --second-look on takes it")
        return
    try:
        with screen.steps() as show:
            unread = look_again(run, on_look=lambda done, of: show("second look", done, of))
    except AutolabelError as error:
        if wanted:
            raise
        screen.note(f"no second look: {error}")
        return
    if unread:
        screen.note(f"warning: {unread} images could not be read again; they had no second look")

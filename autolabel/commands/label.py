"""``run``, ``resolve``, ``show``: make a run, settle it anew, look at it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autolabel.commands.common import (
    EXIT_PARTIAL,
    open_run,
    output_options,
    recipe_changes,
    run_argument,
    screen_for,
    threshold_options,
)
from autolabel.commands.flags import flag_lines

if TYPE_CHECKING:
    from autolabel.console import Screen
    from autolabel.dataset import Run
    from autolabel.execute import Progress
    from autolabel.quality import NoiseResult


@click.command()
@click.argument("images", nargs=-1)
@click.option("--prompt", "-p", help='What to look for, for example "scratch. dent."')
@click.option("--recipe", "-r", help="A TOML recipe, or the name of one.  [default: ./autolabel.toml if it is there]")
@click.option("--run", "path", type=click.Path(path_type=Path), help="Run folder.  [default: runs/NAME from the input]")
@click.option("--models", help="Named set: starter, tiny, base, large.  [default: starter]")
@click.option("--detector", help="Spec, folder or .pth of the detector.")
@click.option("--segmenter", help='Spec, folder or .pt of the segmenter; "none" for boxes only.')
@click.option("--classifier", help='Spec or folder of the classifier; "none" for the detector\'s labels.')
@threshold_options
@click.option("--floor", type=click.FloatRange(0, 1), help="Lowest score that is stored.  [default: 0.1]")
@click.option("--tiles", type=click.Choice(["auto", "off", "on"]), help="Large images in pieces.  [default: auto]")
@click.option("--tile-size", type=click.IntRange(64), help="Side of a tile, px.  [default: by the detector's input]")
@click.option("--batch-size", type=click.IntRange(1), help="Images of a batch, and of a commit.  [default: 16]")
@click.option(
    "--engine",
    type=click.Choice(["auto", "ray", "sequential"]),
    help="Where: this machine, or a Ray cluster.  [default: auto]",
)
@click.option("--workers", type=click.IntRange(1), help="Processes with models of their own.  [default: one a GPU]")
@click.option("--cost-per-hour", type=click.FloatRange(0), help="Price of the machine, to say what 1,000 images cost.")
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: the best there is]")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="[default: what the device likes]")
@click.option("--cpu", type=click.Choice(["auto", "eager", "openvino"]), help="How to run on a CPU.  [default: auto]")
@click.option("--compile", type=click.Choice(["auto", "on", "off"]), help="Compile on CUDA.  [default: in long runs]")
@click.option("--offline", is_flag=True, help="Never ask a model hub.")
@click.option("--retry-failed", is_flag=True, help="Try the images of the failure ledger again.")
@click.option("--noise/--no-noise", default=True, help="Look for label noise at the end.  [default: --noise]")
@click.option("--report/--no-report", default=True, help="Write RUN/report.html at the end.  [default: --report]")
@output_options
def run(
    images: tuple[str, ...],
    path: Path | None,
    offline: bool,
    retry_failed: bool,
    noise: bool,
    report: bool,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Label IMAGES: files, folders, globs, a manifest (.txt, .csv, .jsonl) or URIs (s3://, gs://, https://).

    Without IMAGES: those of autolabel.toml, else ./images, else the working directory. The same command again
    resumes where it stopped and repeats nothing; with other thresholds it re-resolves without a model call.

    \b
    Examples:
      autolabel run --prompt "scratch. dent."
      autolabel run "photos/**/*.png" -p "scratch. dent. rust." --min-score 0.4
      autolabel run s3://bucket/line-3/ --recipe line-3.toml --models base
      autolabel run photos/ -p "dent." --detector grounding-dino:IDEA-Research/grounding-dino-base
      autolabel run photos/ -p "dent." --device cpu --workers 4 --cpu openvino --no-noise
      autolabel run s3://bucket/ -p "dent." --engine ray --cost-per-hour 12.50

    Exit codes: 0 done, 1 error, 2 usage, 3 partial (some images failed; RUN/failures.jsonl says why).
    """
    from autolabel import runner
    from autolabel.config import load_recipe
    from autolabel.issues import read_notes

    screen = screen_for(quiet, as_json)
    recipe = load_recipe(settings.pop("recipe"))[0]
    changes = recipe_changes(settings)
    started, done = time.monotonic(), 0
    with screen.progress() as show:

        def watch(state: Progress) -> None:
            nonlocal done
            done = state.done
            show(state)

        labelled = runner.run(
            images,
            recipe=recipe.merged(changes),
            path=path,
            offline=offline,
            retry_failed=retry_failed,
            on_progress=watch,
        )
    seconds = time.monotonic() - started
    # Issues stand as long as labels do: those of a run that grew are found anew, asked for or not.
    stale = done > 0 and (read_notes(labelled.path) or {}).get("labels") == "run"
    judge = (noise or stale) and not _judged(labelled)
    _finish(screen, labelled, noise=judge, report=report, seconds=seconds, done=done)


@click.command()
@run_argument
@threshold_options
@click.option("--recipe", "-r", help="Take thresholds from this recipe.")
@output_options
def resolve(run: Path | None, recipe: str | None, quiet: bool, as_json: bool, **settings: Any) -> None:
    """Apply other thresholds to a finished RUN, from its stored proposals, without a model call.

    \b
    Examples:
      autolabel resolve --min-score 0.45
      autolabel resolve runs/scratch-dent-1f0c2a --assign fused --min-prob 0.6
      autolabel resolve --recipe line-3.toml           per-class thresholds
    """
    from autolabel import runner
    from autolabel.config import load_recipe
    from autolabel.issues import read_notes

    changes = recipe_changes(settings)
    if recipe is not None:
        given = load_recipe(recipe)[0].merged(changes).model_dump(exclude_defaults=True)
        changes = {key: value for key, value in given.items() if key not in ("images", "models")}
    screen = screen_for(quiet, as_json)
    settled = runner.resolve_run(open_run(run), changes)
    # Issues and a report that are there would speak of the old thresholds.
    judged = (read_notes(settled.path) or {}).get("labels") == "run"
    _finish(screen, settled, noise=judged, report=(settled.path / "report.html").is_file())


@click.command()
@run_argument
@output_options
def show(run: Path | None, quiet: bool, as_json: bool) -> None:
    """Show what a RUN came to: annotations by class, what was dropped and why, failures.

    \b
    Examples:
      autolabel show
      autolabel show runs/scratch-dent-1f0c2a --json
    """
    _finish(screen_for(quiet, as_json), open_run(run), noise=False, report=False)


def _finish(
    screen: Screen,
    labelled: Run,
    *,
    noise: bool,
    report: bool,
    seconds: float | None = None,
    done: int | None = None,
) -> None:
    """Print what a run came to; exit with 3 when images failed."""
    from autolabel.tables import empty_hint, failures_table, pace_line, run_summary, summary_table

    summary = run_summary(labelled, seconds, done)
    found = _judge(screen, labelled) if noise and labelled.manifest.counts.get("annotations") else None
    if found is not None:
        summary["flagged"] = found.flagged
    if report:
        from autolabel.report import write_report

        summary["report"] = str(write_report(labelled, labelled.path / "report.html"))
    screen.emit(summary)
    screen.say(summary_table(labelled))
    if (failures := failures_table(labelled)) is not None:
        screen.say(failures)
    if seconds is not None and done:
        screen.say(pace_line(labelled, seconds, done))
    elif seconds is not None:
        screen.say("nothing to do: every image was labelled before")
    if (hint := empty_hint(labelled)) is not None:
        screen.say(hint)
    for line in flag_lines(found) if found is not None else []:
        screen.say(line)
    if report:
        screen.say(f"report: [bold]{summary['report']}[/bold]")
    if labelled.manifest.status == "partial":
        sys.exit(EXIT_PARTIAL)


def _judged(labelled: Run) -> bool:
    """Tell whether there is nothing new to look at."""
    from autolabel.quality.noise import up_to_date

    return up_to_date(labelled)


def _judge(screen: Screen, labelled: Run) -> NoiseResult | None:
    """Look for label noise; what goes wrong there costs the flags and not the labels."""
    from autolabel.quality import find_noise

    screen.note("looking for label noise")
    try:
        return find_noise(labelled)
    except Exception as error:  # hours of labeling must not end in the traceback of a last, optional step
        screen.note(f"warning: label noise was not looked for: {type(error).__name__}: {error}")
        return None

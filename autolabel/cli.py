"""The command line: parse, call, print. Exit codes: 0 done, 1 error, 2 usage, 3 partial (some images failed)."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from autolabel import __version__
from autolabel.errors import AutolabelError, UsageError

if TYPE_CHECKING:
    from autolabel.console import Screen
    from autolabel.dataset import Run
    from autolabel.execute import Progress

EXIT_ERROR, EXIT_USAGE, EXIT_PARTIAL, EXIT_INTERRUPTED = 1, 2, 3, 130
_Command = TypeVar("_Command", bound=Callable[..., Any])
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def _options(*decorators: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    def apply(command: _Command) -> _Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


_output = _options(
    click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else, on stdout."),
)
_run_argument = click.argument("run", required=False, type=click.Path(path_type=Path), metavar="[RUN]")
_thresholds = _options(
    click.option("--min-score", type=click.FloatRange(0, 1), help="Lowest detector score.  [default: 0.35]"),
    click.option("--min-prob", type=click.FloatRange(0, 1), help="Lowest classifier probability.  [default: 0]"),
    click.option("--min-area", "min_area_px", type=click.FloatRange(0), help="Smallest box, px².  [default: 0]"),
    click.option("--nms-iou", type=click.FloatRange(0, 1), help="Overlap that is one object.  [default: 0.5]"),
    click.option(
        "--assign",
        type=click.Choice(["classifier", "detector", "fused"]),
        help="Which model's opinion becomes the label.  [default: classifier]",
    ),
)


@click.group(context_settings=_CONTEXT)
@click.version_option(__version__, "-V", "--version", prog_name="autolabel")
@click.option("--verbose", "-v", count=True, help="Say more on stderr; twice for debugging.")
def cli(verbose: int) -> None:
    """Text in, corrected labels out: boxes, masks and labels for your images from a prompt.

    \b
    Examples:
      autolabel run --prompt "scratch. dent."          label ./images (or the working directory)
      autolabel run photos/ --prompt "scratch. dent." --models base
      autolabel resolve --min-score 0.45               other thresholds, no model call
      autolabel report                                 one HTML page to look at
      autolabel export --format coco --out labels/

    Commands without a RUN use the one that the last `autolabel run` in this directory made.
    """
    levels = {0: logging.ERROR, 1: logging.INFO}
    logging.basicConfig(level=levels.get(verbose, logging.DEBUG), format="%(levelname)s %(name)s: %(message)s")


@cli.command()
@click.argument("images", nargs=-1)
@click.option("--prompt", "-p", help='What to look for, for example "scratch. dent."')
@click.option("--recipe", "-r", help="A TOML recipe, or the name of one.  [default: ./autolabel.toml if it is there]")
@click.option("--run", "path", type=click.Path(path_type=Path), help="Run folder.  [default: runs/NAME from the input]")
@click.option("--models", help="Named set: starter, tiny, base, large.  [default: starter]")
@click.option("--detector", help="Spec, folder or .pth of the detector.")
@click.option("--segmenter", help='Spec, folder or .pt of the segmenter; "none" for boxes only.')
@click.option("--classifier", help='Spec or folder of the classifier; "none" for the detector\'s labels.')
@_thresholds
@click.option("--floor", type=click.FloatRange(0, 1), help="Lowest score that is stored.  [default: 0.1]")
@click.option("--batch-size", type=click.IntRange(1), help="Images of a batch, and of a commit.  [default: 16]")
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: the best there is]")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="[default: what the device likes]")
@click.option("--offline", is_flag=True, help="Never ask a model hub.")
@click.option("--retry-failed", is_flag=True, help="Try the images of the failure ledger again.")
@click.option("--report/--no-report", default=True, help="Write RUN/report.html at the end.  [default: --report]")
@_output
def run(
    images: tuple[str, ...],
    path: Path | None,
    offline: bool,
    retry_failed: bool,
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

    Exit codes: 0 done, 1 error, 2 usage, 3 partial (some images failed; RUN/failures.jsonl says why).
    """
    from autolabel import runner
    from autolabel.config import load_recipe

    screen = _screen(quiet, as_json)
    recipe = load_recipe(settings.pop("recipe"))[0]
    changes = _recipe_changes(settings)
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
    _finish(screen, labelled, report=report, seconds=time.monotonic() - started, done=done)


@cli.command()
@_run_argument
@_thresholds
@click.option("--recipe", "-r", help="Take thresholds from this recipe.")
@_output
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

    changes = _recipe_changes(settings)
    if recipe is not None:
        given = load_recipe(recipe)[0].merged(changes).model_dump(exclude_defaults=True)
        changes = {key: value for key, value in given.items() if key not in ("images", "models")}
    screen = _screen(quiet, as_json)
    _finish(screen, runner.resolve_run(_open(run), changes), report=False)


@cli.command()
@_run_argument
@_output
def show(run: Path | None, quiet: bool, as_json: bool) -> None:
    """Show what a RUN came to: annotations by class, what was dropped and why, failures.

    \b
    Examples:
      autolabel show
      autolabel show runs/scratch-dent-1f0c2a --json
    """
    _finish(_screen(quiet, as_json), _open(run), report=False)


@cli.command()
@_run_argument
@click.option(
    "--format", "fmt", required=True, type=click.Choice(["coco", "yolo", "yolo-seg", "voc"]), help="Format to write."
)
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Folder to write.  [default: RUN/export-FORMAT]")
@click.option("--split", help='Shares of train, val and test, for example "0.8,0.1,0.1"; by hash of the content.')
@click.option(
    "--images", type=click.Choice(["none", "copy", "link"]), default="none", help="Bring the images.  [default: none]"
)
@click.option(
    "--segmentation", type=click.Choice(["rle", "polygon"]), default="rle", help="Masks in COCO.  [default: rle]"
)
@click.option(
    "--tolerance-px", type=click.FloatRange(0), default=0.5, show_default=True, help="Simplify polygons by this much."
)
@_output
def export(
    run: Path | None,
    fmt: str,
    out: Path | None,
    split: str | None,
    images: str,
    segmentation: str,
    tolerance_px: float,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write a RUN's annotations for training tools: COCO, YOLO boxes or polygons, Pascal VOC.

    \b
    Examples:
      autolabel export --format coco --out labels/
      autolabel export --format yolo-seg --split 0.8,0.1,0.1 --images link --out dataset/
    """
    from autolabel.export import export_run

    screen = _screen(quiet, as_json)
    opened = _open(run)
    target = out or opened.path / f"export-{fmt}"
    result = export_run(
        opened,
        fmt,  # type: ignore[arg-type]  # click checked the three choices
        target,
        split=_shares(split),
        images=images,  # type: ignore[arg-type]
        segmentation=segmentation,  # type: ignore[arg-type]
        tolerance_px=tolerance_px,
    )
    screen.emit({"folder": str(result.folder), "images": result.images, "annotations": result.annotations})
    screen.say(
        f"{result.annotations} annotations of {sum(result.images.values())} images: [bold]{result.folder}[/bold]"
    )
    for note in result.notes:
        screen.say(f"note: {note}")


@cli.command()
@_run_argument
@click.option("--out", "-o", type=click.Path(path_type=Path), help="File to write.  [default: RUN/report.html]")
@click.option("--max-images", type=click.IntRange(0), default=200, show_default=True, help="Most pictures in the page.")
@_output
def report(run: Path | None, out: Path | None, max_images: int, quiet: bool, as_json: bool) -> None:
    """Write one self-contained HTML page about a RUN: pictures, counts, scores, failures, timings, models.

    \b
    Examples:
      autolabel report
      autolabel report runs/scratch-dent-1f0c2a --out report.html --max-images 500
    """
    from autolabel.report import write_report

    screen = _screen(quiet, as_json)
    opened = _open(run)
    written = write_report(opened, out or opened.path / "report.html", max_images=max_images)
    screen.emit({"report": str(written)})
    screen.say(f"report: [bold]{written}[/bold]")


@cli.command("eval")
@_run_argument
@click.option(
    "--against",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="COCO ground truth (.json).",
)
@click.option(
    "--ranked",
    type=click.Choice(["annotations", "proposals"]),
    default="annotations",
    help="Take AP over the annotations, or over all stored proposals as papers do.  [default: annotations]",
)
@_output
def evaluate(run: Path | None, against: Path, ranked: str, quiet: bool, as_json: bool) -> None:
    """Compare a RUN with ground truth: box and mask AP by pycocotools, precision and recall by class.

    \b
    Examples:
      autolabel eval --against sample_data/coco.json
      autolabel eval runs/scratch-dent-1f0c2a --against truth.json --ranked proposals --json
    """
    from autolabel.evaluate import evaluate as compare
    from autolabel.evaluate import print_result

    screen = _screen(quiet, as_json)
    result = compare(_open(run), against, ranked=ranked)  # type: ignore[arg-type]  # click checked the choice
    screen.emit(result.to_json())
    if not screen.quiet:
        print_result(result, screen.out)


@cli.group(invoke_without_command=True)
@click.pass_context
@_output
def models(context: click.Context, quiet: bool, as_json: bool) -> None:
    """List the named sets and installed backends, with size, licence, and whether they are on disk.

    \b
    Examples:
      autolabel models
      autolabel models --json
      autolabel models pull base
    """
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from autolabel.console import backends_table, models_table
    from autolabel.models.catalogue import catalogue
    from autolabel.models.registry import backends

    screen = _screen(quiet, as_json)
    rows, installed = catalogue(), backends()
    screen.emit(
        {
            "models": [{**asdict(row), "on_disk": row.here} for row in rows],
            "backends": [asdict(backend) for backend in installed],
        }
    )
    screen.say(models_table(rows))
    screen.say(backends_table(installed))


@models.command()
@click.argument("what")
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), help="Also copy the models into this folder.")
@_output
def pull(what: str, to: Path | None, quiet: bool, as_json: bool) -> None:
    """Fetch a set (tiny, base, large) or one spec from the hub, check its hashes, and lock its revision.

    \b
    Examples:
      autolabel models pull base
      autolabel models pull grounding-dino:IDEA-Research/grounding-dino-tiny
      autolabel models pull base --to models      for a machine without network
    """
    from autolabel.models.pull import pull as fetch

    screen = _screen(quiet, as_json)
    folders = fetch(what, to, screen.note)
    screen.emit({"folders": [str(folder) for folder in folders]})
    for folder in folders:
        screen.say(f"[bold]{folder}[/bold]")


@cli.command()
@click.option("--device", help="Check this device instead of the best there is.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Check this dtype.")
@click.option("--hub", is_flag=True, help="Also ask whether the model hub can be reached.")
@_output
def doctor(device: str | None, dtype: str | None, hub: bool, quiet: bool, as_json: bool) -> None:
    """Tell what is installed, which device and dtype are used, which weights are there, and what to do.

    \b
    Examples:
      autolabel doctor
      autolabel doctor --device cuda --hub
    """
    from dataclasses import asdict

    from autolabel.console import checks_table
    from autolabel.models.doctor import run_checks

    screen = _screen(quiet, as_json)
    checks = run_checks(device, dtype, hub=hub)
    screen.emit([asdict(check) for check in checks])
    screen.say(checks_table(checks))
    if any(check.status == "fail" for check in checks):
        sys.exit(EXIT_ERROR)


def _screen(quiet: bool, as_json: bool) -> Screen:
    from autolabel.console import Screen

    return Screen(quiet=quiet, as_json=as_json)


def _open(path: Path | None) -> Run:
    from autolabel.dataset import Run

    return Run.open(path)


def _recipe_changes(settings: dict[str, Any]) -> dict[str, Any]:
    """Sort flat options into the recipe's tables."""
    changes = dict(settings)
    names = ("min_score", "min_prob", "min_area_px", "nms_iou")
    changes["thresholds"] = {name: changes.pop(name, None) for name in names}
    changes["proposals"] = {"floor": changes.pop("floor", None)}
    return {key: value for key, value in changes.items() if value is not None}


def _shares(split: str | None) -> tuple[float, ...] | None:
    if split is None:
        return None
    try:
        return tuple(float(part) for part in split.split(","))
    except ValueError:
        raise UsageError(f'--split must be numbers such as "0.8,0.1,0.1", got {split!r}') from None


def _finish(
    screen: Screen, labelled: Run, *, report: bool, seconds: float | None = None, done: int | None = None
) -> None:
    """Print what a run came to; exit with 3 when images failed."""
    from autolabel.console import empty_hint, failures_table, run_summary, summary_table

    summary = run_summary(labelled, seconds, done)
    if report:
        from autolabel.report import write_report

        summary["report"] = str(write_report(labelled, labelled.path / "report.html"))
    screen.emit(summary)
    screen.say(summary_table(labelled))
    if (failures := failures_table(labelled)) is not None:
        screen.say(failures)
    if seconds is not None and done:
        screen.say(f"{done} images in {seconds:.1f} s ({done / seconds:.1f} images/s)")
    elif seconds is not None:
        screen.say("nothing to do: every image was labelled before")
    if (hint := empty_hint(labelled)) is not None:
        screen.say(hint)
    if report:
        screen.say(f"report: [bold]{summary['report']}[/bold]")
    if labelled.manifest.status == "partial":
        sys.exit(EXIT_PARTIAL)


def main() -> None:
    """Run the command line; errors that a user can act on are one line, without a traceback."""
    # By default OpenMP's idle threads spin. On a machine that does anything else besides, they spin on cores that
    # others hold, and a pass takes 30 times longer (measured). The runtime reads this once, when torch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = cli(standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted; the same command goes on where this stopped", EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on where this stopped", EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UsageError as error:
        _fail(str(error), EXIT_USAGE)
    except AutolabelError as error:
        _fail(str(error), EXIT_ERROR)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()

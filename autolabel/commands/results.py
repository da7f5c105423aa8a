"""``export``, ``report``, ``eval``, ``tune``: what comes out of a run."""

from __future__ import annotations

from pathlib import Path

import click

from autolabel.commands.common import open_run, output_options, run_argument, screen_for
from autolabel.errors import UsageError


@click.command()
@run_argument
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
@output_options
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

    screen = screen_for(quiet, as_json)
    opened = open_run(run)
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


@click.command()
@run_argument
@click.option("--out", "-o", type=click.Path(path_type=Path), help="File to write.  [default: RUN/report.html]")
@click.option("--max-images", type=click.IntRange(0), default=200, show_default=True, help="Most pictures in the page.")
@output_options
def report(run: Path | None, out: Path | None, max_images: int, quiet: bool, as_json: bool) -> None:
    """Write one self-contained HTML page about a RUN: pictures, counts, scores, failures, timings, models.

    \b
    Examples:
      autolabel report
      autolabel report runs/scratch-dent-1f0c2a --out report.html --max-images 500
    """
    from autolabel.report import write_report

    screen = screen_for(quiet, as_json)
    opened = open_run(run)
    written = write_report(opened, out or opened.path / "report.html", max_images=max_images)
    screen.emit({"report": str(written)})
    screen.say(f"report: [bold]{written}[/bold]")


@click.command("eval")
@run_argument
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
@output_options
def evaluate(run: Path | None, against: Path, ranked: str, quiet: bool, as_json: bool) -> None:
    """Compare a RUN with ground truth: box and mask AP by pycocotools, precision and recall by class.

    \b
    Examples:
      autolabel eval --against sample_data/coco.json
      autolabel eval runs/scratch-dent-1f0c2a --against truth.json --ranked proposals --json
    """
    from autolabel.evaluate import evaluate as compare
    from autolabel.evaluate import print_result

    screen = screen_for(quiet, as_json)
    result = compare(open_run(run), against, ranked=ranked)  # type: ignore[arg-type]  # click checked the choice
    screen.emit(result.to_json())
    if not screen.quiet:
        print_result(result, screen.out)


@click.command()
@run_argument
@click.option(
    "--against",
    type=click.Path(path_type=Path, dir_okay=False),
    help="COCO ground truth (.json).  [default: the images that people finished]",
)
@click.option(
    "--beta",
    type=click.FloatRange(0.1, 10),
    default=1.0,
    show_default=True,
    help="How many times recall counts as precision; 2: rather delete boxes than draw them.",
)
@click.option("--out", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Recipe (.toml) to write.")
@output_options
def tune(run: Path | None, against: Path | None, beta: float, out: Path | None, quiet: bool, as_json: bool) -> None:
    """Find the thresholds that fit what people corrected in a RUN: for each class, the detector's score to ask for.

    No model runs, and nothing of the RUN is changed. Figures of a better threshold are of images that had no part in
    choosing it.

    \b
    Examples:
      autolabel pull && autolabel tune
      autolabel tune --beta 2 --out line-3.toml
      autolabel resolve --recipe line-3.toml           this run: what people decided stays
      autolabel run more/ --recipe line-3.toml         the next batch
    """
    import tomli_w

    from autolabel.tables import tuning_reasons, tuning_table
    from autolabel.tuning import tune as find

    if out is not None and out.exists():
        raise UsageError(f"{out} is there already, and may be somebody's work; name another --out")
    screen, opened = screen_for(quiet, as_json), open_run(run)
    found = find(opened, against, beta=beta)
    screen.emit({**found.to_json(), "recipe": str(out) if out else None})
    screen.say(tuning_table(found))
    for line in tuning_reasons(found):
        screen.say(line)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(tomli_w.dumps(found.recipe(opened)), encoding="utf-8")
        screen.say(f"recipe: [bold]{out}[/bold]; 'autolabel resolve --recipe {out}', and the next batch with the same")
    elif found.changed:
        screen.say("write a recipe with these thresholds by --out FILE.toml")


def _shares(split: str | None) -> tuple[float, ...] | None:
    if split is None:
        return None
    try:
        return tuple(float(part) for part in split.split(","))
    except ValueError:
        raise UsageError(f'--split must be numbers such as "0.8,0.1,0.1", got {split!r}') from None

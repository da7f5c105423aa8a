"""What several commands share: options, exit codes, and how a run is opened and a screen chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from autolabel.console import Screen
    from autolabel.dataset import Run

EXIT_ERROR, EXIT_USAGE, EXIT_PARTIAL, EXIT_INTERRUPTED = 1, 2, 3, 130
Command = TypeVar("Command", bound=Callable[..., Any])


def options(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Join several option decorators into one, in the order they are given."""

    def apply(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


output_options = options(
    click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else, on stdout."),
)
run_argument = click.argument("run", required=False, type=click.Path(path_type=Path), metavar="[RUN]")
threshold_options = options(
    click.option("--min-score", type=click.FloatRange(0, 1), help="Lowest detector score.  [default: 0.35]"),
    click.option(
        "--min-prob", type=click.FloatRange(0, 1), help="Lowest classifier probability.  [default: the classifier's; 0]"
    ),
    click.option("--min-area", "min_area_px", type=click.FloatRange(0), help="Smallest box, px².  [default: 0]"),
    click.option("--nms-iou", type=click.FloatRange(0, 1), help="Overlap that is one object.  [default: 0.5]"),
    click.option(
        "--boxes",
        type=click.Choice(["detector", "mask"]),
        help="Whose box: the detector's, or the mask's where that can be trusted.  [default: the run's; new: mask]",
    ),
    click.option(
        "--assign",
        type=click.Choice(["classifier", "detector", "fused"]),
        help="Which model's opinion becomes the label.  [default: classifier]",
    ),
)


def screen_for(quiet: bool, as_json: bool) -> Screen:
    """Choose where output goes."""
    from autolabel.console import Screen

    return Screen(quiet=quiet, as_json=as_json)


def open_run(path: Path | None) -> Run:
    """Open the run at ``path``, or the last one of this directory."""
    from autolabel.dataset import Run

    return Run.open(path)


def recipe_changes(settings: dict[str, Any]) -> dict[str, Any]:
    """Sort flat options into the recipe's tables."""
    changes = dict(settings)
    names = ("min_score", "min_prob", "min_area_px", "nms_iou", "boxes")
    changes["thresholds"] = {name: changes.pop(name, None) for name in names}
    changes["tiles"] = {"mode": changes.pop("tiles", None), "size": changes.pop("tile_size", None)}
    changes["proposals"] = {"floor": changes.pop("floor", None)}
    return {key: value for key, value in changes.items() if value is not None}

"""``serve``: answer an annotation tool with the models of a recipe."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from autolabel.commands.common import options, recipe_changes, threshold_options
from autolabel.errors import UsageError

_SHOWN = ("max_vertices", "min_iou", "shape", "max_bytes", "pull_delay_s")
serve_options = options(
    click.option("--prompt", "-p", help='What to look for, for example "scratch. dent."'),
    click.option("--recipe", "-r", help="A TOML recipe, or the name of one.  [default: ./autolabel.toml if there]"),
    click.option("--models", help="Named set: starter, tiny, base, large.  [default: starter]"),
    click.option("--detector", help="Spec, folder or .pth of the detector."),
    click.option("--segmenter", help='Spec, folder or .pt of the segmenter; "none" for boxes only.'),
    click.option("--classifier", help='Spec or folder of the classifier; "none" for the detector\'s labels.'),
    threshold_options,
    click.option("--floor", type=click.FloatRange(0, 1), help="Lowest score of a proposal.  [default: 0.1]"),
    click.option("--batch-size", type=click.IntRange(1), help="Images of a batch.  [default: 16]"),
    click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: the best there is]"),
    click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Number format of the models."),
    click.option("--cpu", type=click.Choice(["auto", "eager", "openvino"]), help="How to run on a CPU."),
    click.option("--compile", type=click.Choice(["auto", "on", "off"]), help="Whether to compile on CUDA."),
    click.option("--offline", is_flag=True, help="Never ask a model hub."),
)


@click.command()
@click.argument("tool", metavar="TOOL")
@serve_options
@click.option("--run", type=click.Path(path_type=Path), help="Run whose recipe is served and that takes corrections.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(1, 65535), default=9090, show_default=True, help="Port to listen at.")
@click.option("--url", help="The tool's address; else LABEL_STUDIO_URL of the environment or .env.")
@click.option("--token", help="Its access token; better set in the environment or in .env than typed.")
@click.option("--env-file", type=click.Path(path_type=Path), help="File with such variables.  [default: .env]")
@click.option(
    "--shape",
    type=click.Choice(["auto", "box", "polygon", "mask"]),
    default="auto",
    show_default=True,
    help="What regions become, where the project has labels for it.",
)
@click.option(
    "--max-vertices", type=click.IntRange(4), default=100, show_default=True, help="Most corners of a region."
)
@click.option("--min-iou", type=click.FloatRange(0, 1), default=0.95, show_default=True, help="Of polygon and mask.")
@click.option(
    "--max-bytes", type=click.IntRange(1), default=256 * 2**20, help="Largest image file.  [default: 256 MiB]"
)
@click.option("--pull-delay", "pull_delay_s", type=click.FloatRange(0), default=5.0, show_default=True,
              help="Seconds of quiet before corrections are pulled.")  # fmt: skip
def serve(
    tool: str,
    run: Path | None,
    host: str,
    port: int,
    url: str | None,
    token: str | None,
    env_file: Path | None,
    offline: bool,
    **settings: Any,
) -> None:
    """Answer an annotation TOOL as its model: predictions, smart tools, and webhooks that pull corrections.

    With --run, the run's recipe is served unless other settings are given, and corrections are pulled into it.
    AUTOLABEL_SERVE_USER and AUTOLABEL_SERVE_PASSWORD, if set, are asked of every request (HTTP basic auth).

    \b
    Examples:
      autolabel serve label-studio --prompt "scratch. dent."
      autolabel serve label-studio --run runs/line-3       and corrections come home
      autolabel serve label-studio --recipe line-3.toml --host 0.0.0.0 --port 9090
    """
    from autolabel.config import load_recipe
    from autolabel.connect import load_connector
    from autolabel.interactive import Labeler, recipe_of
    from autolabel.loading import models_for
    from autolabel.serving import ServeOptions, first_of, load_server
    from autolabel.targets import checked_url, known_variables

    logging.getLogger().setLevel(min(logging.getLogger().level, logging.INFO))
    for noisy in ("httpx", "httpcore"):  # they log addresses, and addresses may be signed
        logging.getLogger(noisy).setLevel(logging.WARNING)
    server, connector = load_server(tool), load_connector(tool)
    shown = {name: settings.pop(name) for name in _SHOWN}
    reference = settings.pop("recipe")
    changes = recipe_changes(settings)
    manifest = None
    if run is not None:
        from autolabel.dataset import Run

        manifest = Run.open(run).manifest
    if manifest is not None and reference is None:
        recipe = recipe_of(manifest, changes)
    else:
        recipe = load_recipe(reference)[0].merged(changes)
    values = known_variables(env_file)
    user, password = values.get("AUTOLABEL_SERVE_USER", ""), values.get("AUTOLABEL_SERVE_PASSWORD", "")
    if bool(user) != bool(password):
        raise UsageError("set both AUTOLABEL_SERVE_USER and AUTOLABEL_SERVE_PASSWORD, or neither")
    found = url or first_of(values, connector.env_url) or connector.default_url or ""
    labeler = Labeler(recipe, models_for(recipe, offline=offline), run=manifest)
    click.echo(f"serving {labeler.model_version} at http://{host}:{port}", err=True)
    server(
        labeler,
        ServeOptions(
            host=host,
            port=port,
            url=checked_url(found),
            token=token or first_of(values, connector.env_token),
            user=user,
            password=password,
            run=run,
            **shown,
        ),
    )

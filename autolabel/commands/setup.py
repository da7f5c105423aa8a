"""``models``, ``doctor``: what can be loaded, and what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from autolabel.commands.common import EXIT_ERROR, output_options, screen_for


@click.group(invoke_without_command=True)
@click.pass_context
@output_options
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

    from autolabel.models.catalogue import catalogue
    from autolabel.models.registry import backends
    from autolabel.tables import backends_table, models_table

    screen = screen_for(quiet, as_json)
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
@output_options
def pull(what: str, to: Path | None, quiet: bool, as_json: bool) -> None:
    """Fetch a set (tiny, base, large) or one spec from the hub, check its hashes, and lock its revision.

    \b
    Examples:
      autolabel models pull base
      autolabel models pull grounding-dino:IDEA-Research/grounding-dino-tiny
      autolabel models pull base --to models      for a machine without network
    """
    from autolabel.models.pull import pull as fetch

    screen = screen_for(quiet, as_json)
    folders = fetch(what, to, screen.note)
    screen.emit({"folders": [str(folder) for folder in folders]})
    for folder in folders:
        screen.say(f"[bold]{folder}[/bold]")


@click.command()
@click.option("--device", help="Check this device instead of the best there is.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Check this dtype.")
@click.option("--hub", is_flag=True, help="Also ask whether the model hub can be reached.")
@output_options
def doctor(device: str | None, dtype: str | None, hub: bool, quiet: bool, as_json: bool) -> None:
    """Tell what is installed, which device and dtype are used, which weights are there, and what to do.

    \b
    Examples:
      autolabel doctor
      autolabel doctor --device cuda --hub
    """
    from dataclasses import asdict

    from autolabel.models.doctor import run_checks
    from autolabel.tables import checks_table

    screen = screen_for(quiet, as_json)
    checks = run_checks(device, dtype, hub=hub)
    screen.emit([asdict(check) for check in checks])
    screen.say(checks_table(checks))
    if any(check.status == "fail" for check in checks):
        sys.exit(EXIT_ERROR)

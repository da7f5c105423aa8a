"""The command line: parse, call, print. Exit codes: 0 done, 1 error, 2 usage, 3 partial (some images failed)."""

from __future__ import annotations

import logging
import os
import sys

import click

from autolabel import __version__
from autolabel.commands import label, noise, results, review, serve, setup, sync
from autolabel.commands.common import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE
from autolabel.errors import AutolabelError, UsageError

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


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
      autolabel push --to label-studio --project defects
      autolabel pull && autolabel corrections          what people made of it
      autolabel tune --out line-3.toml                 thresholds that fit that, for the next batch

    Commands without a RUN use the one that the last `autolabel run` in this directory made.
    """
    levels = {0: logging.ERROR, 1: logging.INFO}
    logging.basicConfig(level=levels.get(verbose, logging.DEBUG), format="%(levelname)s %(name)s: %(message)s")


for _command in (
    label.run,
    label.resolve,
    label.show,
    results.report,
    results.export,
    results.evaluate,
    results.tune,
    noise.noise,
    review.review,
    sync.push,
    sync.pull,
    sync.sync,
    sync.corrections,
    serve.serve,
    setup.models,
    setup.doctor,
):
    cli.add_command(_command)


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
    except BrokenPipeError:
        sys.stderr.close()  # the reader of the output has gone, for example `| head`
        sys.exit(EXIT_ERROR)
    except OSError as error:
        _fail(f"{error}; what was labelled so far is kept, and the same command goes on from there", EXIT_ERROR)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()

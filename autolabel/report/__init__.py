"""The report of a run: one HTML file that needs no network, shows what was found, and can be sent to anyone."""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolabel.errors import UsageError
from autolabel.report.cards import Card, make_card, thumbnail_side
from autolabel.report.context import build_context
from autolabel.report.doubts import Doubts
from autolabel.report.sample import Sampler
from autolabel.report.statistics import Statistics

if TYPE_CHECKING:
    from autolabel.dataset import Run

DEFAULT_MAX_IMAGES = 200


def write_report(run: Run, out: Path, *, max_images: int = DEFAULT_MAX_IMAGES) -> Path:
    """Write the report to the file ``out``, or to ``report.html`` in the folder ``out``, and return its path.

    Figures cover the whole run; pictures at most ``max_images`` of it. Raises UsageError if ``max_images`` is
    negative.
    """
    if max_images < 0:
        raise UsageError(f"max_images must be >= 0, got {max_images}")
    target = out / "report.html" if out.is_dir() or not out.suffix else out
    statistics, sampler = Statistics.empty(len(run.labels.classes)), Sampler(max_images)
    doubts = Doubts.of(run)
    for item in run:
        statistics.add(item)
        sampler.add(item)
        if doubts is not None:
            doubts.add(item)
    shown = sampler.chosen()
    side = thumbnail_side(len(shown))
    noise = doubts.section(run) if doubts is not None else None
    html = render(run, statistics, [make_card(run, one, side) for one in shown], noise)
    _write_atomically(target, html)
    return target


def render(run: Run, statistics: Statistics, cards: list[Card], noise: dict[str, Any] | None = None) -> str:
    """Return the page; every value from outside is escaped, and its policy lets only its own script run."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("autolabel.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, seconds=_seconds)
    script, style = _asset("report.js"), _asset("report.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template("report.html.j2").render(
        script=Markup(script),
        style=Markup(style),
        script_hash=digest,
        noise=noise,
        **build_context(run, statistics, cards),
    )


def _asset(name: str) -> str:
    return (files("autolabel.report") / "templates" / name).read_text(encoding="utf-8")


def _number(value: float) -> str:
    """1234567 → 1 234 567, with narrow spaces that do not break."""
    return f"{value:,}".replace(",", "\u202f")


def _seconds(value: float) -> str:
    if value >= 3600:
        return f"{int(value // 3600)} h {int(value % 3600 // 60)} min"
    if value >= 60:
        return f"{int(value // 60)} min {int(value % 60)} s"
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def _write_atomically(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace", newline="\n") as stream:
            stream.write(text)
        # mkstemp makes private files; a report is for passing on.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

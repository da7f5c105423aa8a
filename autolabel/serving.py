"""What a server that answers an annotation tool is asked to do; servers are found by entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolabel.connect import Shape
from autolabel.errors import UsageError

if TYPE_CHECKING:
    from autolabel.interactive import Labeler

SERVER_ENTRY_POINTS = "autolabel.servers"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Where to listen, for whom, and how regions are shown.

    ``url`` and ``token`` are the annotation tool's; ``run`` is where its corrections go. With ``user`` and ``password``
    every request must be signed with them (HTTP basic auth). Secrets are never shown or logged.
    """

    host: str = "127.0.0.1"
    port: int = 9090
    url: str = ""
    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    run: Path | None = None
    shape: Shape = "auto"
    max_vertices: int = 100
    min_iou: float = 0.95
    max_bytes: int = 256 * 2**20
    pull_delay_s: float = 5.0


Server = Callable[["Labeler", ServeOptions], None]
"""Serves until it is told to end; its variables of the environment are those of the connector of the same name."""


def server_names() -> list[str]:
    """Names of the servers that are installed."""
    return sorted(point.name for point in entry_points(group=SERVER_ENTRY_POINTS))


def load_server(name: str) -> Server:
    """Load a server by name; raises UsageError that lists the known ones or names the missing package."""
    for point in entry_points(group=SERVER_ENTRY_POINTS):
        if point.name == name:
            try:
                made: Any = point.load()
            except ImportError as error:
                raise UsageError(
                    f'{error.name} is not installed; pip install "autolabel-vision[serve,label-studio]" brings what '
                    "serving needs"
                ) from None
            if not callable(made):
                raise UsageError(f"server {name!r} ({point.value}) cannot be called")
            return made  # type: ignore[no-any-return]
    raise UsageError(f"no server {name!r}; known are {', '.join(server_names()) or 'none'}")


def first_of(values: Mapping[str, str], names: tuple[str, ...]) -> str:
    """Return the first variable that is set, or an empty text."""
    return next((values[name] for name in names if values.get(name)), "")

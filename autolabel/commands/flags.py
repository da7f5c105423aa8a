"""What a noise pass flagged, in a few lines for people: how many, how sure, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autolabel.quality import NoiseResult

OVERLOOKED = "overlooked"


def flag_lines(found: NoiseResult, review: str = "autolabel review") -> list[str]:
    """Say what to look at, labels and images and what they lack apart; nothing where nothing was flagged.

    ``review`` is the command that shows it.
    """
    kinds = found.flagged
    if not kinds:
        return []
    lines = [f"worth a look, the most doubtful first in [bold]{review}[/bold]:"]
    if missed := kinds.get(OVERLOOKED, 0):
        expected = round(found.overlooked_expected)
        sure = f" (in about {expected} of them it is)" if expected < missed else ""
        lines.append(f"  {missed} {_places(missed)} where a label is probably missing{sure}")
    about_labels = {kind: count for kind, count in kinds.items() if kind in found.label_kinds}
    if about_labels:
        counts = _listed(about_labels.items())
        lines.append(f"  {found.labels_flagged} of {found.labels} labels that are probably wrong: {counts}")
    others = [(kind, count) for kind, count in kinds.items() if kind != OVERLOOKED and kind not in about_labels]
    if others:
        lines.append(f"  images: {_listed(others)}")
    return lines


def _places(count: int) -> str:
    return "place" if count == 1 else "places"


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counts)

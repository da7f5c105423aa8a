"""One colour for each class, by its place in the ontology, that people with colour blindness can tell apart."""

from __future__ import annotations

# Okabe and Ito's colours first, then Paul Tol's "muted" where a run has more classes; afterwards they repeat.
PALETTE = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2",
    "#44AA99", "#DDCC77", "#CC6677", "#88CCEE", "#AA4499", "#999933", "#882255",
)  # fmt: skip
_DARK, _LIGHT = "#111418", "#ffffff"


def class_colour(label_id: int) -> str:
    """Colour of a class as ``#rrggbb``."""
    return PALETTE[label_id % len(PALETTE)]


def text_colour(background: str) -> str:
    """Black or white, whichever reads better on ``background`` (the higher WCAG contrast ratio)."""
    light = luminance(background)
    return _DARK if (light + 0.05) / (luminance(_DARK) + 0.05) >= 1.05 / (light + 0.05) else _LIGHT


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` in [0, 1], as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

"""Ready-made recipes for common jobs: values in TOML, found by the `autolabel.recipes` entry points."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "recipes"


def surface_defects() -> Path:
    """Industrial surfaces: six defects with synonyms, and what looks like a defect but is none."""
    return _FOLDER / "surface-defects.toml"


def boxes_only() -> Path:
    """Boxes and the detector's own labels: no masks, no second opinion, the fastest pass."""
    return _FOLDER / "boxes-only.toml"

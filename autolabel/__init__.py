"""Text in, corrected labels out: pre-annotate images from a prompt, and know which labels to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from autolabel.config import Recipe
    from autolabel.dataset import Run
    from autolabel.ontology import LabelClass, Ontology
    from autolabel.runner import run

_LAZY = {
    "LabelClass": "autolabel.ontology",
    "Ontology": "autolabel.ontology",
    "Recipe": "autolabel.config",
    "Run": "autolabel.dataset",
    "run": "autolabel.runner",
}
__all__ = ["LabelClass", "Ontology", "Recipe", "Run", "__version__", "run"]


def __getattr__(name: str) -> object:
    """Load the public API on first use, so that importing the package stays light."""
    if name not in _LAZY:
        raise AttributeError(f"module 'autolabel' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)

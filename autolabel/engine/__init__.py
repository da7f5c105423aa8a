"""Engines: how the images of a pass are taken through the stages. Each gives the same labels in the same order."""

from __future__ import annotations

from autolabel.engine.base import Done, Engine, Facts, Held, Setup, Work
from autolabel.engine.choose import choose

__all__ = ["Done", "Engine", "Facts", "Held", "Setup", "Work", "choose"]

"""What pictures may show. An edition is never changed once weights or sample data were made with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from training.generator.coating import blister, chip
from training.generator.defects import DEFECTS, Defect
from training.generator.distractors import DISTRACTORS, FIRST_DISTRACTORS, Distractor
from training.generator.fittings import burr, missing_screw
from training.generator.surfaces import FIRST_SURFACES, MORE_SURFACES, TEST_ONLY_SURFACES, Surface, ceramic


@dataclass(frozen=True, slots=True)
class Edition:
    """Defects, surfaces and distractors by name; ``held_out`` surfaces show up in test and sample pictures alone.

    ``fine`` allows thin defects down to one pixel, ``perspective`` is the share of pictures taken at an angle.
    """

    name: str
    defects: dict[str, Defect]
    weights: dict[str, float]
    surfaces: dict[str, Surface]
    held_out: dict[str, Surface]
    distractors: dict[str, Distractor]
    fine: bool
    perspective: float

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the defects, in the order of class indices."""
        return tuple(self.defects)


FIRST: Final = Edition(
    "first",
    dict(DEFECTS),
    {"scratch": 1.35, "crack": 1.2},
    dict(FIRST_SURFACES),
    {"ceramic": ceramic},
    dict(FIRST_DISTRACTORS),
    fine=False,
    perspective=0.0,
)
SECOND: Final = Edition(
    "second",
    {**DEFECTS, "chip": chip, "blister": blister, "missing screw": missing_screw, "burr": burr},
    {"scratch": 1.8, "crack": 1.5},
    FIRST_SURFACES | MORE_SURFACES,
    dict(TEST_ONLY_SURFACES),
    dict(DISTRACTORS),
    fine=True,
    perspective=0.35,
)
EDITIONS: Final = {edition.name: edition for edition in (FIRST, SECOND)}
PUBLISHED: Final = SECOND
"""The edition that the bundled weights were trained on, last of all."""
SAMPLES: Final = FIRST
"""The edition that ``sample_data/`` shows; the weights know its classes too."""
TRAINED: Final = SECOND
"""The edition that a training made from now on uses."""

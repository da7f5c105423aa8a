"""What to look for: classes, the phrases that describe them, their thresholds, and what to detect and drop.

The short form is a prompt such as ``"scratch. dent."``: one class per phrase, phrases end with a full stop.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from autolabel.errors import ConfigError

_SPACES = re.compile(r"\s+")
_SEPARATORS = re.compile(r"[.;\n]+")


def normalise(phrase: str) -> str:
    """Lower-case, NFKC, single spaces, and no full stop or question mark: what a text encoder gets to see.

    Grounding DINO separates phrases by "." and "?", so neither may stand inside one.
    """
    text = unicodedata.normalize("NFKC", phrase).replace(".", " ").replace("?", " ").replace("_", " ")
    return _SPACES.sub(" ", text).strip().lower()


@dataclass(frozen=True, slots=True)
class LabelClass:
    """One class: its name, the phrases it is detected by (synonyms), and the gates of its annotations.

    ``min_score`` gates the detector's score, ``min_prob`` the classifier's probability (both in [0, 1]),
    ``min_area_px`` the box area in px². ``None`` means the recipe's default.
    """

    name: str
    prompts: tuple[str, ...] = ()
    min_score: float | None = None
    min_prob: float | None = None
    min_area_px: float | None = None

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ConfigError("classes.name must not be empty; give each class a name, for example 'scratch'")
        phrases = tuple(dict.fromkeys(normalise(p) for p in (self.prompts or (self.name,))))
        if not all(phrases):
            raise ConfigError(f"class {self.name!r} has an empty phrase; remove it or write a word")
        object.__setattr__(self, "prompts", phrases)
        for name in ("min_score", "min_prob"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name} must be in [0, 1], got {value} (class {self.name!r})")
        if self.min_area_px is not None and self.min_area_px < 0:
            raise ConfigError(f"min_area_px must be >= 0, got {self.min_area_px} (class {self.name!r})")


@dataclass(frozen=True, slots=True)
class Ontology:
    """Ordered classes to annotate, and negatives: classes that are detected so that they can be dropped.

    Scores and probabilities are stored over ``all_classes``: the classes first, then the negatives.
    """

    classes: tuple[LabelClass, ...]
    negatives: tuple[LabelClass, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.classes:
            raise ConfigError('no classes: give --prompt "scratch. dent." or [[classes]] in the recipe')
        names: dict[str, str] = {}
        owners: dict[str, str] = {}
        for label in self.all_classes:
            key = normalise(label.name)
            if key in names:
                raise ConfigError(
                    f"classes {names[key]!r} and {label.name!r} are the same after normalisation ({key!r}); "
                    "rename one, or give its words as further prompts of the other"
                )
            names[key] = label.name
            for phrase in label.prompts:
                if phrase in owners:
                    raise ConfigError(
                        f"phrase {phrase!r} belongs to both {owners[phrase]!r} and {label.name!r}; "
                        "a phrase can stand for one class only"
                    )
                owners[phrase] = label.name

    @classmethod
    def from_prompt(cls, prompt: str) -> Ontology:
        """Parse the short form, for example ``"scratch. dent."``; full stops, semicolons and line breaks separate."""
        names = [_SPACES.sub(" ", part).strip() for part in _SEPARATORS.split(prompt)]
        named = [name for name in names if normalise(name)]
        if not named:
            raise ConfigError(f'prompt has no words: {prompt!r}; write classes as "scratch. dent."')
        return cls(tuple(LabelClass(name) for name in named))

    @property
    def all_classes(self) -> tuple[LabelClass, ...]:
        """Classes, then negatives; the order of every stored score and probability."""
        return self.classes + self.negatives

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes to annotate; a label id is a place in this list."""
        return tuple(label.name for label in self.classes)

    @property
    def phrases(self) -> tuple[str, ...]:
        """All phrases of all classes and negatives, in order."""
        return tuple(phrase for label in self.all_classes for phrase in label.prompts)

    @property
    def phrase_owners(self) -> tuple[int, ...]:
        """For each phrase, the place of its class in ``all_classes``."""
        return tuple(i for i, label in enumerate(self.all_classes) for _ in label.prompts)

    @property
    def prompts(self) -> Sequence[Sequence[str]]:
        """For each class of ``all_classes``, its phrases."""
        return [label.prompts for label in self.all_classes]

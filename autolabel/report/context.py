"""What the template gets to see: a run's totals and cards as plain, display-ready values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import tomli_w

from autolabel.colours import class_colour, text_colour
from autolabel.ontology import normalise
from autolabel.report.cards import Card
from autolabel.report.statistics import BINS, Statistics

if TYPE_CHECKING:
    from autolabel.dataset import Run
    from autolabel.manifest import Pace

_MAX_FAILURES = 500
# Cards keep their image's proportions up to these; a plank of 20:1 is shown with bars above and below.
_RATIOS = (0.6, 2.6)


def build_context(run: Run, statistics: Statistics, cards: list[Card]) -> dict[str, Any]:
    """Return the template's variables but for script and style."""
    manifest, failures = run.manifest, run.failures()
    # Loading is paid once a pass, however many images it has.
    total_seconds = sum(seconds for stage, seconds in manifest.timings.items() if stage != "load")
    pace: Pace | None = getattr(manifest, "pace", None)
    rate = statistics.images / total_seconds if total_seconds > 0 and statistics.images else None
    return {
        "name": run.name,
        "status": manifest.status,
        "created": manifest.created.replace("T", " ").removesuffix("+00:00"),
        "run_id": manifest.run_id,
        "totals": statistics,
        "failure_count": len(failures),
        "failures": failures[:_MAX_FAILURES],
        "rate": pace.images_per_second if pace is not None else rate,
        "pace": pace,
        "classes": _classes(run, statistics),
        "negatives": run.ontology.negatives,
        "cards": cards,
        "ratios": [min(max(c.width / c.height, _RATIOS[0]), _RATIOS[1]) for c in cards],
        "sampled": len(cards) < statistics.images,
        "timings": _shares(manifest.timings),
        "rejects": _shares(dict(sorted(manifest.rejects.items(), key=lambda row: -row[1]))),
        "models": manifest.models,
        "recipe": _toml(getattr(manifest, "resolved", None) or manifest.recipe),
        "versions": manifest.versions,
        "data": _data(run, cards),
    }


def _classes(run: Run, statistics: Statistics) -> list[dict[str, Any]]:
    most = max((row.annotations for row in statistics.classes), default=0) or 1
    rows = []
    for label_id, (label, counts) in enumerate(zip(run.labels.classes, statistics.classes, strict=True)):
        colour = class_colour(label_id)
        peak = max(counts.scores) or 1
        rows.append(
            {
                "name": label.name,
                "synonyms": [phrase for phrase in label.prompts if phrase != normalise(label.name)],
                "colour": colour,
                "text": text_colour(colour),
                "annotations": counts.annotations,
                "images": counts.images,
                "disagreements": counts.disagreements,
                "share": 100 * counts.annotations / most,
                "bars": [
                    {"low": i / BINS, "high": (i + 1) / BINS, "count": count, "height": 100 * count / peak}
                    for i, count in enumerate(counts.scores)
                ],
            }
        )
    return rows


def _shares(values: Mapping[str, float]) -> list[dict[str, Any]]:
    total, most = sum(values.values()) or 1, max(values.values(), default=0) or 1
    return [
        {"name": name, "value": value, "share": 100 * value / total, "width": 100 * value / most}
        for name, value in values.items()
    ]


def _toml(recipe: Mapping[str, Any]) -> str:
    text: str = tomli_w.dumps(_without_none(recipe))
    return text.strip()


def _without_none(value: Any) -> Any:
    """Drop what is not set: TOML has no null."""
    if isinstance(value, Mapping):
        return {str(key): _without_none(part) for key, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [_without_none(part) for part in value if part is not None]
    return value


def _data(run: Run, cards: list[Card]) -> dict[str, Any]:
    """Collect what the page's script needs: both opinions of every annotation shown, over classes and negatives.

    People may have used classes that no model was asked for: labels and opinions have lists of their own.
    """
    count = len(run.ontology.classes)
    return {
        "classes": [{"name": label.name} for label in run.labels.classes],
        "opinions": [{"name": label.name, "negative": i >= count} for i, label in enumerate(run.ontology.all_classes)],
        "cards": [
            {
                "path": card.path,
                "size": [card.width, card.height],
                "lowest": round(card.lowest, 3),
                "differing": card.differing,
                "shapes": [
                    {
                        "label": shape.label_id,
                        "score": round(shape.score, 3),
                        "mask": None if shape.mask_score is None else round(shape.mask_score, 3),
                        "differs": shape.differs,
                        "human": shape.human,
                        "detector": [round(v, 3) for v in shape.phrase_scores],
                        "classifier": None if shape.class_probs is None else [round(v, 3) for v in shape.class_probs],
                    }
                    for shape in card.shapes
                ],
            }
            for card in cards
        ],
    }

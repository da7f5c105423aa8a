"""Measure what other words do: synonyms, colours and places, and words that name nothing in the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from autolabel.dataset import Run
from training.evaluate_run import Product, precisions, write_images, write_truth
from training.generator import Edition
from training.intervals import mean_of
from training.natural import Labelled
from training.vocabulary import SYNONYMS

TRAINED_NEGATIVES: Final = ("cat", "car", "bottle", "zipper")
"""Words that prompts of the training held as names of nothing."""
NEVER_SEEN: Final = ("zebra", "violin", "volcano", "umbrella")
"""Words that no training prompt held; the vocabulary spells them in pieces."""
COLOURED: Final[dict[str, str]] = {
    "scratch": "white scratch", "dent": "dark dent", "crack": "black crack", "rust": "brown rust", "hole": "black hole",
    "stain": "dark stain", "chip": "grey chip", "blister": "white blister", "missing screw": "dark missing screw",
    "burr": "bright burr",
}  # fmt: skip
PLACES: Final = ("on metal", "on wood", "on paint", "on concrete", "on the surface")


def phrasings(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Other ways to say the class names: a synonym each, a colour each, a place each."""
    return {
        "synonyms": tuple(SYNONYMS[name][3] for name in names),
        "colours": tuple(COLOURED[name] for name in names),
        "places": tuple(f"{name} {PLACES[i % len(PLACES)]}" for i, name in enumerate(names)),
    }


def other_phrasings(product: Product, pictures: Sequence[Labelled], edition: Edition) -> dict[str, Any]:
    """Box AP with the class names, and what each other phrasing loses, boxes alone."""
    images = write_images(pictures, product.folder / "images-words")
    ways = {"names": edition.classes, **phrasings(edition.classes)}
    result: dict[str, Any] = {}
    for way, prompts in ways.items():
        run, _ = product.run(f"words-{way}", images, prompts, "--segmenter", "none")
        truth = write_truth(pictures, prompts, product.folder / f"words-{way}.json")
        result[way] = {"pictures": len(pictures), "prompts": list(prompts), **precisions(run, truth, ("bbox",))["box"]}
    for way in ways:
        result[way]["ap50_lost"] = round(result["names"]["ap50"]["value"] - result[way]["ap50"]["value"], 4)
    return result


def unknown_words(product: Product, pictures: Sequence[Labelled], edition: Edition) -> dict[str, Any]:
    """Scores of words that name nothing, alone and among the class names, on pictures of defects."""
    shown = [picture for picture in pictures if len(picture.labels)]
    images = write_images(shown, product.folder / "images-unknown")
    alone: dict[str, Any] = {}
    for kind, words in (("negatives_of_training", TRAINED_NEGATIVES), ("never_seen", NEVER_SEEN)):
        run, _ = product.run(f"unknown-{kind}", images, words, "--segmenter", "none")
        alone[kind] = {"words": list(words), **_scores(run)}
    run, _ = product.run("unknown-among", images, (*edition.classes, *NEVER_SEEN), "--segmenter", "none")
    taken = [annotation.label in NEVER_SEEN for item in run for annotation in item.annotations]
    known, _ = product.run("unknown-reference", images, edition.classes, "--segmenter", "none")
    absent, count = _of_absent_classes(known, shown, edition)
    return {
        "pictures": len(shown),
        "alone": {**alone, "class_names": _scores(known)},
        "among_class_names": {"annotations": len(taken), "labelled_with_an_unknown_word": sum(taken)},
        "classes_not_in_the_picture": {"annotations": absent, "of": count},
    }


def _scores(run: Run) -> dict[str, Any]:
    """Describe each picture's best score, and the annotations above the default threshold."""
    best = [float(one.class_scores.max()) if one.class_scores.size else 0.0 for one in run.proposals()]
    counts = [[float(len(item.annotations))] for item in run]
    best += [0.0] * (len(counts) - len(best))
    return {
        "best_score_median": round(float(np.median(best)), 4),
        "best_score_95th_percentile": round(float(np.percentile(best, 95)), 4),
        "annotations_per_picture": mean_of(counts).to_json(),
    }


def _of_absent_classes(run: Run, pictures: Sequence[Labelled], edition: Edition) -> tuple[int, int]:
    present: Mapping[str, set[str]] = {p.path.name: {edition.classes[k] for k in p.labels.tolist()} for p in pictures}
    labels = [(Path(item.image.path).name, a.label) for item in run for a in item.annotations]
    return sum(label not in present[name] for name, label in labels), len(labels)

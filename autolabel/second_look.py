"""A second look for the noise pass: a run's own detector, shown each image mirrored and in overlapping pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from autolabel.config import Recipe
from autolabel.errors import AutolabelError, ModelError
from autolabel.loading import LazyModel, models_for
from autolabel.quality.second_look import Seen, looked_at, write_part
from autolabel.stages.detect import propose
from autolabel.stages.tiles import layout, merge
from autolabel.types import RGB, Detections

if TYPE_CHECKING:
    from autolabel.dataset import Run

PIECE: Final = 0.6
"""Side of a piece, as a share of the image's longer side: four pieces, or two of a panorama."""
_OVERLAP: Final = 0.2
_FLOOR: Final = 0.5
"""Share of the run's own floor: what was too weak to be stored may be worth something where two views agree."""
_SAME: Final = 0.7
_MOST: Final = 60
_A_PART: Final = 64
_VIEWS: Final = 5
LONGEST_S: Final = 600.0
"""Longest look that is taken without being asked for."""
OnLook = Callable[[int, int], None]


def estimate(run: Run) -> float:
    """Seconds that a second look is likely to take, by what the run's own detection took; 0 if nothing is left."""
    left = len({image.id for image in run.images()} - looked_at(run))
    labelled = max(int(run.manifest.counts.get("labelled", 0)), 1)
    return left * _VIEWS * float(run.manifest.timings.get("detect", 0.0)) / labelled


def look_again(run: Run, *, detector: LazyModel | None = None, on_look: OnLook = lambda done, of: None) -> int:
    """Look at every image that was not looked at yet; returns how many could not be read.

    What was seen is kept in the run folder, so it costs once, and a look that was broken off goes on. ``detector`` is
    the run's own where None. Raises ModelError where the run's detector is not at hand.
    """
    done = looked_at(run)
    images = {image.id: image for image in run.images() if image.id not in done}
    if not images:
        return 0
    detector = detector or detector_of(run)
    seen: dict[str, Seen] = {}
    unread = 0
    try:
        for number, (key, image) in enumerate(images.items()):
            on_look(number, len(images))
            try:
                pixels = run.read_image(image)
            except AutolabelError:
                unread += 1
                continue
            seen[key] = look(detector.model, pixels, run)
            if len(seen) >= _A_PART:
                write_part(run, seen)
                seen = {}
    finally:
        if seen:
            write_part(run, seen)
    on_look(len(images), len(images))
    return unread


def look(model: Any, pixels: RGB, run: Run) -> Seen:
    """Show a detector one image ``(H, W, 3)`` mirrored and in pieces; return boxes of the whole image."""
    ontology = run.ontology
    height, width = pixels.shape[:2]
    floor = _FLOOR * float(run.manifest.resolved["floor"])
    windows = layout((width, height), max(round(PIECE * max(width, height)), 32), _OVERLAP)
    views = [np.ascontiguousarray(pixels[:, ::-1])]
    if len(windows) > 1:
        views += [np.ascontiguousarray(pixels[y0:y1, x0:x1]) for x0, y0, x1, y1 in windows]
    answers: list[Detections] = list(model.predict_batch(views, ontology.phrases, floor))
    mirrored = np.array(answers[0].boxes_xyxy, np.float32).reshape(-1, 4)
    mirrored[:, [0, 2]] = width - mirrored[:, [2, 0]]
    found = [Detections(mirrored, answers[0].phrase_scores)]
    if len(answers) > 1:
        nothing = Detections.empty(len(ontology.phrases))
        found.append(
            merge(nothing, windows, [Detections(a.boxes_xyxy, a.phrase_scores) for a in answers[1:]], (width, height))
        )
    kept = [
        propose(
            one,
            ontology.phrase_owners,
            len(ontology.all_classes),
            size_wh=(width, height),
            floor=floor,
            iou=_SAME,
            limit=_MOST,
        )
        for one in found
    ]
    return Seen(
        np.concatenate([one.boxes_xyxy for one in kept]),
        np.concatenate([one.class_scores for one in kept]),
        np.concatenate([np.full(len(one), view) for view, one in enumerate(kept)]),
    )


def detector_of(run: Run) -> LazyModel:
    """Find the detector that made a run; raises ModelError where it cannot be had or is another by now."""
    recipe = Recipe.model_validate(run.manifest.recipe).merged({"segmenter": "none", "classifier": "none"})
    detector = models_for(recipe).detector
    made_by = run.manifest.resolved.get("detector")
    if made_by != detector.spec:
        raise ModelError(
            f"the run was made by the detector {made_by}, which is not at hand (the recipe's is {detector.spec}); "
            "pass --second-look off, or --evidence from a detector of your choice"
        )
    recorded, now = run.manifest.models.get("detector"), detector.info.weights_sha256
    weights = recorded.weights_sha256 if recorded else None
    if weights != now:
        raise ModelError(
            f"the run was made by {made_by} with the weights {_short(weights)}, and those at hand are {_short(now)}: "
            "label the images again, or pass --second-look off"
        )
    return detector


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "of no known hash"

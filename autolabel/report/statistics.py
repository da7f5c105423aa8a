"""What a report says about a whole run, added up image by image in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from autolabel.types import AnnotatedImage, Annotation

BINS = 20


def disagrees(annotation: Annotation) -> bool:
    """Tell whether detector and classifier each put another class first; without a classifier they cannot."""
    if annotation.class_probs is None or not annotation.phrase_scores:
        return False
    return int(np.argmax(annotation.phrase_scores)) != int(np.argmax(annotation.class_probs))


@dataclass(slots=True)
class ClassStatistics:
    """Annotations of one class: how many, on how many images, their scores in 20 bins over [0, 1], disagreements."""

    annotations: int = 0
    images: int = 0
    disagreements: int = 0
    scores: list[int] = field(default_factory=lambda: [0] * BINS)


@dataclass(slots=True)
class Statistics:
    """Totals of a run; ``judged`` counts annotations that have both opinions."""

    classes: list[ClassStatistics]
    images: int = 0
    clean: int = 0
    annotations: int = 0
    masks: int = 0
    judged: int = 0
    disagreements: int = 0

    @classmethod
    def empty(cls, class_count: int) -> Statistics:
        """Nothing counted yet."""
        return cls([ClassStatistics() for _ in range(class_count)])

    def add(self, item: AnnotatedImage) -> None:
        """Count one image and its annotations."""
        self.images += 1
        self.clean += not item.annotations
        for label_id in {a.label_id for a in item.annotations}:
            self.classes[label_id].images += 1
        for annotation in item.annotations:
            row = self.classes[annotation.label_id]
            apart = disagrees(annotation)
            row.annotations += 1
            row.disagreements += apart
            row.scores[min(int(annotation.score * BINS), BINS - 1)] += 1
            self.annotations += 1
            self.masks += annotation.mask is not None
            self.judged += annotation.class_probs is not None
            self.disagreements += apart

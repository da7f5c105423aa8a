"""A labeling pass slowed down enough to be killed in the middle; started as a process of its own by the tests."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import autolabel
from autolabel.types import RGB, Detections
from tests.fakes import BoxSegmenter, ColourClassifier, SquareDetector


class SlowDetector(SquareDetector):
    """Takes 10 ms a batch."""

    def predict_batch(self, images: Sequence[RGB], phrases: Sequence[str], min_score: float) -> list[Detections]:
        time.sleep(0.01)
        return super().predict_batch(images, phrases, min_score)


def main(images: str, path: str) -> None:
    """Label ``images`` into the run folder ``path``, four at a time."""
    autolabel.run(
        images,
        prompt="scratch. dent.",
        path=path,
        batch_size=4,
        detector=SlowDetector(),
        segmenter=BoxSegmenter(),
        classifier=ColourClassifier(),
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

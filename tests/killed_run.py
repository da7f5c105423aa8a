"""A labeling pass slowed down enough to be killed in the middle; started as a process of its own by the tests."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence

import autolabel
from autolabel.types import RGB, Detections
from tests.fakes import BoxSegmenter, ColourClassifier, SquareDetector


class SlowDetector(SquareDetector):
    """Takes a while for each batch."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def predict_batch(self, images: Sequence[RGB], phrases: Sequence[str], min_score: float) -> list[Detections]:
        time.sleep(self.seconds)
        return super().predict_batch(images, phrases, min_score)


def main(images: str, path: str, seconds: str = "0.01") -> None:
    """Label ``images`` into the run folder ``path``, four at a time, each four in ``seconds`` or more."""
    autolabel.run(
        images,
        prompt="scratch. dent.",
        path=path,
        batch_size=4,
        detector=SlowDetector(float(seconds)),
        segmenter=BoxSegmenter(),
        classifier=ColourClassifier(),
    )


if __name__ == "__main__":
    # What a shell starts in the background ignores interrupts, and so would all that the tests start from there.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(*sys.argv[1:])

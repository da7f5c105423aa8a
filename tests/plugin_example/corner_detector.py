"""A detector for autolabel in ten lines: it finds the top left quarter of every image."""

import numpy as np

from autolabel.types import Detections


class CornerDetector:
    def predict_batch(self, images, phrases, min_score):
        quarters = [np.array([[0, 0, i.shape[1] / 2, i.shape[0] / 2]], np.float32) for i in images]
        return [Detections(quarter, np.full((1, len(phrases)), 0.5, np.float32)) for quarter in quarters]

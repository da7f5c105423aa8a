"""Review in FiftyOne: a run as a dataset with boxes, masks, both opinions and label issues; decisions come back."""

from autolabel_connectors.fiftyone.reviewer import FiftyOneReviewer

__all__ = ["FiftyOneReviewer"]

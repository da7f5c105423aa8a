"""Runs whose boxes are their masks': evidence is compared by the detector's boxes, people read of those they see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from autolabel.corrections import write_decisions
from autolabel.dataset import Run
from autolabel.loading import already_loaded
from autolabel.quality import NoiseOptions, find_noise, read_quality
from autolabel.quality.conflicts import find_conflicts
from autolabel.quality.from_run import evidence_of_run, labels_of_run, pictures_of
from autolabel.quality.own import own_proposal
from autolabel.second_look import look_again
from autolabel.types import RGB, Correction, Float, Segments
from tests.fakes import BoxSegmenter, SquareDetector

NO_IMAGES = NoiseOptions(images=False)


class LeftHalf(BoxSegmenter):
    """Sees the left half of every box alone: little enough that boxes and masks' boxes do not match by IoU 0.5."""

    def predict_batch(self, images: Sequence[RGB], boxes_xyxy: Sequence[Float]) -> list[Segments]:
        halves = [boxes.copy() for boxes in boxes_xyxy]
        for half in halves:
            half[:, 2] = half[:, 0] + np.floor((half[:, 2] - half[:, 0]) * 0.45)
        return super().predict_batch(images, halves)


@pytest.fixture
def halved(make_run) -> Run:
    run = make_run(6, segmenter=LeftHalf())
    look_again(run, detector=already_loaded(SquareDetector()))
    return run


def test_labels_are_compared_by_the_detectors_box_and_shown_by_the_masks(halved):
    pictures, labels = pictures_of(halved), labels_of_run(halved)
    found = [annotation for item in halved for annotation in item.annotations]
    assert all(one.box != one.proposed_box for one in found)
    assert labels.boxes_xyxy.tolist() == [list(one.proposed_box.xyxy) for one in found]
    assert labels.shown_xyxy.tolist() == [list(one.box.xyxy) for one in found]
    assert (own_proposal(labels, evidence_of_run(halved, pictures, masks=False).evidence, len(pictures)) >= 0).all()
    flagged = find_noise(halved, options=NO_IMAGES).flagged
    # The second look saw every label where the detector had, and nothing beside them.
    assert not {"location", "spurious", "overlooked"} & set(flagged)
    table = read_quality(halved.path)
    stored = np.column_stack([table.column(name) for name in ("x_min", "y_min", "x_max", "y_max")])
    assert stored.tolist() == labels.shown_xyxy.tolist()


def test_conflicts_are_of_the_boxes_that_people_see(halved):
    """Two boxes round one mask are one region with two labels, however little the detector's overlap."""
    labels = labels_of_run(halved)
    assert not len(find_conflicts(labels, len(pictures_of(halved)), ("scratch", "dent")).first)
    two = np.flatnonzero(labels.image == np.flatnonzero(np.bincount(labels.image) == 2)[0])
    labels.shown_xyxy[two[1]] = labels.shown_xyxy[two[0]]
    found = find_conflicts(labels, len(pictures_of(halved)), ("scratch", "dent"))
    assert [(int(a), int(b)) for a, b in zip(found.first, found.second, strict=True)] == [tuple(two)]


def test_labels_from_elsewhere_are_judged_by_the_boxes_of_masks(halved):
    pictures, labels = pictures_of(halved), labels_of_run(halved)
    evidence = evidence_of_run(halved, pictures, masks=False, boxes="mask").evidence
    place = own_proposal(labels, evidence_of_run(halved, pictures, masks=False).evidence, len(pictures))
    assert evidence.boxes_xyxy[place].tolist() == labels.shown_xyxy.tolist()


def test_what_was_deleted_is_not_called_overlooked(halved):
    item = next(item for item in halved if len(item.annotations) == 2)
    gone = item.annotations[0]
    write_decisions(
        halved.path, "test", [Correction("deleted", item.image.path, item.image.id, gone.id, before_box=gone.box)]
    )
    again = Run.open(halved.path)
    find_noise(again, options=NO_IMAGES)
    assert not [issue for issue in again.issues() if issue.kind == "overlooked" and issue.path == item.image.path]

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from autolabel.errors import ModelError
from autolabel.ontology import LabelClass, Ontology
from autolabel.stages.detect import class_scores, propose
from autolabel.stages.isolate import predict_isolated
from autolabel.stages.resolve import Gates, Resolution, resolve
from autolabel.types import Detections, Float

ONTOLOGY = Ontology((LabelClass("scratch", min_score=0.4), LabelClass("dent")), (LabelClass("glare"),))


def gates(ontology: Ontology = ONTOLOGY, **values: float) -> Gates:
    defaults = {"min_score": 0.3, "min_prob": 0.0, "min_area_px": 0.0, "nms_iou": 0.5, "cross_class_iou": 0.8}
    return Gates.of(ontology, **{**defaults, **values})


def settle(
    boxes: Sequence[Sequence[float]],
    scores: Sequence[Sequence[float]],
    probs: Sequence[Sequence[float]] | None = None,
    assign: str = "classifier",
    **thresholds: float,
) -> Resolution:
    return resolve(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32).reshape(-1, 3),
        None if probs is None else np.array(probs, np.float32).reshape(-1, 3),
        gates=gates(**thresholds),
        assign=assign,  # type: ignore[arg-type]
        class_count=2,
    )


def detections(boxes: Sequence[Sequence[float]], scores: Sequence[Sequence[float]], phrases: int = 2) -> Detections:
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32).reshape(-1, phrases))


def proposed(found: Detections, **settings: float) -> tuple[Float, dict[str, int]]:
    values = {"floor": 0.1, "iou": 0.8, "limit": 10, **settings}
    limit = int(values.pop("limit"))
    result = propose(found, (0, 1), 2, size_wh=(100, 80), limit=limit, **values)
    return result.boxes_xyxy, dict(result.dropped)


def test_no_detections_are_no_proposals() -> None:
    boxes, dropped = proposed(Detections.empty(2))
    assert boxes.shape == (0, 4)
    assert dropped == {}


def test_a_class_scores_what_its_best_phrase_scores() -> None:
    phrase_scores = np.array([[0.2, 0.7, 0.1]], np.float32)
    assert class_scores(phrase_scores, (0, 0, 1), 2).tolist() == [[pytest.approx(0.7), pytest.approx(0.1)]]


def test_every_box_that_is_not_proposed_has_a_reason() -> None:
    found = detections(
        [[0, 0, 10, 10], [0, 0, 10, 10.5], [20, 20, 30, 30], [5, 5, 5, 9], [50, 50, 60, 60], [70, 70, 79, 79]],
        [[0.9, 0], [0.8, 0], [0.05, 0.02], [0.9, 0], [np.nan, 0.5], [0.2, 0.3]],
    )
    boxes, dropped = proposed(found, limit=1)
    assert boxes.tolist() == [[0, 0, 10, 10]]
    assert dropped == {"same_proposal": 1, "below_floor": 1, "empty_box": 2, "over_limit": 1}


def test_proposals_are_inside_the_image_and_best_first() -> None:
    boxes, _ = proposed(detections([[-5, 0, 10, 10], [50, 50, 500, 500]], [[0.3, 0], [0.4, 0]]))
    assert boxes.tolist() == [[50, 50, 100, 80], [0, 0, 10, 10]]


def test_a_detector_that_answers_in_the_wrong_shape_is_told_so() -> None:
    with pytest.raises(ValueError, match="reshape"):
        proposed(detections([[0, 0, 1, 1]], [[0.5, 0.5, 0.5]], phrases=3))


def test_nothing_resolves_to_nothing() -> None:
    result = settle([], [], [])
    assert len(result.kept) == 0
    assert result.rejects == {}


def test_the_classifier_assigns_by_default_and_the_detector_when_asked() -> None:
    boxes, scores, probs = [[0, 0, 9, 9]], [[0.6, 0.2, 0.1]], [[0.1, 0.8, 0.1]]
    assert settle(boxes, scores, probs).labels.tolist() == [1]
    assert settle(boxes, scores, probs, "detector").labels.tolist() == [0]
    assert settle(boxes, scores, None).labels.tolist() == [0]


def test_fused_multiplies_both_opinions() -> None:
    assert settle([[0, 0, 9, 9]], [[0.6, 0.5, 0.1]], [[0.3, 0.6, 0.1]], "fused").labels.tolist() == [1]
    assert settle([[0, 0, 9, 9]], [[0.9, 0.3, 0.1]], [[0.3, 0.6, 0.1]], "fused").labels.tolist() == [0]


def test_gates_are_the_assigned_classs_own() -> None:
    boxes = [[0, 0, 9, 9], [20, 20, 29, 29]]
    scores = [[0.35, 0.1, 0], [0.1, 0.35, 0]]
    result = settle(boxes, scores, None)
    assert result.kept.tolist() == [1]
    assert result.rejects == {"low_score": 1}


def test_each_reject_has_one_reason() -> None:
    boxes = [[0, 0, 9, 9], [20, 20, 29, 29], [40, 40, 41, 41], [60, 60, 70, 70], [60, 60, 70, 71]]
    scores = [[0.1, 0, 0], [0.5, 0, 0], [0.5, 0, 0], [0.5, 0, 0], [0.6, 0, 0]]
    probs = [[0.9, 0.1, 0], [0.5, 0.4, 0.1], [0.9, 0.1, 0], [0.9, 0.1, 0], [0.9, 0.1, 0]]
    result = settle(boxes, scores, probs, min_prob=0.6, min_area_px=20)
    assert result.kept.tolist() == [4]
    assert result.rejects == {"low_score": 1, "low_prob": 1, "too_small": 1, "overlap": 1}


def test_boxes_of_two_classes_may_overlap_more_than_boxes_of_one() -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 7]]
    assert settle(boxes, [[0.6, 0, 0], [0.5, 0, 0]], None).kept.tolist() == [0]
    assert settle(boxes, [[0.6, 0, 0], [0, 0.5, 0]], None).kept.tolist() == [0, 1]
    assert settle([[0, 0, 10, 10]] * 2, [[0.6, 0, 0], [0, 0.5, 0]], None).kept.tolist() == [0]


def test_two_neighbours_whose_masks_are_the_same_part_stay_two() -> None:
    """What is one object goes by the detector's boxes; what is too small by the boxes that are shown."""
    boxes = np.array([[0, 0, 10, 10], [6, 0, 16, 10]], np.float32)
    shown = np.array([[4, 0, 12, 10], [4, 0, 12, 10]], np.float32)
    scores = np.array([[0.6, 0, 0], [0.5, 0, 0]], np.float32)

    def kept(min_area_px: float) -> list[int]:
        limits = gates(min_area_px=min_area_px)
        values = {"gates": limits, "assign": "detector", "class_count": 2, "settled_xyxy": shown}
        return resolve(boxes, scores, None, **values).kept.tolist()  # type: ignore[arg-type]

    assert kept(0) == [0, 1]
    assert kept(80) == [0, 1]
    assert kept(81) == []


def test_a_negative_claims_its_box_and_is_dropped() -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10]]
    result = settle(boxes, [[0, 0, 0.9], [0, 0.5, 0]], None)
    assert len(result.kept) == 0
    assert result.rejects == {"overlap": 1, "negative": 1}


def test_a_failing_batch_is_tried_one_by_one() -> None:
    calls: list[Sequence[int]] = []

    def predict(items: Sequence[int]) -> list[int]:
        calls.append(items)
        if 2 in items:
            raise RuntimeError("two")
        return [10 * item for item in items]

    answers = predict_isolated(predict, [1, 2, 3])
    assert answers[0] == 10
    assert isinstance(answers[1], RuntimeError)
    assert answers[2] == 30
    assert calls == [[1, 2, 3], [1], [2], [3]]


def test_nothing_to_predict_calls_nothing() -> None:
    assert predict_isolated(pytest.fail, []) == []


def test_a_model_that_answers_too_seldom_fails_alone() -> None:
    answers = predict_isolated(lambda items: [], [1, 2])
    assert all(isinstance(answer, ValueError) for answer in answers)


@pytest.mark.parametrize("error", [ModelError("no weights"), KeyboardInterrupt()])
def test_a_missing_model_and_ctrl_c_end_the_run(error: BaseException) -> None:
    def predict(items: Sequence[int]) -> list[int]:
        raise error

    with pytest.raises(type(error)):
        predict_isolated(predict, [1, 2])

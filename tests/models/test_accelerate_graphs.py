"""When two answers of a network are the same."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from autolabel.models import registry
from autolabel.models.accelerate_graphs import CropGraph, DetectorGraph, EncoderGraph, graph_of
from autolabel.protocols import Runtime


def test_a_backend_of_someone_else_has_no_graph():
    assert graph_of("detector", object()) is None


def _dino_answer(boxes: list[list[float]], scores: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([scores])[..., None].logit(), torch.tensor([boxes])


@pytest.mark.parametrize(
    ("boxes", "scores", "said"),
    [
        ([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], [0.9, 0.3], None),
        ([[0.2, 0.2, 0.1, 0.1], [0.5, 0.5, 0.2, 0.2]], [0.3, 0.9], None),  # another order
        ([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], [0.9, 0.302], "0.002 of its score"),
        ([[0.505, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], [0.9, 0.3], "1 px"),
        ([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], [0.9, 0.01], "of its score"),
        ([[0.5, 0.5, 0.2, 0.2], [0.2, float("nan"), 0.1, 0.1]], [0.9, 0.3], "not numbers"),
    ],
)
def test_boxes_are_compared_wherever_they_stand(boxes, scores, said):
    class Detector:
        forward = None

    expected = _dino_answer([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], [0.9, 0.3])
    inputs = [np.zeros((1, 3, 100, 200), np.float32)]
    problem = DetectorGraph(Detector()).differs(expected, _dino_answer(boxes, scores), inputs)
    assert problem is None if said is None else said in problem


def test_rubbish_below_every_threshold_may_differ():
    class Detector:
        forward = None

    one, other = (_dino_answer([[x, 0.5, 0.2, 0.2]], [0.02]) for x in (0.1, 0.9))
    assert DetectorGraph(Detector()).differs(one, other, [np.zeros((1, 3, 100, 200), np.float32)]) is None


@pytest.mark.parametrize(
    ("boxes", "scores", "said"),
    [
        ([[0.501, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], [0.905, 0.298], None),
        ([[0.2, 0.2, 0.1, 0.1], [0.5, 0.5, 0.2, 0.2]], [0.3, 0.9], None),  # another order
        ([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], [0.9, 0.32], "0.02 of its score"),
        ([[0.51, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], [0.9, 0.3], "an IoU of 0.90"),
        ([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], [0.9, float("nan")], "not numbers"),
    ],
)
def test_boxes_of_a_shorter_format_keep_their_place_and_scores(boxes, scores, said):
    expected = _dino_answer([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], [0.9, 0.3])
    problem = DetectorGraph(SimpleNamespace(forward=None)).labels_differ(expected, _dino_answer(boxes, scores))
    assert problem is None if said is None else said in problem


def test_masks_of_a_shorter_format_keep_their_pixels():
    model = registry.load("segmenter", registry.resolve("segmenter"), Runtime(cpu="eager"))
    graph = EncoderGraph(model)
    pixels = model.pixel_values(np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8))[None]
    with torch.inference_mode():
        levels = model.encoder(pixels)
        assert model.sketch(levels).any()
        assert graph.labels_differ(levels, [level + 1e-5 for level in levels]) is None
        assert "a mask to an IoU of" in graph.labels_differ(levels, [level.flip(-1) for level in levels])


def test_probabilities_of_a_shorter_format_are_compared_where_classes_are_asked_for():
    model = registry.load("classifier", registry.resolve("classifier"), Runtime(cpu="eager"))
    graph = CropGraph(model)
    one, other = torch.eye(2, model._dimension())
    assert graph.labels_differ(one[None], other[None]) is None  # nobody asks for a class
    image, boxes = np.zeros((64, 64, 3), np.uint8), np.array([[0, 0, 64, 64]], np.float32)
    answer = model.predict_batch([image], [boxes], None, [["scratch"], ["dent"]])[0]
    seen = torch.from_numpy(answer.embeddings)
    assert torch.allclose(model.opinions(seen), torch.from_numpy(answer.probs), atol=1e-6)
    assert graph.labels_differ(seen, seen + 1e-6) is None
    assert "a probability by" in graph.labels_differ(seen, -seen)

"""Points and boxes of a person against the package's own predictor."""

from __future__ import annotations

import numpy as np
import pytest

from autolabel.models import registry
from autolabel.protocols import Prompt, Promptable
from autolabel.types import Box
from tests.models.random_models import picture
from tests.parity.test_sam2 import iou

PROMPTS = [
    Prompt(positive=((30.0, 40.0),)),
    Prompt(positive=((30.0, 40.0), (90.5, 60.0))),
    Prompt(positive=((30.0, 40.0),), negative=((120.0, 80.0), (5.0, 5.0))),
    Prompt(box=Box(20, 10, 100, 90)),
    Prompt(box=Box(20, 10, 100, 90), positive=((50.0, 50.0),), negative=((95.0, 85.0),)),
]


def by_the_package(model, image, prompt: Prompt) -> tuple[np.ndarray, float]:
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(model)
    size = model.image_size
    predictor._bb_feat_sizes = [(size // 4,) * 2, (size // 8,) * 2, (size // 16,) * 2]
    predictor.set_image(image)
    points = np.array([*prompt.positive, *prompt.negative], np.float32)
    labels = np.array([1] * len(prompt.positive) + [0] * len(prompt.negative))
    masks, scores, _ = predictor.predict(
        point_coords=points if len(points) else None,
        point_labels=labels if len(points) else None,
        box=None if prompt.box is None else np.array(prompt.box.xyxy),
        # What its authors advise: one click may mean several things, more say which.
        multimask_output=prompt.box is None and len(points) == 1,
    )
    best = int(scores.argmax())
    return masks[best] > 0, float(scores[best])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_prompts_are_answered_as_by_the_predictor(checkpoint, cpu):
    segmenter = registry.load_segmenter(f"sam2:{checkpoint('segmenter', image_size=256)}", cpu)
    assert isinstance(segmenter, Promptable)
    image = picture(160, 120)
    found = segmenter.segment_prompts(segmenter.embed(image), PROMPTS)
    theirs = [by_the_package(segmenter._model, image, prompt) for prompt in PROMPTS]
    ours = [mask.decode() for mask in found.masks]
    # Empty masks, or masks of everything, would agree whatever the model does.
    assert any(0.02 < mask.mean() < 0.98 for mask in ours)
    assert min(iou(one, other[0]) for one, other in zip(ours, theirs, strict=True)) >= 0.999
    np.testing.assert_allclose(found.scores, [score for _, score in theirs], atol=1e-4)


def test_a_box_as_a_prompt_is_the_box_of_a_batch(checkpoint, cpu):
    segmenter = registry.load_segmenter(f"sam2:{checkpoint('segmenter')}?margin=0.1", cpu)
    image = picture(160, 120)
    box = Box(20, 10, 100, 90)
    prompted = segmenter.segment_prompts(segmenter.embed(image), [Prompt(box=box)])
    (batched,) = segmenter.predict_batch([image], [np.array([box.xyxy], np.float32)])
    assert prompted.masks == batched.masks
    np.testing.assert_array_equal(prompted.scores, batched.scores)


def test_the_bundled_segmenter_says_that_it_knows_no_points(cpu):
    assert registry.load_segmenter("sam2:starter", cpu).points is False

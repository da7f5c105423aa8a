from __future__ import annotations

import threading

import pytest
import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoTokenizer

from autolabel.models.dino_layers import quicken
from autolabel.models.grounding_dino import Network
from autolabel.models.phrases import Pass
from autolabel.models.text_once import TextOnce
from tests.models.random_models import picture


class Encoder:
    """Answers with the ids it is asked for, and notes of what shape they were."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor, **more: torch.Tensor) -> dict[str, torch.Tensor]:
        self.asked.append((*input_ids.shape, len(mask), *(len(each) for each in more.values())))
        return {"last_hidden_state": input_ids.float()[..., None]}


def test_a_caption_is_encoded_as_one_row_and_once():
    encoder = Encoder()
    once = TextOnce.over(encoder)
    ids = torch.tensor([[1, 2, 3]]).expand(4, -1)
    for rows in (4, 2):
        with once.reading("a"):
            answer = encoder.forward(ids[:rows], torch.ones(rows, 3), position_ids=ids[:rows])
        assert torch.equal(answer.last_hidden_state, ids[:rows].float()[..., None])
        assert answer["last_hidden_state"] is answer.last_hidden_state
    assert encoder.asked == [(1, 3, 1, 1)]


def test_captions_do_not_mix_and_without_one_nothing_is_kept():
    encoder = Encoder()
    once = TextOnce.over(encoder)
    for caption, value in (("a", 1), ("b", 2), ("a", 1)):
        with once.reading(caption):
            assert encoder.forward(torch.tensor([[value]]), torch.ones(1, 1)).last_hidden_state.item() == value
    assert len(encoder.asked) == 2
    assert encoder.forward(torch.tensor([[7], [8]]), torch.ones(2, 1))["last_hidden_state"].flatten().tolist() == [7, 8]
    assert len(encoder.asked) == 3


def test_each_thread_reads_its_own_caption():
    encoder = Encoder()
    once = TextOnce.over(encoder)
    inside, found = threading.Barrier(2, timeout=30), {}

    def ask(value: int) -> None:
        with once.reading(value):
            inside.wait()
            found[value] = encoder.forward(torch.tensor([[value]]), torch.ones(1, 1)).last_hidden_state.item()

    threads = [threading.Thread(target=ask, args=(value,)) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {1: 1, 2: 2}


@pytest.mark.parametrize("kind", ["grounding-dino", "mm-grounding-dino"])
def test_a_detector_reads_its_text_once_and_answers_the_same_to_the_bit(checkpoint, kind, monkeypatch):
    folder = checkpoint("detector", kind=kind)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    quicken(model)  # equal up to rounding, which is another test's; here only the text may differ
    ids = (101, *AutoTokenizer.from_pretrained(folder)("scratch", add_special_tokens=False)["input_ids"], 1012, 102)
    pixels = torch.from_numpy(picture(160, 128)).permute(2, 0, 1)[None].float() / 255
    mask = torch.ones(1, 128, 160, dtype=torch.long)
    with torch.inference_mode():
        expected = model(pixel_values=pixels, pixel_mask=mask, input_ids=torch.tensor([ids]))
        calls = []
        words = model.model.text_backbone.embeddings.forward
        monkeypatch.setattr(
            model.model.text_backbone.embeddings, "forward", lambda *a, **k: calls.append(1) or words(*a, **k)
        )
        network, caption = Network(model), Pass("scratch.", (0,), ids, ((1, 2),))
        for _ in range(2):
            logits, boxes = network(pixels, mask, caption)
            assert torch.equal(logits, expected.logits)
            assert torch.equal(boxes, expected.pred_boxes)
        logits, _ = network(pixels.expand(2, -1, -1, -1), mask.expand(2, -1, -1), caption)
    torch.testing.assert_close(logits[1], expected.logits[0], atol=1e-4, rtol=1e-4)
    assert len(calls) == 1

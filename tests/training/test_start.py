"""Beginning with weights that are there, and the words of prompts that such a training teaches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from training import runtime
from training.evaluate_words import COLOURED, NEVER_SEEN, TRAINED_NEGATIVES, phrasings
from training.generator import CLASS_NAMES
from training.soup import between
from training.vocabulary import COLOURS, MORE_PLACES, PLACES, STRANGE, SYNONYMS, prompt_for, unknown_words, wordpieces


class Small(nn.Module):
    def __init__(self, words: int, width: int = 3) -> None:
        super().__init__()
        self.table = nn.Embedding(words, width)
        self.scale = nn.Parameter(torch.tensor(0.5))


def test_known_words_keep_their_rows_and_new_ones_are_fresh() -> None:
    old, model = Small(4), Small(6)
    new_rows = model.table.weight[4:].detach().clone()
    with torch.no_grad():
        old.scale.fill_(2.0)
    runtime.begin_with(model, {name: value.half() for name, value in old.state_dict().items()})
    torch.testing.assert_close(model.table.weight[:4], old.table.weight.detach().half().float())
    assert torch.equal(model.table.weight[4:], new_rows)
    assert model.scale.item() == 2.0


@pytest.mark.parametrize("other", [Small(4, width=2), Small(9)])
def test_weights_of_another_architecture_are_refused(other: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"table\.weight has shape"):
        runtime.begin_with(Small(6), other.state_dict())


def test_weights_that_lack_something_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lack table\.weight"):
        runtime.begin_with(Small(6), {"scale": torch.tensor(1.0)})


def test_words_of_nothing_name_no_class_and_the_measured_ones_are_never_trained() -> None:
    class_words = {word for group in SYNONYMS.values() for phrase in group for word in phrase.split()}
    pieces, known = set(wordpieces()), {*unknown_words(CLASS_NAMES), *STRANGE}
    assert not class_words & known
    assert not set(NEVER_SEEN) & (known | pieces)
    assert set(TRAINED_NEGATIVES) <= known
    assert not set(STRANGE) & {word for phrase in (*COLOURS, *PLACES, *MORE_PLACES) for word in phrase.split()}


def test_colours_and_places_are_whole_words_of_the_vocabulary() -> None:
    pieces = set(wordpieces())
    assert {word for phrase in (*COLOURS, *PLACES, *MORE_PLACES) for word in phrase.split()} <= pieces


def test_some_prompts_name_nothing_that_is_there() -> None:
    rng = np.random.default_rng(0)
    prompts = [prompt_for(rng, CLASS_NAMES) for _ in range(400)]
    empty = [phrases for phrases in prompts if all(index < 0 for _, index in phrases)]
    assert 0.03 < len(empty) / len(prompts) < 0.15
    spoken = {text for phrases in prompts for text, _ in phrases}
    assert {"missing screw", "scratch", "burr"} <= spoken
    assert any(text.split()[0] in COLOURS for text in spoken)
    assert any(text.endswith(" on steel") for text in spoken)


def test_every_class_has_a_phrasing_of_each_kind() -> None:
    assert set(COLOURED) == set(CLASS_NAMES)
    for way, prompts in phrasings(CLASS_NAMES).items():
        assert len(set(prompts)) == len(CLASS_NAMES), way
        assert not set(prompts) & set(CLASS_NAMES), way


def test_a_mean_of_two_states_keeps_rows_that_one_alone_has() -> None:
    old, new = Small(4).state_dict(), Small(6).state_dict()
    mixed = between(old, new, 0.75)
    torch.testing.assert_close(mixed["table.weight"][:4], 0.25 * old["table.weight"] + 0.75 * new["table.weight"][:4])
    assert torch.equal(mixed["table.weight"][4:], new["table.weight"][4:])
    assert equal_states(between(old, old, 0.3), old)
    assert equal_states(between(old, new, 1.0), new)


def equal_states(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(first[name], second[name]) for name in second)

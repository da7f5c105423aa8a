from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.errors import ModelError
from autolabel.models.phrases import plan_passes, span_scores
from tests.models.random_models import WORDS, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return AutoTokenizer.from_pretrained(str(folder))


def words(tokenizer, each, place):
    start, stop = each.spans[place]
    return tokenizer.convert_ids_to_tokens(each.token_ids[start:stop])


def test_no_phrases_need_no_pass(tokenizer):
    assert plan_passes([], tokenizer, 256) == []


def test_caption_and_spans_are_those_of_the_model(tokenizer):
    (each,) = plan_passes(["Scratch", "long thin dent", "co-op"], tokenizer, 256)
    assert each.caption == "scratch. long thin dent. co-op."
    assert tuple(tokenizer(each.caption)["input_ids"]) == each.token_ids
    assert words(tokenizer, each, 0) == ["scratch"]
    assert words(tokenizer, each, 1) == ["long", "thin", "dent"]
    assert words(tokenizer, each, 2) == ["co", "-", "op"]


def test_separators_inside_a_phrase_do_not_end_it(tokenizer):
    (each,) = plan_passes(["dent. rust?", "crack"], tokenizer, 256)
    assert words(tokenizer, each, 0) == ["dent", "rust"]
    assert tuple(tokenizer(each.caption)["input_ids"]) == each.token_ids


def test_phrases_that_share_words_keep_their_own_tokens(tokenizer):
    (each,) = plan_passes(["scratch", "long scratch", "scratch on paint"], tokenizer, 256)
    covered = [position for start, stop in each.spans for position in range(start, stop)]
    assert len(covered) == len(set(covered)) == 6


def test_too_many_phrases_are_split_evenly_and_in_order(tokenizer):
    phrases = [f"{a} {b}" for a in WORDS[:6] for b in WORDS[:6]]
    passes = plan_passes(phrases, tokenizer, 50)
    assert [place for each in passes for place in each.phrases] == list(range(36))
    assert all(len(each.token_ids) <= 50 for each in passes)
    assert len(passes) == math.ceil(36 / 16)
    assert {len(each.phrases) for each in passes} == {12}


def test_phrases_per_pass_limits_a_caption(tokenizer):
    passes = plan_passes(WORDS[:5], tokenizer, 256, per_pass=2)
    assert [each.phrases for each in passes] == [(0, 1), (2, 3), (4,)]


@pytest.mark.parametrize("phrase", ["", "...", "🦓", "漢字"])
def test_a_phrase_without_known_words_is_an_error(tokenizer, phrase: str):
    with pytest.raises(ModelError, match="vocabulary has no words for the phrase"):
        plan_passes(["dent", phrase], tokenizer, 256)


def test_a_phrase_longer_than_a_caption_is_an_error(tokenizer):
    with pytest.raises(ModelError, match="300 tokens, the detector reads at most 253; shorten it"):
        plan_passes(["dent " * 300], tokenizer, 256)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("abcé -,.?_ẞ", min_size=1, max_size=12), max_size=12), st.integers(32, 60))
def test_any_phrase_gets_tokens_of_its_own(tokenizer, phrases, max_tokens):
    try:
        passes = plan_passes(phrases, tokenizer, max_tokens)
    except ModelError:
        return
    assert sorted(place for each in passes for place in each.phrases) == list(range(len(phrases)))
    for each in passes:
        assert len(each.token_ids) <= max_tokens
        stops = [i for i, token in enumerate(each.token_ids) if token == 1012]
        assert [stop for _, stop in each.spans] == stops
        assert tuple(tokenizer(each.caption)["input_ids"]) == each.token_ids


def test_span_scores_are_the_sigmoids_max_or_mean():
    logits = torch.tensor([[-math.inf, 0.0, 2.0, -2.0, -math.inf]])
    spans = [(1, 2), (2, 4)]
    assert span_scores(logits, spans)[0].tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-2))])
    assert span_scores(logits, spans, "mean")[0].tolist() == pytest.approx([0.5, 0.5])
    assert span_scores(torch.zeros(0, 5), spans).shape == (0, 2)

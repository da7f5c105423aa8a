"""Which tokens stand for which phrase, and a phrase's score from its tokens.

Grounding DINO reads all phrases as one caption, ``"scratch. dent."``, and scores every box against every token. A
phrase's score is taken from the tokens it was written with, so that it always belongs to exactly one phrase of the
ontology; nothing is ever decoded back to words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from autolabel.errors import ModelError
from autolabel.ontology import normalise

if TYPE_CHECKING:
    import torch

Span = Literal["max", "mean"]
SPANS: tuple[Span, ...] = ("max", "mean")
_SPECIALS = 2  # [CLS] and [SEP]


@dataclass(frozen=True, slots=True)
class Pass:
    """One caption: the phrases in it (their places in the whole list), its token ids, and each phrase's tokens.

    ``spans`` are half-open ranges of token positions, one for each of ``phrases``; the full stop is not part of it.
    """

    caption: str
    phrases: tuple[int, ...]
    token_ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


def plan_passes(phrases: Sequence[str], tokenizer: Any, max_tokens: int, per_pass: int | None = None) -> list[Pass]:
    """Split ``phrases`` into captions of at most ``max_tokens`` tokens (specials included), in order.

    ``tokenizer`` is a Hugging Face tokenizer whose ``[CLS]``, ``[SEP]`` and ``.`` separate phrases; ``per_pass``
    limits the phrases of one caption. Raises ModelError for a phrase with no known token, or longer than a caption.
    """
    stop = tokenizer.convert_tokens_to_ids(".")
    words = [normalise(phrase) for phrase in phrases]
    tokens = [_phrase_tokens(word, phrase, tokenizer, max_tokens) for word, phrase in zip(words, phrases, strict=True)]
    plans: list[Pass] = []
    for group in _groups([len(ids) + 1 for ids in tokens], max_tokens - _SPECIALS, per_pass):
        ids, spans = [tokenizer.cls_token_id], []
        for place in group:
            spans.append((len(ids), len(ids) + len(tokens[place])))
            ids += [*tokens[place], stop]
        ids.append(tokenizer.sep_token_id)
        caption = " ".join(f"{words[place]}." for place in group)
        plans.append(Pass(caption, tuple(group), tuple(ids), tuple(spans)))
    return plans


def _phrase_tokens(word: str, phrase: str, tokenizer: Any, max_tokens: int) -> list[int]:
    ids: list[int] = tokenizer(word, add_special_tokens=False)["input_ids"]
    separators = {tokenizer.cls_token_id, tokenizer.sep_token_id, *tokenizer.convert_tokens_to_ids([".", "?"])}
    if not ids or separators & set(ids) or set(ids) == {tokenizer.unk_token_id}:
        raise ModelError(f"the detector's vocabulary has no words for the phrase {phrase!r}; describe it differently")
    if len(ids) + 1 > max_tokens - _SPECIALS:
        raise ModelError(
            f"the phrase {phrase[:40]!r}… has {len(ids)} tokens, the detector reads at most "
            f"{max_tokens - _SPECIALS - 1}; shorten it"
        )
    return ids


def _groups(lengths: Sequence[int], room: int, per_pass: int | None) -> list[list[int]]:
    """Fill captions in order, then even them out: as many captions as needed, of about equal length."""
    limit = per_pass or len(lengths) or 1

    def fill(size: int) -> list[list[int]]:
        groups: list[list[int]] = []
        used = size + 1
        for place, length in enumerate(lengths):
            if used + length > size or len(groups[-1]) == limit:
                groups.append([])
                used = 0
            groups[-1].append(place)
            used += length
        return groups

    groups = fill(room)
    fair = max([*lengths, -(-sum(lengths) // max(1, len(groups)))], default=room)
    return next((g for size in range(fair, room) if len(g := fill(size)) == len(groups)), groups)


def span_scores(logits: torch.Tensor, spans: Sequence[tuple[int, int]], how: Span = "max") -> torch.Tensor:
    """Phrase scores ``(…, P)`` in [0, 1] from token logits ``(…, T)``: the sigmoid's max or mean over each span."""
    import torch

    tokens = logits.float().sigmoid()
    columns = [
        tokens[..., start:stop].amax(-1) if how == "max" else tokens[..., start:stop].mean(-1) for start, stop in spans
    ]
    return torch.stack(columns, dim=-1)

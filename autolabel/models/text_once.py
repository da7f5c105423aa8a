"""A detector's text encoder, asked once for each caption: a run asks for the same words image after image."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_KEPT = 64
"""Captions that are kept: an ontology of thousands of phrases needs this many, and one takes about 1 MB."""


class TextOnce:
    """In place of a text encoder's ``forward``: encodes one row and answers with as many as were asked for.

    Which caption it is asked for is said by `reading`, by thread, since looking at the token ids would wait for the
    device. Without that it passes each call on.
    """

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward
        self._asked = threading.local()
        self._kept: dict[object, torch.Tensor] = {}

    @classmethod
    def over(cls, encoder: Any) -> TextOnce:
        """Put one in front of a module's forward method."""
        once = cls(encoder.forward)
        encoder.forward = once
        return once

    @contextmanager
    def reading(self, caption: object) -> Iterator[None]:
        """Within this the thread asks for ``caption`` only."""
        self._asked.caption = caption
        try:
            yield
        finally:
            self._asked.caption = None

    def __call__(self, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Answer as the encoder does for ``(B, T)`` equal rows; of the answer only ``last_hidden_state`` is kept."""
        caption = getattr(self._asked, "caption", None)
        if caption is None:
            return self._forward(input_ids, *args, **kwargs)
        features = self._kept.get(caption)
        if features is None:
            rows = [_first_row(each) for each in args]
            outputs = self._forward(_first_row(input_ids), *rows, **{k: _first_row(v) for k, v in kwargs.items()})
            features = outputs["last_hidden_state"]
            while len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept)), None)
            self._kept[caption] = features
        return _Encoded(last_hidden_state=features.expand(len(input_ids), -1, -1))


class _Encoded(dict[str, torch.Tensor]):
    """What both packages read an encoder's answer as: a mapping, or an object with attributes."""

    @property
    def last_hidden_state(self) -> torch.Tensor:
        return self["last_hidden_state"]


def _first_row(value: Any) -> Any:
    return value[:1] if isinstance(value, torch.Tensor) else value

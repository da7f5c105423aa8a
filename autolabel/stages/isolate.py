"""Failure isolation: one bad image costs its own row in the ledger, never the batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from autolabel.errors import ModelError

Item = TypeVar("Item")
Answer = TypeVar("Answer")
_log = logging.getLogger(__name__)


def predict_isolated(
    predict: Callable[[Sequence[Item]], Sequence[Answer]], items: Sequence[Item]
) -> list[Answer | Exception]:
    """Run ``predict`` on a batch; when that fails, on each item alone, so that only the culprits answer with an error.

    A missing model (ModelError) and Ctrl-C end the run: they are not an image's fault.
    """
    if not items:
        return []
    try:
        return list(_checked(predict, items))
    except ModelError:
        raise
    except Exception as error:
        if len(items) == 1:
            _log.debug("image failed", exc_info=error)
            return [error]
        _log.info("a batch of %d failed (%s); trying its images one by one", len(items), error)
    return [answer for item in items for answer in predict_isolated(predict, [item])]


def _checked(predict: Callable[[Sequence[Item]], Sequence[Answer]], items: Sequence[Item]) -> Sequence[Answer]:
    answers = predict(items)
    if len(answers) != len(items):
        raise ValueError(f"the model answered {len(answers)} times for {len(items)} images")
    return answers

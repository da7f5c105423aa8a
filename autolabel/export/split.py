"""Train, validation and test: decided by each image's content alone, so that a growing run never moves an image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from autolabel.errors import UsageError

SPLITS = ("train", "val", "test")


def check_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    """Return two or three fractions for train, val and test; raise UsageError unless they are ≥ 0 and sum to 1."""
    if len(fractions) not in (2, 3) or any(f < 0 for f in fractions) or abs(sum(fractions) - 1.0) > 1e-6:
        raise UsageError(
            f"split must be two or three fractions that sum to 1, got {tuple(fractions)}; for example 0.8,0.1,0.1"
        )
    return tuple(fractions)


def split_of(image_id: str, fractions: Sequence[float] | None) -> str:
    """Name the split of an image from the hash of its content id; without fractions all are ``train``.

    Equal content lands on one side. The fractions hold in expectation, not exactly.
    """
    if fractions is None:
        return SPLITS[0]
    digest = hashlib.sha256(f"split:{image_id}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    used = [(name, share) for name, share in zip(SPLITS, fractions, strict=False) if share > 0]
    edge = 0.0
    for name, fraction in used:
        edge += fraction
        if place < edge:
            return name
    return used[-1][0]

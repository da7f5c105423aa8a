"""Seed ranges: one integer seed makes one picture, and the splits never share a seed."""

from __future__ import annotations

from typing import Final

TRAIN: Final = range(0, 10_000_000)
VALIDATION: Final = range(10_000_000, 11_000_000)
TEST: Final = range(20_000_000, 21_000_000)
SAMPLE_DATA: Final = range(30_000_000, 30_100_000)

SPLITS: Final[dict[str, range]] = {
    "train": TRAIN,
    "validation": VALIDATION,
    "test": TEST,
    "sample_data": SAMPLE_DATA,
}


def split_of(seed: int) -> str:
    """Name of the split that owns ``seed``; raises ValueError for a seed outside all of them."""
    for name, seeds in SPLITS.items():
        if seed in seeds:
            return name
    raise ValueError(f"seed must lie in one of {sorted(SPLITS)}, got {seed}")

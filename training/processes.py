"""Processes that make pictures."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Start processes anew instead of forking: a fork inherits locks that OpenCV's or torch's threads hold for ever."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))

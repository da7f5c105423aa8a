"""Fixtures of the model tests: each small checkpoint is written once a session."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from autolabel.protocols import Runtime


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Small tensors gain nothing from threads, and on a busy machine the threads wait for each other.
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(scope="session")
def cpu() -> Runtime:
    return Runtime("cpu", "float32", offline=True)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``checkpoint("detector", kind=…)`` writes that random model on first use and returns its folder."""
    from tests.models import random_models

    written: dict[tuple[object, ...], Path] = {}

    def write(kind: str, /, **options: object) -> Path:
        key = (kind, *sorted(options.items()))
        if key not in written:
            folder = tmp_path_factory.mktemp(kind) / kind
            written[key] = getattr(random_models, f"write_{kind}")(folder, **options)
        return written[key]

    return write

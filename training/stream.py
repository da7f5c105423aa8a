"""Batches made ahead of the training, in worker processes where there are cores for them.

A batch is a function of the seed, its number and the training's progress, so that the order of the workers and their
number change nothing, and a training that counts steps sees the same batches every time.
"""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar

import cv2
import numpy as np
import torch
from torch import multiprocessing
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.runtime import Schedule

Made = TypeVar("Made")
AHEAD: Final = 3
SHARED_MEMORY: Final = 2_000_000_000
"""Bytes that batches on their way from workers may take; where there is less, a thread makes them."""


class Stream(IterableDataset[Made], Generic[Made]):
    """Endless batches ``make(rng, progress)``, numbered ``first``, ``first + stride`` and so on."""

    def __init__(
        self,
        make: Callable[[np.random.Generator, float], Made],
        schedule: Schedule,
        seed: int,
        first: int = 0,
        stride: int = 1,
    ) -> None:
        self.make, self.steps, self.seed = make, schedule.steps, seed
        self.first, self.stride = first, stride
        self.shared: Any = multiprocessing.get_context("spawn").Value("d", schedule.progress(first))

    def tell(self, progress: float) -> None:
        """Tell the workers how far the training is; one that counts steps does not need it."""
        self.shared.value = progress

    def __iter__(self) -> Iterator[Made]:
        """Make this worker's share of the batches."""
        cv2.setNumThreads(1)
        worker = get_worker_info()
        mine, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        number = self.first + mine * self.stride
        while True:
            progress = min(1.0, number / self.steps) if self.steps else float(self.shared.value)
            yield self.make(np.random.default_rng([self.seed, number]), progress)
            number += workers * self.stride

    def loader(self, workers: int) -> Iterator[Made]:
        """Iterate over the batches, made by ``workers`` processes (0: in this one)."""
        if workers == 0:
            return iter(self)
        if shutil.disk_usage("/dev/shm").free < SHARED_MEMORY:
            return self._by_a_thread()
        return iter(
            DataLoader(
                self,
                batch_size=None,
                collate_fn=_as_made,
                num_workers=workers,
                prefetch_factor=AHEAD,
                pin_memory=torch.cuda.is_available(),
                multiprocessing_context="spawn",
            )
        )

    def _by_a_thread(self) -> Iterator[Made]:
        ready: queue.Queue[Made] = queue.Queue(maxsize=AHEAD)

        def work() -> None:
            for batch in self:
                ready.put(batch)

        threading.Thread(target=work, daemon=True).start()
        while True:
            yield ready.get()


def _as_made(batch: Made) -> Made:
    """Keep torch from turning tuples into lists and arrays into tensors."""
    return batch

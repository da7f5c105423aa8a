"""How many items one forward pass takes: found from the memory there is, and halved when it runs out."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from autolabel.models.runtime import on_gpu
from autolabel.protocols import Runtime

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)
_SHARE = 0.8
"""Of the free memory one pass may take this much: what a pass takes is not quite proportional to its batch."""
_GROWTH = 4
"""A measurement of n items is trusted for this many times n."""
CPU_PIXELS = 800_000
"""Input pixels of the images that a network sees at once on a CPU.

Measured on 4 cores: the bundled detector takes 0.7 of the time for 4 images of 320 x 280 px at once, but Grounding
DINO-T 1.6 of it for 2 images of 1066 x 800 px, whose activations leave the cache.
"""
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")


class Batches:
    """The size of one network's batches, kept as long as the network is.

    Sizes are counted in units of work, such as pixels: an item of twice the pixels takes twice the memory. On a CUDA
    device the ``first`` pass is small; its peak says how many items fit, up to ``most``. A CPU takes ``cpu`` items,
    fewer where they are more than ``cpu_units`` together. With ``fixed`` the size is that. In all cases a pass that
    finds no memory is halved, and later passes keep to what was possible. One item alone that does not fit is an error.
    """

    def __init__(
        self,
        runtime: Runtime,
        fixed: int | None = None,
        *,
        cpu: int,
        cpu_units: float = float("inf"),
        first: int = 2,
        most: int,
    ) -> None:
        self._device = runtime.device
        self._measures = fixed is None and runtime.device.startswith("cuda")
        # Other devices than CUDA's do not say what is free, and rather swap than fail.
        unmeasured = min(most, _GROWTH * first) if on_gpu(runtime) else cpu
        self._most = fixed or (most if self._measures else unmeasured)
        self._units = float("inf") if fixed or on_gpu(runtime) else cpu_units
        self._first = min(first, self._most)
        self._allowed: float | None = None  # units of one pass: what was measured
        self._limit = float("inf")  # units of one pass: what was too much, halved
        self._lock = threading.Lock()

    def size(self, units: int = 1) -> int:
        """Items of one pass when each of them is so many units of work."""
        if not self._measures:
            allowed = self._units / units
        elif self._allowed is None:
            allowed = float(self._first)
        else:
            allowed = self._allowed / units
        return max(1, int(min(self._most, allowed, self._limit / units)))

    def run(
        self, items: Sequence[Item], forward: Callable[[Sequence[Item]], Answer], units: int = 1
    ) -> Iterator[tuple[slice, Answer]]:
        """Pass ``items`` through ``forward``, as many at once as are good; yields which they were, and the answer."""
        start, again = 0, False
        while start < len(items):
            part = slice(start, min(len(items), start + self.size(units)))
            count = part.stop - part.start
            try:
                answer = self._measured(items[part], forward, count * units)
            except Exception as error:
                if not out_of_memory(error) or (count == 1 and again):
                    raise
            else:
                start, again = part.stop, False
                yield part, answer
                continue
            # Only out here is the error gone, and with it its traceback, on which the failed pass's tensors hang.
            again = count == 1
            self._shrink(count, units)

    def _measured(self, items: Sequence[Item], forward: Callable[[Sequence[Item]], Answer], units: int) -> Answer:
        if not self._measures:
            return forward(items)
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        answer = forward(items)
        self._learn(before, units)
        return answer

    def _learn(self, before: int, units: int) -> None:
        """From the peak of a pass over ``units`` follows how many fit into what is free now."""
        taken = max(1, torch.cuda.max_memory_allocated(self._device) - before)
        free, _ = torch.cuda.mem_get_info(self._device)
        spare = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        self.learn(units, taken, free + spare)

    def learn(self, units: int, taken: int, free: int) -> None:
        """Note that a pass over ``units`` took ``taken`` bytes, where now ``free`` bytes are left for the next."""
        fits = _SHARE * free * units / taken
        with self._lock:
            self._allowed = max(min(fits, _GROWTH * units), min(self._allowed or 0.0, fits))

    def _shrink(self, count: int, units: int) -> None:
        with self._lock:
            if count > 1:
                self._limit = min(self._limit, count * units / 2)
        gc.collect()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()
        _log.info("no memory for %d at once on %s; going on with %d", count, self._device, self.size(units))


def out_of_memory(error: Exception) -> bool:
    """Tell whether a forward pass failed because there was no memory for it, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _NO_MEMORY)

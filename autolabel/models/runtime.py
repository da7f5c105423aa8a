"""Where models run: device and dtype, how a forward pass is wrapped, transfers, helpers, and glibc's memory on CPUs."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from autolabel.errors import ModelError
from autolabel.protocols import Runtime

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
_TRUE = {"1", "on", "yes", "true"}
_TURN = threading.RLock()


def pick_runtime(
    device: str | None = None,
    dtype: str | None = None,
    offline: bool = False,
    cpu: str = "auto",
    compiling: str = "auto",
) -> Runtime:
    """Choose where to run: CUDA, then MPS, then CPU; float16 on CUDA, else float32.

    Why not bfloat16: its 8 bits move a detector's boxes ten times as far (docs/backends.md).

    Raises ModelError for a device that is not there or a dtype that is not known. ``offline`` is also set by
    ``HF_HUB_OFFLINE``.
    """
    available = {"cpu": True, "cuda": cuda_devices() > 0, "mps": _has_mps()}
    if device in (None, "auto"):
        device = next(name for name in ("cuda", "mps", "cpu") if available[name])
    kind, _, index = device.partition(":") if device else ("", "", "")
    if not available.get(kind, False):
        there = ", ".join(name for name, ok in available.items() if ok)
        raise ModelError(f"device {device!r} is not available here; available: {there}")
    if kind == "cuda" and index and (not index.isdecimal() or int(index) >= cuda_devices()):
        raise ModelError(f"device {device!r} is not available here; CUDA devices: {cuda_devices()}")
    exact = dtype is not None
    if dtype is None:
        dtype = "float16" if kind == "cuda" else "float32"
    if dtype not in DTYPES:
        raise ModelError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    environment = os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE
    return Runtime(str(device), dtype, offline or environment, cpu, exact, compiling)


def cuda_devices() -> int:
    """CUDA devices that torch can use here; where no driver is installed torch, which takes seconds, is not asked."""
    if _no_driver():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _has_mps() -> bool:
    if sys.platform != "darwin":
        return False
    import torch

    return torch.backends.mps.is_available()


@cache
def _no_driver() -> bool:
    """Tell whether there is surely no GPU for torch: neither NVIDIA's driver nor AMD's. Elsewhere torch must say."""
    if sys.platform != "linux" or Path("/dev/kfd").exists():
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False


def on_gpu(runtime: Runtime) -> bool:
    """Whether batches pay: on a CPU the working set of two large images leaves the cache and each gets slower."""
    return not runtime.device.startswith("cpu")


@contextmanager
def inference(runtime: Runtime) -> Iterator[None]:
    """Run a forward pass without gradients; weights stay float32 and a smaller dtype is used by autocast.

    Autocast keeps what must be exact in float32 (softmax, norms, sums), which whole-model bfloat16 does not:
    box coordinates would have 8 bits.
    """
    import torch

    mixed = runtime.dtype != "float32"
    dtype: torch.dtype = getattr(torch, runtime.dtype)
    with torch.inference_mode(), torch.autocast(runtime.device.partition(":")[0], dtype, enabled=mixed):
        yield


@contextmanager
def forward_pass(runtime: Runtime) -> Iterator[None]:
    """Run a network: without gradients, and in turn with the other models of the process where they share the cores.

    Two networks at once on one CPU are slower than one after the other, since each has threads for every core. What
    comes before and after a pass belongs outside, so that it overlaps with the pass of another stage. A CUDA device
    queues the passes itself.
    """
    turn = nullcontext() if runtime.device.startswith("cuda") else _TURN
    asked = time.perf_counter()
    with turn, inference(runtime):
        started = time.perf_counter()
        _CLOCK.depth += 1
        try:
            yield
        finally:
            _CLOCK.depth -= 1
            if not _CLOCK.depth:
                _CLOCK.waiting += started - asked
                _CLOCK.forward += time.perf_counter() - started


class _Clock(threading.local):
    """Seconds of one thread; a pass within a pass counts once."""

    def __init__(self) -> None:
        self.depth = 0
        self.forward = 0.0
        self.waiting = 0.0


_CLOCK = _Clock()


def clock() -> tuple[float, float]:
    """Seconds that this thread has spent in forward passes, and in waiting for its turn with one.

    A CUDA device works on after a pass was launched, so there the first is less than the device's own time.
    """
    return _CLOCK.forward, _CLOCK.waiting


def to_device(tensor: torch.Tensor, runtime: Runtime) -> torch.Tensor:
    """Move a CPU tensor to the device; to a CUDA device through pinned memory, so that nothing waits for the copy."""
    if not runtime.device.startswith("cuda"):
        return tensor.to(runtime.device)
    return tensor.pin_memory().to(runtime.device, non_blocking=True)


@cache
def helpers() -> ThreadPoolExecutor:
    """Threads for what surrounds the forward passes: crops and masks; one pool for all models of the process."""
    return ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="autolabel-helper")


@cache
def keep_memory() -> bool:
    """Tell glibc to keep freed memory instead of returning it to the kernel; true when it was told.

    A forward pass on a CPU frees and asks for hundreds of MB again and again; by default glibc maps and unmaps each,
    and the page faults cost a third of the time (Grounding DINO-T, 800 x 1066 px: 4.4 s, then 2.85 s). The outputs
    are the same. Threads other than the first have memory of their own ("arenas") which cannot hold such blocks, so
    all are told to share one. Called before models are loaded for a CPU, never at import; does nothing where glibc is
    not used, or where the environment already sets ``MALLOC_*``. The price is that the process keeps its peak memory.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    if any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ):
        return False
    # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD and M_ARENA_MAX of malloc.h
    mmap_threshold, trim_threshold, top_pad, arena_max = -3, -1, -2, -8
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # mallopt takes a C int, so these are the largest powers of two and not the 4 GiB the environment would allow.
    settings = {mmap_threshold: 1 << 30, trim_threshold: (1 << 31) - 1, top_pad: 1 << 28, arena_max: 1}
    told = [mallopt(name, value) for name, value in settings.items()]
    return all(result == 1 for result in told)

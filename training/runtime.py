"""What the three trainings share: thread and allocator settings, checkpoints, JSONL logs, averages, folder swaps."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

ALLOCATOR: Final = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "1073741824",
}
"""glibc otherwise returns memory to the system after every step, which halves the speed of training on a CPU."""

STARTER: Final = Path(__file__).parent.parent / "autolabel" / "starter"


def restart_with_allocator(threads: int) -> None:
    """Start this command again with ``ALLOCATOR`` and ``threads`` in the environment, unless they are there already."""
    if all(os.environ.get(key) == value for key, value in ALLOCATOR.items()):
        torch.set_num_threads(threads)
        return
    environment = {**os.environ, **ALLOCATOR, "OMP_NUM_THREADS": str(threads)}
    module = sys.modules["__main__"].__spec__
    if module is None:
        torch.set_num_threads(threads)
        return
    os.execvpe(sys.executable, [sys.executable, "-m", module.name, *sys.argv[1:]], environment)


def be_polite() -> None:
    """Give this process a share of the processor of its own, somewhat smaller than what others get.

    Linux shares the processor between sessions, so that worker processes of one session would get a single share.
    """
    with contextlib.suppress(OSError):
        os.setsid()
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("3", encoding="ascii")


class Clock:
    """Training time in seconds that goes on where a checkpoint stopped; ``progress`` runs from 0 to 1."""

    def __init__(self, minutes: float) -> None:
        self.budget_s = minutes * 60
        self.before_s = 0.0
        self._since = time.monotonic()

    def elapsed_s(self) -> float:
        """Seconds trained so far, over all restarts."""
        return self.before_s + time.monotonic() - self._since

    def exclude(self, seconds: float) -> None:
        """Do not count ``seconds`` (an evaluation) as training."""
        self._since += seconds

    @property
    def progress(self) -> float:
        """Share of the budget that is used."""
        return min(1.0, self.elapsed_s() / self.budget_s)


def learning_rate(progress: float, step: int, peak: float, warmup_steps: int = 150) -> float:
    """Linear warm-up by steps, then cosine decay to zero by training time."""
    return peak * min(1.0, (step + 1) / warmup_steps) * 0.5 * (1 + math.cos(math.pi * progress))


class Average:
    """Exponential moving average of a model's weights, with a shorter memory at the start."""

    def __init__(self, model: nn.Module, decay: float = 0.998) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move a little towards the model's present weights."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - keep)
            else:
                self.weights[name].copy_(value)


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, average: Average, **progress: float
) -> None:
    """Save what a training goes on from; written beside and renamed, so that a kill leaves the older checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average.weights, **progress}
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read the last checkpoint; None where there is none."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Write a folder beside ``target`` and swap it in, so that readers never see half of it."""
    fresh, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    for path in (fresh, old):
        shutil.rmtree(path, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh)
    for path in fresh.iterdir():
        path.chmod(0o644)  # safetensors writes files that only their owner may read
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def log(path: Path, **values: Any) -> None:
    """Append one JSON line to a file and to the terminal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}
    line = json.dumps({"time": time.strftime("%H:%M:%S"), **rounded})
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    print(line, flush=True)


def half(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point weights as contiguous float16."""
    return {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in weights.items()}

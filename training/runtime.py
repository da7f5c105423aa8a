"""What the three trainings share: thread and allocator settings, checkpoints, JSONL logs, averages, folder swaps."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
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
WORK: Final = Path(os.environ.get("AUTOLABEL_TRAINING", Path(__file__).parent / ".work"))
"""Scenes, checkpoints, logs; weights are left in ``trained`` below it, and ``training.publish`` takes them."""


def add_options(parser: argparse.ArgumentParser, *, minutes: float, evaluate_every_s: float, pictures: int) -> None:
    """Add the options that the three trainings share."""
    parser.add_argument("--minutes", type=float, default=minutes, help="the rate falls with time")
    parser.add_argument("--steps", type=int, help="count steps instead of minutes: repeatable")
    parser.add_argument("--stop-after-s", type=float, help="end this call early; the next goes on")
    parser.add_argument("--evaluate-every-s", type=float, default=evaluate_every_s)
    parser.add_argument("--pictures", type=int, default=pictures, help="validation pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="torch device; default: a GPU where there is one")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of checkpoints, logs and weights")
    parser.add_argument("--tiny", action="store_true", help="smallest batches, for tests")
    parser.add_argument(
        "--from", dest="start", type=Path, help="folder of weights to begin with, such as the bundled ones"
    )
    parser.add_argument("--rate", type=float, help="highest learning rate; lower by default after --from")


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

    Linux shares the processor between sessions, so that worker processes of one session would get a single share. Who
    started the training with ``nice`` wants just that: nothing is done then.
    """
    if os.nice(0) > 0:
        return
    with contextlib.suppress(OSError):
        os.setsid()
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("3", encoding="ascii")


def pick_device(name: str | None = None) -> torch.device:
    """Device by name, else a GPU where there is one."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def mixed(device: torch.device) -> torch.autocast:
    """Mixed precision on a GPU; a processor stays with float32, whose backward kernels are the faster ones there.

    Measured with AVX-512 and its bfloat16 instructions: the detector's step takes 1.3 times as long in bfloat16, the
    segmenter's 1.8 times.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu")


def repeatable(seed: int) -> None:
    """Make two trainings of as many steps alike as the device can: seeds, and no search for the fastest kernels."""
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


class Schedule:
    """How far a training is, by minutes or by steps; it goes on where a checkpoint stopped.

    By minutes it ends with a small learning rate on any machine; by steps it is repeatable. ``stop_after_s`` ends a
    call early, to be continued by the next.
    """

    def __init__(
        self, minutes: float | None = None, steps: int | None = None, stop_after_s: float | None = None
    ) -> None:
        if (minutes is None) == (steps is None):
            raise ValueError(f"give minutes or steps, got minutes={minutes} and steps={steps}")
        self.minutes, self.steps = minutes, steps
        self.before_s = 0.0
        self._since = self._called = time.monotonic()
        self._stop_after_s = stop_after_s

    def elapsed_s(self) -> float:
        """Seconds trained so far, over all restarts."""
        return self.before_s + time.monotonic() - self._since

    def exclude(self, seconds: float) -> None:
        """Do not count ``seconds`` (an evaluation) as training."""
        self._since += seconds

    def progress(self, step: int) -> float:
        """Share of the training that is done, 0 to 1."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        return min(1.0, self.elapsed_s() / (60 * (self.minutes or 1.0)))

    def must_stop(self) -> bool:
        """Tell whether this call's time is used up."""
        return self._stop_after_s is not None and time.monotonic() - self._called >= self._stop_after_s


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

    def load(self, weights: dict[str, Tensor]) -> None:
        """Go on from saved weights, on the device of the present ones."""
        self.weights = {name: value.to(self.weights[name].device) for name, value in weights.items()}

    def on_cpu(self) -> dict[str, Tensor]:
        """Return the weights, in the processor's memory."""
        return {name: value.cpu() for name, value in self.weights.items()}


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


def begin_with(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy saved weights into a fresh model, in its own precision.

    A table of words may have grown since: its first rows are copied, and new words keep their random values. Raises
    ValueError when the weights belong to another architecture.
    """
    fresh = model.state_dict()
    if missing := sorted(set(fresh) - set(weights)):
        raise ValueError(f"weights lack {missing[0]} (and {len(missing) - 1} more): give a folder of this architecture")
    for name, value in fresh.items():
        old = weights[name]
        if old.shape[1:] != value.shape[1:] or len(old.reshape(-1)) > value.numel():
            raise ValueError(
                f"{name} has shape {tuple(old.shape)}, wanted {tuple(value.shape)}: give a folder of this architecture"
            )
        with torch.no_grad():
            if value.ndim == 0:
                value.copy_(old)
            else:
                value[: len(old)].copy_(old)


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

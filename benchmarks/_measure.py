"""What all speed benchmarks share: the machine in words, medians of rounds taken in turn, and kept results."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("autolabel-vision", "torch", "transformers", "sam2", "open-clip-torch", "numpy", "pyarrow", "openvino")


def machine() -> dict[str, Any]:
    """Name the machine, what else it is busy with, and the versions that decide speed."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "memory_gb": _memory_gb(),
        "gpu": _gpu(),
        "load_at_start": None if load is None else round(load, 1),
        "versions": versions,
    }


def rounds(sides: Mapping[str, Callable[[], float]], count: int) -> dict[str, list[float]]:
    """Let sides take turns ``count`` times, each time another first; the seconds that each side says it took."""
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(count):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            seconds[name].append(sides[name]())
    return seconds


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Make a side for `rounds` of a function."""

    def side() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return side


def ratio(slow: list[float], quick: list[float]) -> dict[str, float]:
    """Compare two sides round by round: the median ratio and its extremes, as load changes between rounds."""
    each = [a / b for a, b in zip(slow, quick, strict=True)]
    return {"median": statistics.median(each), "lowest": min(each), "highest": max(each)}


def median(values: list[float]) -> float:
    """Middle of several measurements."""
    return statistics.median(values)


def peak_mb() -> float:
    """Most memory that this process has held, MB (10⁶ bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def keep(name: str, result: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    """Print a result as JSON and keep it as ``results/NAME.json``."""
    values = {"benchmark": name, "machine": described, **result}
    text = json.dumps(_rounded(values), indent=1, ensure_ascii=False) + "\n"
    sys.stdout.write(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")


def kept(name: str) -> dict[str, Any] | None:
    """Read a kept result."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _gpu() -> str | None:
    if "torch" not in sys.modules:
        return None
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None

"""Checks of an installation, as data: what is fine, what is not, and what to do about it."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from autolabel.errors import ModelError
from autolabel.models import catalogue
from autolabel.models.accelerate_openvino import number_formats
from autolabel.models.hub import endpoint, hub_reachable
from autolabel.models.registry import DISTRIBUTION, backends
from autolabel.models.runtime import DTYPES, keep_memory, on_gpu, pick_runtime
from autolabel.models.sets import SETS

Status = Literal["ok", "warn", "fail"]
_PACKAGES = ("torch", "torchvision", "transformers", "sam2", "open-clip-torch", "huggingface-hub", "numpy", "pillow")
_CLASHING = ("autolabel", "refuel-autolabel")
_CV2 = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
_FREE_GB = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: what was looked at, how it stands, in words, and the remedy when it is not fine."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def run_checks(
    device: str | None = None, dtype: str | None = None, folder: Path | None = None, *, hub: bool = False
) -> list[Check]:
    """Check Python, packages, device, models, the disk of ``folder``, and with ``hub`` also the network."""
    steps: list[Callable[[], Iterator[Check]]] = [
        _python,
        _packages,
        _conflicts,
        lambda: _device(device, dtype),
        _backends,
        _models,
        lambda: _disk(folder or Path.cwd()),
    ]
    if hub:
        steps.append(_hub)
    return [check for step in steps for check in step()]


def _python() -> Iterator[Check]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Check("python", "ok", found)


def _packages() -> Iterator[Check]:
    for name in _PACKAGES:
        try:
            yield Check(name, "ok", version(name))
        except PackageNotFoundError:
            yield Check(name, "fail", "not installed", f"pip install {DISTRIBUTION}")
    if find_spec("groundingdino") is not None:
        yield Check("groundingdino-py", "ok", f"{_version('groundingdino-py')} (official .pth checkpoints load)")
    else:
        remedy = f'only for official .pth checkpoints: pip install "{DISTRIBUTION}[groundingdino]"'
        yield Check("groundingdino-py", "ok", "not installed, not needed for grounding-dino", remedy)
    if find_spec("openvino") is not None:
        yield Check("openvino", "ok", f"{_version('openvino')} (long runs on a CPU are quicker{_short_format()})")
    else:
        remedy = f'for quicker long runs on a CPU: pip install "{DISTRIBUTION}[openvino]"'
        yield Check("openvino", "ok", "not installed, not needed", remedy)
    torch, torchvision = _version("torch"), _version("torchvision")
    if ("+cpu" in torch) != ("+cpu" in torchvision):
        remedy = "install torch and torchvision together, from the same index"
        yield Check("torch builds", "fail", f"torch {torch} beside torchvision {torchvision}", remedy)


def _short_format() -> str:
    try:
        tried = "BF16" in number_formats()
    except Exception as error:  # a broken installation: a run stays eager
        return f"; it does not load: {error}"[:200]
    return "; bfloat16 is tried, and taken where labels stay the same" if tried else ""


def _conflicts() -> Iterator[Check]:
    installed = {str(d.metadata["Name"]).lower().replace("_", "-") for d in distributions() if d.metadata["Name"]}
    clashing = [name for name in _CLASHING if name in installed]
    if clashing:
        remedy = f"pip uninstall {' '.join(clashing)} && pip install --force-reinstall --no-deps {DISTRIBUTION}"
        yield Check("import name", "fail", f"{', '.join(clashing)} also installs a package called autolabel", remedy)
    cv2 = [name for name in _CV2 if name in installed]
    if len(cv2) > 1:
        remedy = f"pip uninstall {' '.join(cv2)} && pip install opencv-python-headless"
        yield Check("cv2", "warn", f"{' and '.join(cv2)} write the same folder", remedy)


def _device(device: str | None, dtype: str | None) -> Iterator[Check]:
    try:
        runtime = pick_runtime(device, dtype)
    except ModelError as error:
        yield Check("device", "fail", str(error), f"choose another device, or a dtype of {', '.join(DTYPES)}")
        return
    import torch

    if on_gpu(runtime):
        name = torch.cuda.get_device_name(runtime.device) if runtime.device.startswith("cuda") else "Apple GPU"
        yield Check("device", "ok", f"{runtime.device} ({name}), {runtime.dtype}")
        return
    kept = ", memory kept between images" if keep_memory() else ""
    yield Check("device", "ok", f"{runtime.device}, {runtime.dtype}, {torch.get_num_threads()} threads{kept}")
    if torch.version.cuda is None and shutil.which("nvidia-smi"):
        yield Check(
            "cuda", "warn", "there is an NVIDIA driver, but torch is a CPU build", "install a CUDA build of torch"
        )


def _backends() -> Iterator[Check]:
    found = backends()
    if not any(backend.builtin for backend in found):
        yield Check(
            "backends", "fail", "no entry points are installed", f"pip install --force-reinstall {DISTRIBUTION}"
        )
    for backend in found:
        if not backend.builtin:
            detail = f"{backend.name} from {backend.distribution} {backend.version}"
            yield Check(f"{backend.task} plug-in", "ok", detail)


def _models() -> Iterator[Check]:
    rows = catalogue.catalogue()
    for name in SETS:
        own = [row for row in rows if row.models == name]
        missing = [row for row in own if not row.here]
        if not missing:
            yield Check(f"models {name}", "ok", "on this disk")
        elif name == "starter":
            parts = ", ".join(row.task for row in missing)
            yield Check("models starter", "fail", f"missing: {parts}", f"pip install --force-reinstall {DISTRIBUTION}")
        else:
            size = sum(row.megabytes for row in missing)
            yield Check(f"models {name}", "ok", f"not downloaded ({size} MB)", f"autolabel models pull {name}")


def _disk(folder: Path) -> Iterator[Check]:
    try:
        free = shutil.disk_usage(folder).free / 1e9
    except OSError as error:
        yield Check("disk", "fail", f"{folder}: {error}", "choose a folder that exists")
        return
    status: Status = "ok" if free >= _FREE_GB else "warn"
    yield Check(
        "disk", status, f"{free:.0f} GB free at {folder}", "" if status == "ok" else "make room for runs and models"
    )


def _hub() -> Iterator[Check]:
    if hub_reachable():
        yield Check("hub", "ok", f"{endpoint()} answers")
    else:
        remedy = "set HTTPS_PROXY or HF_ENDPOINT, or bring the models on a disk: autolabel models pull base --to models"
        yield Check("hub", "warn", f"{endpoint()} does not answer", remedy)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"

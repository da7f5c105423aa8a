"""Conversion to OpenVINO in a process of its own, the folder that keeps what it made, and running it.

``python -m autolabel.models.accelerate_openvino JOB`` is that process; JOB is what `Conversion.start` writes.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from autolabel.protocols import Runtime, Task

if TYPE_CHECKING:
    from autolabel.models.accelerate_graphs import Arrays, Graph

Infer = Callable[[Sequence[Any]], "Arrays"]
CACHE_VARIABLE = "AUTOLABEL_CACHE"
_LAYOUT = 2  # of the graphs and their inputs: a change here makes what is stored out of date
_KEPT_BYTES = 8_000_000_000
_ABANDONED_S = 24 * 3600.0
_NICE = 5
_PACKAGES = ("torch", "openvino", "transformers", "sam2", "open-clip-torch")
_RUNNING: list[Conversion] = []
_MAKING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Job:
    """Which network of which model is converted."""

    task: Task
    spec: str
    weights_sha256: str


class Store:
    """Converted graphs on disk, by weights, shapes and versions; the ones unused for longest go first."""

    def __init__(self, folder: Path | None = None) -> None:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autolabel"
        self.folder = folder or Path(os.environ.get(CACHE_VARIABLE) or base) / "openvino"

    def target(self, job: Job, graph: Graph, inputs: Arrays) -> Path:
        """Where the graph for these inputs lies, or would."""
        facts = [
            _LAYOUT,
            job.task,
            job.weights_sha256,
            [str(part) for part in graph.key(inputs)],
            [version(name) for name in _PACKAGES],
            hashlib.sha256(repr(graph.network()).encode()).hexdigest(),
        ]
        return self.folder / f"{job.task}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]}.xml"


def quiet_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would report every conversion unless a user opts out of it."""
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))
    import openvino

    return openvino


@functools.cache
def _made_core() -> Any:
    return quiet_openvino().Core()


def _core() -> Any:
    """Return the one OpenVINO core of this process; stages that load graphs at the same time wait for it.

    Its CPU plugin gives the thread a stack for signals, and takes it away when the core goes. Of two cores the one that
    goes last leaves the stack of the other behind, which is gone: the next signal, such as Ctrl-C, would be a crash.
    """
    with _MAKING:
        return _made_core()


def number_formats() -> frozenset[str]:
    """Return the number formats that this CPU works in, as OpenVINO names them, such as ``BF16``."""
    return frozenset(_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def compiled(target: Path, number_format: str = "f32") -> Infer:
    """Load a converted graph for this CPU, to be run in a number format, with as many threads as PyTorch has."""
    import torch

    target.touch()  # so that what is used is not the first to go
    settings = {
        "INFERENCE_PRECISION_HINT": number_format,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Pinned, every process begins with the same cores: three of one thread each take 2.5 times as long.
        "ENABLE_CPU_PINNING": False,
    }
    request = _core().compile_model(target, "CPU", settings).create_infer_request()

    def infer(inputs: Sequence[Any]) -> Arrays:
        # Copies: the request's own memory is written again by the next call.
        answers = request.infer(list(inputs), share_inputs=True).values()
        return [np.array(answer) for answer in answers]

    return infer


def brief(error: Exception) -> str:
    """Say an error in one line; those of compilers run to pages."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def room_for(target: Path) -> bool:
    """Tell whether memory is left for a graph: its weights again, rearranged, and its own features."""
    return _free_bytes() > 3 * target.with_suffix(".bin").stat().st_size + 1_500_000_000


def failed_before(target: Path) -> str | None:
    """Why an earlier conversion failed under the same versions, or None."""
    try:
        return target.with_suffix(".failed").read_text("utf-8")
    except OSError:
        return None


class Conversion:
    """A conversion that is under way in another process."""

    def __init__(self, process: subprocess.Popen[bytes], said: Any, target: Path) -> None:
        self._process = process
        self._said = said
        self._target = target

    @classmethod
    def start(cls, job: Job, graph: Graph, inputs: Arrays, target: Path, *, hurry: bool) -> Conversion | None:
        """Start one; None when another one runs, or memory is too short for a second copy of the model.

        Without ``hurry`` it leaves the cores to the run.
        """
        _RUNNING[:] = [each for each in _RUNNING if not each.done()]
        weights = sum(parameter.nbytes for parameter in graph.network().parameters())
        if _RUNNING or _free_bytes() < 4 * weights + 1_500_000_000:
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        shapes = [[str(part.dtype), list(part.shape)] for part in inputs]
        nice = 0 if hurry else _NICE
        text = json.dumps({**asdict(job), "inputs": shapes, "target": str(target.resolve()), "nice": nice})
        said = tempfile.TemporaryFile()  # noqa: SIM115 - read when the process has ended
        command = [sys.executable, "-m", __name__, text]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment)
        conversion = cls(process, said, target)
        _RUNNING.append(conversion)
        return conversion

    def done(self) -> bool:
        """Tell whether the process has ended."""
        return self._process.poll() is not None

    def wait(self) -> None:
        """Wait for the process to end."""
        self._process.wait()

    def stop(self) -> None:
        """End the process; what it wrote so far is not used."""
        if not self.done():
            self._process.terminate()

    def problem(self) -> str | None:
        """Why it failed, or None while it runs and when it made the graph."""
        if not self.done() or (self._process.returncode == 0 and self._target.exists()):
            return None
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else f"the process ended with {self._process.returncode}"


@atexit.register
def _stop_all() -> None:
    for each in _RUNNING:
        each.stop()


def _free_bytes() -> float:
    """Memory that a process could take without swapping; infinite where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return float("inf")


def convert(graph: Graph, inputs: Sequence[tuple[str, Sequence[int]]], target: Path) -> None:
    """Convert a network for inputs of these types and shapes, and write it; half-written files are never seen."""
    import torch

    openvino = quiet_openvino()
    # An axis of free length is shown as 2: export takes a length of 1 for a constant.
    examples = tuple(_example(dtype, (2, *shape[1:]) if graph.moving() else shape) for dtype, shape in inputs)
    with torch.no_grad():
        # Exported and not traced: that needs no real forward pass, and takes a third of the time.
        free = tuple({0: torch.export.Dim("count", min=1)} if graph.moving() else None for _ in examples)
        program = torch.export.export(graph.network().eval(), examples, dynamic_shapes=free, strict=False)
        model = openvino.convert_model(program)
    # Of a name of its own, so that what a killed conversion left does not stay for ever.
    folder = target.with_suffix(".part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / target.name
    openvino.save_model(model, path, compress_to_fp16=False)
    # The graph is looked for, so its weights must be there before it.
    path.with_suffix(".bin").replace(target.with_suffix(".bin"))
    path.replace(target)
    folder.rmdir()
    _forget(target)


def _example(dtype: str, shape: Sequence[int]) -> Any:
    """Make a tensor that any network takes: in a caption's mask each token stands for itself."""
    import torch

    if dtype == "bool":
        return torch.eye(shape[-1], dtype=torch.bool).expand(*shape).contiguous()
    return torch.ones(*shape, dtype=torch.int64) if dtype.startswith("int") else torch.randn(*shape)


def _forget(newest: Path) -> None:
    """Delete the graphs unused for longest until the folder is small enough."""
    for left in newest.parent.glob("*.part"):
        if left.stat().st_mtime < time.time() - _ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)
    total = 0
    for path in sorted(newest.parent.glob("*.xml"), key=lambda each: each.stat().st_mtime, reverse=True):
        files = [each for each in (path, path.with_suffix(".bin")) if each.exists()]
        total += sum(each.stat().st_size for each in files)
        if total > _KEPT_BYTES and path != newest:
            for each in files:
                each.unlink(missing_ok=True)


def _convert_asked(asked: dict[str, Any], target: Path) -> None:
    from autolabel.models import registry
    from autolabel.models.accelerate_graphs import graph_of

    task = cast(Task, asked["task"])
    model: Any = registry.load(task, asked["spec"], Runtime("cpu", "float32", offline=True, cpu="eager"))
    if model.info.weights_sha256 != asked["weights_sha256"]:
        raise OSError(f"the weights of {asked['spec']} have changed")
    graph = graph_of(task, model)
    if graph is None:
        raise ValueError(f"{asked['spec']} has no graph to convert")
    convert(graph, asked["inputs"], target)


def main(text: str) -> int:
    """Convert what ``text`` asks for; waits for another process that makes the same."""
    from filelock import FileLock

    asked = json.loads(text)
    target = Path(asked["target"])
    with FileLock(target.with_suffix(".lock")):
        if target.exists():
            return 0
        try:
            _convert_asked(asked, target)
        except Exception as error:
            reason = brief(error)
            print(reason, file=sys.stderr)
            if not isinstance(error, (MemoryError, OSError)):  # those may not happen again
                target.with_suffix(".failed").write_text(reason, "utf-8")
            return 1
    return 0


def _stand_back(nice: int) -> None:
    """Give way to the run: in the use of cores, and where memory runs out it is this process that goes."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(nice)
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


if __name__ == "__main__":
    _stand_back(json.loads(sys.argv[1])["nice"])
    sys.exit(main(sys.argv[1]))

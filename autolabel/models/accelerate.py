"""Forward passes on a CPU through OpenVINO, where that is quicker and gives the same answers; eager until then.

A conversion takes half a minute and is done in a process of its own while the run goes on. It starts once so many
forward passes of one shape have been made that it would have paid, and its result is kept on disk for later runs. The
graph is then compared with the eager network on the image that is at hand; one that differs or gains too little is
left. Nothing that goes wrong here fails a run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolabel.errors import ModelError
from autolabel.models.accelerate_openvino import Conversion, Infer, Job, Store, brief, compiled, failed_before, room_for
from autolabel.models.runtime import on_gpu
from autolabel.protocols import ModelRef, Runtime, Task

if TYPE_CHECKING:
    from autolabel.models.accelerate_graphs import Arrays, Graph

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """When a quicker graph is worth its price, in seconds of eager passes of one shape, and what it must gain.

    To wait until as much was spent as a conversion costs is at worst twice as long as the best choice would have
    taken, however many images there are, and that is not known here.
    """

    load_after: float = 10.0
    convert_after: float = 60.0
    least_gain: float = 1.15
    most_shapes: int = 4
    """Graphs of one network in memory: each has weights of its own. Images of rarer sizes stay eager."""
    wait: bool = False
    """Whether the first image waits for the conversion."""


AT_ONCE = Policy(load_after=0.0, convert_after=0.0, least_gain=0.0, wait=True)


def apply(task: Task, model: Any, ref: ModelRef, runtime: Runtime) -> None:
    """Let a loaded model's network go over to a quicker graph, in place; does nothing where there is none.

    Raises ModelError when OpenVINO is asked for and is not installed.
    """
    if runtime.cpu == "eager" or on_gpu(runtime) or runtime.dtype != "float32":
        return
    if find_spec("openvino") is None:
        if runtime.cpu == "openvino":
            raise ModelError('cpu = "openvino" needs OpenVINO: pip install "autolabel-vision[openvino]"')
        return
    from autolabel.models.accelerate_graphs import graph_of

    graph = graph_of(task, model)
    info = getattr(model, "info", None)
    if graph is not None and info is not None and info.weights_sha256:
        policy = AT_ONCE if runtime.cpu == "openvino" else Policy()
        graph.install(Quick(graph, Job(task, str(ref), info.weights_sha256), policy))


@dataclass(slots=True)
class _Shape:
    """One shape of input: seconds that its eager passes took, the shortest, and its graph once there is one."""

    spent: float = 0.0
    shortest: float = float("inf")
    infer: Infer | None = None
    left: bool = False
    """Set when this shape stays eager."""
    conversion: Conversion | None = None
    target: Path | None = None


class Quick:
    """Stands in for a network; called by one thread at a time, as forward passes on a CPU take turns."""

    def __init__(self, graph: Graph, job: Job, policy: Policy, store: Store | None = None) -> None:
        self.graph = graph
        self._job = job
        self._policy = policy
        self._store = store or Store()
        self._shapes: dict[tuple[object, ...], _Shape] = {}
        self._off = False
        self._noted = False

    @property
    def converted(self) -> int:
        """How many shapes have a graph by now."""
        return sum(shape.infer is not None for shape in self._shapes.values())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the quickest there is for these arguments."""
        inputs = None if self._off else self.graph.inputs(*args, **kwargs)
        if inputs is None:
            return self.graph.eager(*args, **kwargs)
        shape = self._shapes.setdefault(self.graph.key(inputs), _Shape())
        if shape.infer is not None:
            try:
                return self.graph.outputs(shape.infer(inputs))
            except Exception as error:  # memory, a driver: the eager network may still do it
                self._leave(shape, brief(error))
        started = time.perf_counter()
        answer = self.graph.eager(*args, **kwargs)
        seconds = time.perf_counter() - started
        shape.spent += seconds
        shape.shortest = min(shape.shortest, seconds)
        if not shape.left and shape.spent >= self._policy.load_after and self.converted < self._policy.most_shapes:
            try:
                self._advance(shape, inputs, answer)
            except Exception as error:
                self._leave(shape, brief(error))
        return answer

    def _advance(self, shape: _Shape, inputs: Arrays, answer: Any) -> None:
        """Take the graph that is there, or have it made when it would have paid by now."""
        target = shape.target = shape.target or self._store.target(self._job, self.graph, inputs)
        if shape.conversion is not None:
            if self._policy.wait:
                shape.conversion.wait()
            problem = shape.conversion.problem()
            if problem is not None:
                self._off = True  # what cannot be converted in one shape cannot in another
                self._leave(shape, f"it was not converted: {problem}")
                return
            if not shape.conversion.done():
                return
            shape.conversion = None
        elif not target.exists():
            if (reason := failed_before(target)) is not None:
                self._off = True
                self._leave(shape, f"it was not converted: {reason}")
            elif shape.spent >= self._policy.convert_after:
                shape.conversion = Conversion.start(self._job, self.graph, inputs, target, hurry=self._policy.wait)
                if self._policy.wait and shape.conversion is not None:
                    self._advance(shape, inputs, answer)
            return
        if not self._policy.wait and not room_for(target):
            return
        self._take(shape, compiled(target), inputs, answer)

    def _take(self, shape: _Shape, infer: Infer, inputs: Arrays, answer: Any) -> None:
        """Use a graph from now on, if it answers as the eager network did and is quicker."""
        problem = self.graph.differs(answer, self.graph.outputs(infer(inputs)), inputs)
        if problem is not None:
            self._leave(shape, f"its answers differ: {problem}")
            return
        gain = shape.shortest / max(min(_seconds(infer, inputs) for _ in range(2)), 1e-9)  # a clock may be coarse
        if gain < self._policy.least_gain:
            shape.left = True
            _log.info("%s: OpenVINO would gain a factor of %.2f; staying eager", self.graph.name, gain)
            return
        shape.infer = infer
        _log.info("%s: OpenVINO from here on, %.2f times as fast", self.graph.name, gain)

    def _leave(self, shape: _Shape, reason: str) -> None:
        shape.left, shape.infer = True, None
        level, self._noted = logging.INFO if self._noted else logging.WARNING, True
        _log.log(level, "%s stays with eager PyTorch (%s)", self.graph.name, reason)


def _seconds(infer: Infer, inputs: Sequence[Any]) -> float:
    started = time.perf_counter()
    infer(inputs)
    return time.perf_counter() - started

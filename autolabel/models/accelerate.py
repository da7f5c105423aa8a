"""Forward passes on a CPU through OpenVINO, where that is quicker and gives the same answers; eager until then.

A conversion takes half a minute and is done in a process of its own while the run goes on. It starts once so many
forward passes of one shape have been made that it would have paid, and its result is kept on disk for later runs. The
graph is then compared with the eager network on the image that is at hand; one that differs or gains too little is
left. Nothing that goes wrong here fails a run.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolabel.errors import ModelError
from autolabel.models.accelerate_openvino import (
    Conversion,
    Infer,
    Job,
    Store,
    brief,
    compiled,
    failed_before,
    number_formats,
    room_for,
)
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


FORMATS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""What OpenVINO calls number formats."""


def apply(task: Task, model: Any, ref: ModelRef, runtime: Runtime) -> None:
    """Let a loaded model's network go over to a quicker graph, in place; does nothing where there is none.

    Raises ModelError when OpenVINO is asked for and is not installed.
    """
    if on_gpu(runtime):
        if runtime.device.startswith("cuda"):
            _compile(task, model, runtime)
        return
    if runtime.cpu == "eager" or (runtime.cpu == "auto" and runtime.dtype != "float32"):
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
        job = Job(task, str(ref), info.weights_sha256)
        graph.install(Quick(graph, job, policy, formats=formats_for(runtime), note=_noting(model)))


def _compile(task: Task, model: Any, runtime: Runtime) -> None:
    """Let a network on a CUDA device go over to torch's compiler; ``auto`` leaves a torch without Triton alone."""
    if runtime.compile == "off" or (runtime.compile == "auto" and find_spec("triton") is None):
        return
    from autolabel.models.accelerate_compile import Compiled, CompilePolicy
    from autolabel.models.accelerate_graphs import graph_of

    graph = graph_of(task, model)
    if graph is not None:
        policy = CompilePolicy(after=0.0, least_gain=0.0) if runtime.compile == "on" else CompilePolicy()
        graph.install(Compiled(graph, policy, shorter=runtime.dtype != "float32", note=_noting(model)))


def _noting(model: Any) -> Callable[[str], None]:
    """Return what notes in a model's facts how its network runs."""

    def note(forward: str) -> None:
        model.info = replace(model.info, forward=forward)

    return note


def formats_for(runtime: Runtime) -> tuple[str, ...]:
    """Return the number formats that a graph is tried in, the most exact first.

    What is asked for is what is used. Where nothing was, bfloat16 is tried beside float32 if the processor works in it.
    """
    exact = FORMATS[runtime.dtype]
    if runtime.cpu == "openvino" or runtime.exact or "BF16" not in number_formats():
        return (exact,)
    return (exact, "bf16")


@dataclass(slots=True)
class _Shape:
    """One shape of input: seconds of its eager passes, its graph, and how many times as fast that was as they."""

    spent: float = 0.0
    gain: float = 1.0
    infer: Infer | None = None
    left: bool = False
    """Set when this shape stays eager."""
    conversion: Conversion | None = None
    target: Path | None = None


@dataclass(frozen=True, slots=True)
class _Pass:
    """An eager pass: its inputs, what it answered, how long it took, and what makes it again."""

    inputs: Arrays
    answer: Any
    seconds: float
    again: Callable[[], object]


class Quick:
    """Stands in for a network; called by one thread at a time, as forward passes on a CPU take turns."""

    def __init__(
        self,
        graph: Graph,
        job: Job,
        policy: Policy,
        store: Store | None = None,
        *,
        formats: Sequence[str] = ("f32",),
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.graph = graph
        self._job = job
        self._policy = policy
        self._store = store or Store()
        self._formats = formats
        self._record = note
        self._shapes: dict[tuple[object, ...], _Shape] = {}
        self._off = False
        self._noted = False
        self.passes: Counter[str] = Counter()
        """How many passes were ``eager``, and how many ``quick``."""

    @property
    def converted(self) -> int:
        """How many shapes have a graph by now."""
        return sum(shape.infer is not None for shape in self._shapes.values())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the quickest there is for these arguments."""
        inputs = None if self._off else self.graph.inputs(*args, **kwargs)
        if inputs is None:
            self.passes["eager"] += 1
            return self.graph.eager(*args, **kwargs)
        shape = self._shapes.setdefault(self.graph.key(inputs), _Shape())
        if shape.infer is not None:
            try:
                answer = self.graph.outputs(shape.infer(inputs))
            except Exception as error:  # memory, a driver: the eager network may still do it
                self._leave(shape, brief(error))
            else:
                self.passes["quick"] += 1
                return answer
        self.passes["eager"] += 1
        started = time.perf_counter()
        answer = self.graph.eager(*args, **kwargs)
        seconds = time.perf_counter() - started
        shape.spent += seconds
        if not shape.left and shape.spent >= self._policy.load_after and self.converted < self._policy.most_shapes:
            try:
                self._advance(shape, _Pass(inputs, answer, seconds, lambda: self.graph.eager(*args, **kwargs)))
            except Exception as error:
                self._leave(shape, brief(error))
        return answer

    def _advance(self, shape: _Shape, eager: _Pass) -> None:
        """Take the graph that is there, or have it made when it would have paid by now."""
        inputs = eager.inputs
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
                    self._advance(shape, eager)
            return
        if self._policy.wait or room_for(target):
            self._choose(shape, target, eager)

    def _choose(self, shape: _Shape, target: Path, eager: _Pass) -> None:
        """Take the quickest of the number formats, unless already the first, the most exact, answers otherwise."""
        for number, name in enumerate(self._formats):
            if number and not room_for(target):
                break
            try:
                self._take(shape, compiled(target, name), name, eager)
            except Exception as error:
                if shape.infer is None:
                    raise
                _log.info("%s: not through OpenVINO in %s (%s)", self.graph.name, name, brief(error))
            if shape.left:
                return
        shape.left = shape.infer is None

    def _take(self, shape: _Shape, infer: Infer, number_format: str, eager: _Pass) -> None:
        """Use a graph from now on, if it answers as the eager network did and is quicker than what there is."""
        got = self.graph.outputs(infer(eager.inputs))
        if number_format == "f32":
            problem = self.graph.differs(eager.answer, got, eager.inputs)
        else:
            problem = self.graph.labels_differ(eager.answer, got)
        if problem is not None and number_format == self._formats[0]:
            self._leave(shape, f"its answers differ: {problem}")
            return
        gain = self._gain(infer, eager) if problem is None else 0.0
        if gain < self._policy.least_gain * shape.gain:
            reason = problem or f"it would be {gain:.2f} times as fast as eager"
            _log.info("%s: not through OpenVINO in %s (%s)", self.graph.name, number_format, reason)
            return
        shape.infer, shape.gain = infer, gain
        said = f"OpenVINO in {number_format}, {gain:.2f} times as fast as eager"
        self._record(said)
        _log.info("%s: %s, from here on", self.graph.name, said)

    def _gain(self, infer: Infer, eager: _Pass) -> float:
        """Tell how many times as fast a graph is, timed in turns: other programs slow earlier passes and this one."""
        slow, quick = [], []
        for _ in range(2):
            slow.append(eager.seconds if self._policy.least_gain <= 0 else _seconds(eager.again))
            quick.append(_seconds(lambda: infer(eager.inputs)))
        return min(slow) / max(min(quick), 1e-9)  # a clock may be coarse

    def _leave(self, shape: _Shape, reason: str) -> None:
        shape.left, shape.infer = True, None
        if not self.converted:
            self._record("eager")
        level, self._noted = logging.INFO if self._noted else logging.WARNING, True
        _log.log(level, "%s stays with eager PyTorch (%s)", self.graph.name, reason)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started

"""Forward passes on a CUDA device through torch's compiler, where that pays and the labels stay; eager until then.

Compiling takes a minute or so and holds up the run, so it waits until as much was spent in passes of one shape. What
was compiled then answers for the batch that is at hand beside the eager network; where it answers otherwise, gains too
little or fails, the network stays eager with one note. The compiler keeps its own cache on disk for later runs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from autolabel.models.accelerate_openvino import brief
from autolabel.models.batching import out_of_memory

if TYPE_CHECKING:
    from autolabel.models.accelerate_graphs import Graph

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CompilePolicy:
    """When compiling is worth its price, in seconds of eager passes of one shape, and what it must gain."""

    after: float = 120.0
    least_gain: float = 1.15
    most_shapes: int = 2
    """Each shape is compiled by itself; batches of rarer shapes stay eager."""


class Compiled:
    """Stands in for a network on a GPU; while one thread compiles, others go on eagerly."""

    def __init__(
        self,
        graph: Graph,
        policy: CompilePolicy,
        *,
        shorter: bool,
        note: Callable[[str], None] = lambda _: None,
        backend: str = "inductor",
    ) -> None:
        self.graph = graph
        self._policy = policy
        self._shorter = shorter
        """Whether numbers are shorter than float32, so that rounding alone moves what a strict bound compares."""
        self._record = note
        self._backend = backend
        self._shapes: dict[tuple[object, ...], _Shape] = {}
        self._chosen = threading.local()
        self._trial = threading.Lock()
        self._ready = False
        self._noted = False
        self.passes: Counter[str] = Counter()
        """How many passes were ``eager``, and how many ``quick``."""

    @property
    def converted(self) -> int:
        """How many shapes are compiled by now."""
        return sum(shape.compiled for shape in self._shapes.values())

    def __call__(self, *args: Any) -> Any:
        """Run the quickest there is for these arguments; raises what the eager network raises, and lack of memory."""
        shape = self._shapes.setdefault(self._key(args), _Shape())
        if shape.compiled:
            try:
                answer = self._compiled(args)
            except Exception as error:
                if out_of_memory(error):
                    raise  # whoever forms the batches takes smaller ones
                self._leave(shape, brief(error))
            else:
                self.passes["quick"] += 1
                return answer
        self.passes["eager"] += 1
        shape.passes += 1
        if shape.passes != 2:  # the first loads kernels
            answer = self.graph.eager(*args)
        else:
            answer, shape.eager = _timed(lambda: self.graph.eager(*args), args)
        pays = not shape.left and shape.eager * shape.passes >= self._policy.after and shape.passes >= 2
        if pays and self.converted < self._policy.most_shapes and self._trial.acquire(blocking=False):
            try:
                self._try(shape, args, answer)
            except Exception as error:
                self._leave(shape, brief(error))
            finally:
                self._trial.release()
        return answer

    def _key(self, args: tuple[Any, ...]) -> tuple[object, ...]:
        """Tell which calls share what is compiled: those of equal shapes and captions of as many tokens."""
        free = self.graph.moving()
        shapes = [tuple(each.shape[free:]) for each in args if isinstance(each, torch.Tensor)]
        return (*shapes, *(len(each.token_ids) for each in args if hasattr(each, "token_ids")))

    def _compiled(self, args: tuple[Any, ...]) -> Any:
        if self.graph.moving():
            torch._dynamo.maybe_mark_dynamic(args[0], 0)
        with self._choosing():
            return self.graph.eager(*args)

    @contextmanager
    def _choosing(self) -> Iterator[None]:
        """Within this the parts of the network run compiled, for this thread."""
        self._chosen.on = True
        try:
            yield
        finally:
            self._chosen.on = False

    def _prepare(self) -> None:
        for part in self.graph.parts():
            part.forward = _Either(part.forward, self._backend, self._chosen)
        self._ready = True

    def _try(self, shape: _Shape, args: tuple[Any, ...], answer: Any) -> None:
        """Compile for this shape, and take it if it answers as the eager network did and is quicker."""
        if self.graph.moving() and len(args[0]) < 2:
            return  # an axis of length 1 is taken for a constant
        if not self._ready:
            self._prepare()
        got = self._compiled(args)
        problem = self._problem(args, answer, got)
        del got
        if problem is not None:
            self._leave(shape, f"compiled, its answers differ: {problem}")
            return
        eager = min(_timed(lambda: self.graph.eager(*args), args)[1] for _ in range(2))
        quick = min(_timed(lambda: self._compiled(args), args)[1] for _ in range(2))
        gain = eager / max(quick, 1e-9)
        if gain < self._policy.least_gain:
            shape.left = True
            _log.info("%s: not compiled (a factor of %.2f would be gained)", self.graph.name, gain)
            return
        shape.compiled = True
        said = f"compiled, {gain:.2f} times as fast as eager"
        self._record(said)
        _log.info("%s: %s, from here on", self.graph.name, said)

    def _problem(self, args: tuple[Any, ...], answer: Any, got: Any) -> str | None:
        if self._shorter:
            return self.graph.labels_differ(answer, got)
        inputs = [each.cpu().numpy() for each in args if isinstance(each, torch.Tensor)]
        return self.graph.differs(answer, got, inputs)

    def _leave(self, shape: _Shape, reason: str) -> None:
        shape.left, shape.compiled = True, False
        if not self.converted:
            self._record("eager")
        level, self._noted = logging.INFO if self._noted else logging.WARNING, True
        _log.log(level, "%s stays with eager PyTorch (%s)", self.graph.name, reason)


@dataclass(slots=True)
class _Shape:
    """One shape of input: how many eager passes, the seconds of one, and whether it is compiled or left eager."""

    passes: int = 0
    eager: float = 0.0
    compiled: bool = False
    left: bool = False


class _Either:
    """A module's forward method, eager or compiled as its thread has chosen."""

    def __init__(self, eager: Callable[..., Any], backend: str, chosen: threading.local) -> None:
        self._eager = eager
        self._compiled = torch.compile(eager, backend=backend)
        self._chosen = chosen

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return (self._compiled if getattr(self._chosen, "on", False) else self._eager)(*args, **kwargs)


def _timed(work: Callable[[], Any], args: tuple[Any, ...]) -> tuple[Any, float]:
    """Return an answer and the seconds that the device took for it."""
    _wait_for(args[0].device)
    started = time.perf_counter()
    answer = work()
    _wait_for(args[0].device)
    return answer, time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # of several GPUs the current one may be another

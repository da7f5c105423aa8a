"""The engine of a cluster: Ray Data hands works to actors, one model set on each GPU, or on a share of the cores.

Ray Data (https://docs.ray.io/en/latest/data/data.html) keeps the order, holds back what would fill the memory, and
gives the works of a lost actor or machine to another.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from autolabel.engine.base import Done, Facts, Setup, Work
from autolabel.engine.local import LocalEngine
from autolabel.engine.worker import sendable
from autolabel.engine.workers import facts_together
from autolabel.errors import ConfigError, ServerError
from autolabel.loading import Models

TOGETHER: Final = 8
"""Works that an actor is given at once, so that it reads and writes some while its models run on others."""
_WINDOW_BYTES: Final = 256_000_000
"""Pickled works that one dataset holds; a longer run makes several, and loads the models once for each."""
_CORES: Final = 4


@dataclass(frozen=True, slots=True)
class Share:
    """How many actors there are, and the GPUs and cores of each."""

    actors: int
    gpus: int
    cores: int

    @classmethod
    def of(cls, nodes: Sequence[Mapping[str, float]], workers: int | None, device: str | None) -> Share:
        """Divide a cluster of nodes with so many ``CPU`` and ``GPU``: an actor on each GPU, or on each four cores.

        An actor lies on one node. ``workers`` asks for another number; there are fewer where that is too many.
        """
        if not (device or "").startswith("cpu") and (with_gpu := [node for node in nodes if node.get("GPU", 0) >= 1]):
            gpus = sum(int(node["GPU"]) for node in with_gpu)
            cores = min(int(node.get("CPU", 0) // node["GPU"]) for node in with_gpu)
            return cls(min(workers or gpus, gpus), 1, min(_CORES, cores))
        sizes = [max(1, int(node.get("CPU", 1))) for node in nodes] or [1]
        for cores in range(max(sizes) if workers else min(_CORES, max(sizes)), 0, -1):
            actors = sum(size // cores for size in sizes)
            if actors >= (workers or 1):
                return cls(workers or actors, 0, cores)
        return cls(sum(sizes), 0, 1)


class RayEngine:
    """Labels on the Ray cluster that ``RAY_ADDRESS`` names (``auto``: the one here), else on this machine alone."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._told: list[Facts] = []
        self._actors: set[str] = set()

    def label(self, works: Iterable[Work]) -> Generator[Done, None, None]:
        """Answer for each work, in order.

        Raises ConfigError where Ray is not installed, ServerError where it cannot be reached or gives up.
        """
        for window in _windows(works):
            with _cluster() as ray:
                yield from self._on(ray, window)

    def facts(self) -> Facts:
        """Tell about the models that the actors loaded; seconds are sums over all of them."""
        return replace(facts_together(self._told), processes=max(1, len(self._actors)))

    def _on(self, ray: Any, window: list[bytes]) -> Generator[Done, None, None]:
        recipe = self._setup.recipe
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        share = Share.of(nodes, recipe.workers, recipe.device)
        together = max(1, min(TOGETHER, len(window) // share.actors))
        works = ray.data.from_items(
            [{"work": work} for work in window], override_num_blocks=-(-len(window) // together)
        )
        answers = works.map_batches(
            _Actor,
            fn_constructor_args=(self._setup,),
            batch_size=together,
            compute=ray.data.ActorPoolStrategy(size=share.actors),
            num_cpus=share.cores,  # Ray sets OMP_NUM_THREADS to it
            num_gpus=share.gpus or None,
        )
        try:
            for row in answers.iter_rows():
                actor, content = pickle.loads(row["answer"])
                if isinstance(content, Exception):
                    raise content
                if isinstance(content, Facts):
                    self._told.append(content)
                    self._actors.add(actor)
                else:
                    yield content
        except ray.exceptions.RayError as error:
            raise ServerError(
                f"Ray gave up: {_first_line(error)}; run the same command again to go on, "
                "or leave out '--engine ray' to label on this machine alone"
            ) from error


class _Actor:
    """One model set in a process of the cluster."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._models: Models | None = None
        self._name = uuid.uuid4().hex

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        """Answer for pickled works, one at a time; an error is an answer too, as Ray would try it again for ever."""
        try:
            self._models = self._models or self._setup.load()
            engine = LocalEngine(self._models, self._setup.plan)
            for done in engine.label(pickle.loads(work) for work in batch["work"]):
                yield self._answer(done)
            yield self._answer(engine.facts())
        except Exception as error:
            yield self._answer(sendable(error))

    def _answer(self, content: Done | Facts | Exception) -> dict[str, list[bytes]]:
        return {"answer": [pickle.dumps((self._name, content), protocol=pickle.HIGHEST_PROTOCOL)]}


def _windows(works: Iterable[Work]) -> Iterator[list[bytes]]:
    """Pickle works, and cut them into lists that memory holds."""
    window, size = list[bytes](), 0
    for work in works:
        window.append(pickle.dumps(work, protocol=pickle.HIGHEST_PROTOCOL))
        size += len(window[-1])
        if size >= _WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


@contextmanager
def _cluster() -> Iterator[Any]:
    """Join the cluster there is, or start one on this machine and end it again."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError('engine = "ray" needs Ray: install it with: pip install "autolabel-vision[ray]"') from error
    mine = not ray.is_initialized()
    if mine:
        try:
            # Without an address Ray would look for a cluster that ran here once, and fail where it is gone.
            address = os.environ.get("RAY_ADDRESS", "local")
            ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ServerError(
                f"Ray at RAY_ADDRESS={os.environ.get('RAY_ADDRESS', '(this machine)')} cannot be used: "
                f"{_first_line(error)}"
            ) from error
    context = ray.data.DataContext.get_current()
    before = (context.execution_options.preserve_order, context.enable_progress_bars)
    context.execution_options.preserve_order, context.enable_progress_bars = True, False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        context.execution_options.preserve_order, context.enable_progress_bars = before
        if mine:
            ray.shutdown()


def _first_line(error: BaseException) -> str:
    return next(itertools.chain(filter(None, str(error).splitlines()), [type(error).__name__]))

"""The engine of one machine with several GPUs, or many CPU cores: one process and one model set each."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final

from autolabel.engine.base import Done, Facts, Setup, Work
from autolabel.engine.worker import Answer, Order
from autolabel.errors import ModelError

IN_FLIGHT: Final = 3
"""Works that a worker holds: one it answers, one it works on, one it reads ahead."""
_AHEAD: Final = 4
"""Works, for each worker, that may be answered while an earlier one is not: they wait in memory for it."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one worker runs: its device, and variables of its environment."""

    device: str | None = None
    environment: Mapping[str, str] | None = None


def gpu_seats(count: int) -> tuple[Seat, ...]:
    """One seat on each of ``count`` CUDA devices."""
    return tuple(Seat(f"cuda:{index}") for index in range(count))


def cpu_seats(count: int, device: str | None = None) -> tuple[Seat, ...]:
    """Seats that share the processor's cores."""
    threads = max(1, (os.cpu_count() or 1) // count)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # read when the libraries are loaded, so before the process starts
    return (Seat(device, dict.fromkeys(names, str(threads))),) * count


class WorkersEngine:
    """Hands works to processes as each has room, and answers in the works' order."""

    def __init__(self, setup: Setup, seats: Sequence[Seat]) -> None:
        self._setup = setup
        self._seats = seats
        self._facts: list[Facts] = []

    def label(self, works: Iterable[Work]) -> Generator[Done, None, None]:
        """Answer for each work, in order.

        Raises ModelError when a worker ends before its works are done; what was answered until then is not lost.
        """
        answers = SimpleQueue[tuple[_Worker, Answer | None]]()
        numbered = enumerate(works)
        first = list(itertools.islice(numbered, len(self._seats)))  # a short run starts no process that stays idle
        coming = itertools.chain(first, numbered)
        workers = list[_Worker]()
        try:
            for seat, _ in zip(self._seats, first, strict=False):
                workers.append(_Worker(Order(self._setup, seat.device), seat, answers))
            yield from self._in_order(coming, workers, answers)
        finally:
            for worker in workers:
                worker.stop()

    def facts(self) -> Facts:
        """Tell about the models that the workers loaded; seconds are sums over all of them."""
        return facts_together(self._facts)

    def _in_order(
        self,
        coming: Iterator[tuple[int, Work]],
        workers: Sequence[_Worker],
        answers: SimpleQueue[tuple[_Worker, Answer | None]],
    ) -> Generator[Done, None, None]:
        ready: dict[int, Done] = {}
        due, sent = 0, 0  # numbers of the next answer and of the next work
        more = True
        busy = set(workers)
        while busy:
            while more and (worker := _with_room(workers)) and sent - due < len(workers) * (IN_FLIGHT + _AHEAD):
                item = next(coming, None)
                if item is None:
                    more = False
                    for each in workers:
                        each.send(None)
                    break
                worker.send(item)
                sent += 1
            worker, answer = answers.get()
            if answer is None:
                if worker in busy:
                    raise worker.death()
                continue
            if isinstance(answer.content, Exception):
                raise answer.content
            if isinstance(answer.content, Facts):
                self._facts.append(answer.content)
                busy.discard(worker)
                continue
            worker.answered(answer.number)
            ready[answer.number] = answer.content
            while due in ready:
                yield ready.pop(due)
                due += 1


class _Worker:
    """One process and what it was given to do."""

    def __init__(self, order: Order, seat: Seat, answers: SimpleQueue[tuple[_Worker, Answer | None]]) -> None:
        self._held: dict[int, tuple[str, ...]] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from autolabel.engine.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(seat.environment or {})},
        )
        Thread(target=self._listen, args=(answers,), daemon=True).start()
        self._write(order)

    @property
    def room(self) -> int:
        """How many more works it may hold."""
        return IN_FLIGHT - len(self._held)

    def send(self, item: tuple[int, Work] | None) -> None:
        """Hand over a numbered work, or None: there will be no more."""
        if item is not None:
            self._held[item[0]] = tuple(row.path for row in item[1].rows)
        self._write(item)

    def answered(self, number: int) -> None:
        """Forget a work that was answered."""
        self._held.pop(number, None)

    def stop(self) -> None:
        """End the process, whatever it does, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        with suppress(OSError):  # what could not be sent to a process that is gone
            if self._process.stdin is not None:
                self._process.stdin.close()

    def death(self) -> ModelError:
        """Say how the process ended, and during what."""
        code = self._process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit status {code}"
        remedy = " (the system does so when memory runs out: use fewer workers)" if code == -9 else ""
        paths = next(iter(self._held.values()), ())
        during = f" while it worked on '{paths[0]}' or the {len(paths) - 1} images after it" if paths else ""
        return ModelError(f"a labeling process {how}{during}{remedy}; run the same command again to go on")

    def _write(self, content: object) -> None:
        pipe: Any = self._process.stdin
        try:
            pickle.dump(content, pipe, protocol=pickle.HIGHEST_PROTOCOL)
            pipe.flush()
        except OSError:
            pass  # it is gone: whoever listens to it says so

    def _listen(self, answers: SimpleQueue[tuple[_Worker, Answer | None]]) -> None:
        pipe: Any = self._process.stdout
        try:
            with pipe:
                while True:
                    answers.put((self, pickle.load(pipe)))
        except (EOFError, OSError, pickle.UnpicklingError):
            answers.put((self, None))
        except Exception as error:  # its class is not to be found here: whoever waits must hear of it all the same
            answers.put((self, Answer(-1, ModelError(f"a labeling process answered what cannot be read: {error}"))))


def facts_together(parts: Sequence[Facts]) -> Facts:
    """Put what several processes told into one: they load side by side, and their forward passes add up."""
    models = {task: info for facts in parts for task, info in facts.models.items()}
    forward = Counter[str]()
    for facts in parts:
        forward.update(facts.forward_seconds)  # a Counter adds floats as well
    load_seconds = max((facts.load_seconds for facts in parts), default=0.0)
    return Facts(models, load_seconds, forward, max(1, sum(facts.processes for facts in parts)))


def _with_room(workers: Sequence[_Worker]) -> _Worker | None:
    """Find the worker with the most room, None when all are full."""
    best = max(workers, key=lambda worker: worker.room, default=None)
    return best if best is not None and best.room > 0 else None

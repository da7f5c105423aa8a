from __future__ import annotations

import threading

import pytest
import torch

from autolabel.models.ahead import Ahead
from autolabel.models.batching import Batches, out_of_memory
from autolabel.protocols import Runtime

CPU = Runtime()
GB = 1 << 30


class Device:
    """Runs a pass of at most ``room`` units, and notes how many items each pass was tried with."""

    def __init__(self, room: int, units: int = 1, error: type[Exception] = torch.OutOfMemoryError) -> None:
        self.room, self.units, self.error = room, units, error
        self.tried: list[int] = []

    def __call__(self, items):
        self.tried.append(len(items))
        if len(items) * self.units > self.room:
            raise self.error("CUDA out of memory. Tried to allocate 20.00 MiB")
        return [-item for item in items]


def answers(batches: Batches, device: Device, count: int) -> list[int]:
    found = []
    for part, answer in batches.run(list(range(count)), device, device.units):
        assert list(range(count))[part] == [-each for each in answer]
        found += answer
    return found


def test_nothing_needs_no_pass():
    device = Device(1)
    assert answers(Batches(CPU, 4, cpu=1, most=8), device, 0) == []
    assert device.tried == []


def test_a_fixed_size_is_kept():
    device = Device(100)
    assert answers(Batches(CPU, 3, cpu=1, most=8), device, 8) == [-n for n in range(8)]
    assert device.tried == [3, 3, 2]


def test_a_cpu_takes_what_is_quickest_there():
    device = Device(100)
    answers(Batches(CPU, cpu=2, most=8), device, 5)
    assert device.tried == [2, 2, 1]
    large = Device(100, units=10)
    answers(Batches(CPU, cpu=4, cpu_units=20, most=8), large, 5)
    assert large.tried == [2, 2, 1]
    huge = Device(100, units=30)
    answers(Batches(CPU, cpu=4, cpu_units=20, most=8), huge, 2)
    assert huge.tried == [1, 1]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_without_memory_the_batch_is_halved_and_the_size_remembered(error):
    batches = Batches(CPU, 16, cpu=1, most=16)
    device = Device(5, error=error)
    assert answers(batches, device, 20) == [-n for n in range(20)]
    assert device.tried == [16, 8, *[4] * 5]
    device.tried.clear()
    answers(batches, device, 8)
    assert device.tried == [4, 4]


def test_larger_items_go_fewer_at_a_time():
    batches = Batches(CPU, 8, cpu=1, most=8)
    answers(batches, Device(40, units=10), 8)
    large = Device(40, units=20)
    answers(batches, large, 4)
    assert large.tried == [2, 2]
    small = Device(40, units=5)
    answers(batches, small, 16)
    assert small.tried == [8, 8]


def test_one_item_that_does_not_fit_is_tried_again_and_then_an_error():
    device = Device(0)
    with pytest.raises(torch.OutOfMemoryError):
        answers(Batches(CPU, 4, cpu=1, most=4), device, 4)
    assert device.tried == [4, 2, 1, 1]


def test_memory_that_another_took_for_a_moment_is_no_error():
    class Once(Device):
        def __call__(self, items):
            self.room = len(self.tried)  # nothing at the first try
            return super().__call__(items)

    device = Once(0)
    assert answers(Batches(CPU, 1, cpu=1, most=1), device, 2) == [0, -1]
    assert device.tried == [1, 1, 1]


def test_another_error_is_passed_on_at_once():
    device = Device(0, error=ValueError)
    with pytest.raises(ValueError, match="out of memory"):
        answers(Batches(CPU, 4, cpu=1, most=4), device, 4)
    assert device.tried == [4]


def test_the_failed_passs_tensors_are_gone_before_the_next_is_tried():
    alive = []

    class Big:
        pass

    def forward(items):
        import weakref

        assert not any(ref() for ref in alive)
        held = Big()
        alive.append(weakref.ref(held))
        if len(items) > 1:
            raise MemoryError
        return items

    assert [part for part, _ in Batches(CPU, 4, cpu=1, most=4).run([1, 2], forward)] == [slice(0, 1), slice(1, 2)]


def measured(monkeypatch: pytest.MonkeyPatch, free: int, each: int) -> tuple[Batches, Device]:
    """A pretended CUDA device with ``free`` bytes, of which a pass takes ``each`` for an item."""
    device = Device(free // each)
    batches = Batches(Runtime("cuda"), cpu=1, first=2, most=64)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: GB)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: GB)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: GB + device.tried[-1] * each)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 80 * GB))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return batches, device


def test_a_gpu_starts_small_and_grows_to_what_fits(monkeypatch):
    batches, device = measured(monkeypatch, 50 * GB, GB)
    answers(batches, device, 150)
    assert device.tried == [2, 8, 32, 40, 40, 28]
    answers(batches, device, 41)
    assert device.tried[6:] == [40, 1]


def test_a_gpu_with_room_for_more_stops_at_the_most_that_pays(monkeypatch):
    batches, device = measured(monkeypatch, 1000 * GB, GB)
    answers(batches, device, 200)
    assert device.tried == [2, 8, 32, 64, 64, 30]


def test_a_last_small_batch_does_not_shrink_the_next(monkeypatch):
    batches, device = measured(monkeypatch, 50 * GB, GB)
    answers(batches, device, 11)
    answers(batches, device, 32)
    assert device.tried == [2, 8, 1, 32]


def test_another_gpu_takes_a_few():
    device = Device(100)
    answers(Batches(Runtime("mps"), cpu=1, first=2, most=64), device, 20)
    assert device.tried == [8, 8, 4]


def test_what_counts_as_out_of_memory():
    assert out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ..."))
    assert out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not out_of_memory(RuntimeError("selected index k out of range"))
    assert not out_of_memory(ValueError("out of memory"))


def test_work_ahead_is_bounded_and_in_order():
    begun, gate = [], threading.Event()

    def make(item: int) -> int:
        begun.append(item)
        gate.wait(10)
        return item * 2

    ahead = Ahead(make, list(range(20)), 3)
    gate.set()
    assert ahead[0:2] == [0, 2]
    assert max(begun) <= 4
    assert ahead[0:4] == [0, 2, 4, 6]  # a smaller or larger try from the same start
    assert ahead[4:20] == [2 * n for n in range(4, 20)]
    assert sorted(begun) == list(range(20))
    assert len(ahead) == 20


def test_an_error_ahead_is_raised_where_its_item_is_asked_for():
    ahead = Ahead(lambda item: 1 // item, [2, 1, 0], 2)
    assert ahead[0:2] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        ahead[2]

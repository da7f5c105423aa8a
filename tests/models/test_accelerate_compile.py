"""Networks that go over to torch's compiler: when, and that nothing fails a run. The GPU is played by a CPU."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from autolabel.models import accelerate, accelerate_compile, registry
from autolabel.models.accelerate_compile import Compiled, CompilePolicy
from autolabel.models.accelerate_graphs import graph_of
from autolabel.protocols import Runtime
from tests.models.test_accelerate import PHRASES, PICTURES, Doubling

ON = CompilePolicy(after=0.0, least_gain=0.0)
EAGER = Runtime(cpu="eager")


class Layer(torch.nn.Module):
    """Doubles."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels * 2


class Network(Doubling):
    """A network of one layer; what compiling makes of it is given, as is what a pass costs on the clock."""

    def __init__(self, *, moving: bool = False) -> None:
        super().__init__()
        self.layer = Layer()
        self.free = moving

    def eager(self, pixels: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return self.layer(pixels)

    def parts(self) -> list[torch.nn.Module]:
        return [self.layer]

    def moving(self) -> bool:
        return self.free


@pytest.fixture
def compiler(monkeypatch):
    """Stand in for the compiler and the clock: what a compiled layer answers, and the seconds of each kind of pass."""
    made = SimpleNamespace(count=0, answer=lambda pixels: pixels * 2, seconds=1.0, eager_seconds=10.0, now=0.0)

    def compile_(eager, backend):
        made.count += 1

        def layer(pixels):
            made.now += made.seconds - made.eager_seconds
            return made.answer(pixels)

        return layer

    monkeypatch.setattr(accelerate_compile.torch, "compile", compile_)
    monkeypatch.setattr(accelerate_compile, "time", SimpleNamespace(perf_counter=lambda: made.now))
    return made


def _network(compiler, **options) -> Network:
    network = Network(**options)
    plain = network.eager

    def eager(pixels):
        compiler.now += compiler.eager_seconds
        return plain(pixels)

    network.eager = eager
    return network


def test_a_short_run_compiles_nothing(compiler):
    stand_in = Compiled(_network(compiler), CompilePolicy(after=100.0), shorter=True)
    for _ in range(9):
        stand_in(torch.ones(2))
    assert (compiler.count, stand_in.converted) == (0, 0)


def test_a_network_is_compiled_when_as_much_was_spent_and_says_so(compiler):
    said: list[str] = []
    stand_in = Compiled(_network(compiler), CompilePolicy(after=100.0), shorter=True, note=said.append)
    answers = [stand_in(torch.ones(2)).tolist() for _ in range(12)]
    assert answers == [[2.0, 2.0]] * 12
    assert stand_in.passes == {"eager": 10, "quick": 2}
    assert said == ["compiled, 10.00 times as fast as eager"]


@pytest.mark.parametrize("change", [{"seconds": 9.5}, {"answer": lambda pixels: pixels * 2.5}], ids=["gain", "answer"])
def test_what_gains_too_little_or_answers_otherwise_stays_eager(compiler, change):
    vars(compiler).update(change)
    stand_in = Compiled(_network(compiler), CompilePolicy(after=0.0), shorter=True)
    assert [stand_in(torch.ones(1)).item() for _ in range(4)] == [2.0] * 4
    assert stand_in.passes == {"eager": 4}
    assert compiler.count == 1


def test_short_numbers_are_held_to_labels_and_float32_to_its_own_bound(compiler):
    compiler.answer = lambda pixels: pixels * 2.01  # within what Doubling takes for the same label
    for shorter, converted in ((True, 1), (False, 0)):
        stand_in = Compiled(_network(compiler), ON, shorter=shorter)
        for _ in range(2):
            stand_in(torch.ones(1))
        assert stand_in.converted == converted


def test_a_compiler_that_fails_costs_one_note_and_no_image(compiler, caplog):
    def answer(pixels):
        raise RuntimeError("no triton here\nwith pages of more")

    compiler.answer = answer
    stand_in = Compiled(_network(compiler), ON, shorter=True)
    for count in (1, 2):
        for _ in range(3):
            assert stand_in(torch.ones(count)).tolist() == [2.0] * count
    warnings = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert warnings == ["doubling stays with eager PyTorch (RuntimeError: no triton here)"]


def test_a_compiled_network_that_breaks_down_hands_back_and_one_without_memory_says_so(compiler):
    network = _network(compiler)
    stand_in = Compiled(network, ON, shorter=True)
    for _ in range(3):
        stand_in(torch.ones(1))
    assert stand_in.passes["quick"] == 1

    def no_memory(pixels):
        raise torch.OutOfMemoryError("out of memory")

    compiler.answer = no_memory
    with pytest.raises(torch.OutOfMemoryError):  # Batches takes fewer images then
        stand_in(torch.ones(1))
    assert stand_in.converted == 1

    def broken(pixels):
        raise RuntimeError("a kernel is gone")

    compiler.answer = broken
    assert stand_in(torch.ones(1)).item() == 2.0
    assert stand_in.converted == 0


def test_only_so_many_shapes_are_compiled_and_a_free_axis_is_one_shape(compiler):
    fixed = Compiled(_network(compiler), CompilePolicy(0.0, 0.0, most_shapes=2), shorter=True)
    free = Compiled(_network(compiler, moving=True), ON, shorter=True)
    for _ in range(3):
        for length in (1, 2, 3, 4):
            fixed(torch.ones(length, 5))
            free(torch.ones(length, 5))
    assert (fixed.converted, free.converted) == (2, 1)


def test_while_one_thread_compiles_another_goes_on_eagerly(compiler):
    network = _network(compiler)
    stand_in = Compiled(network, ON, shorter=True)
    seen: list[float] = []

    def answer(pixels):
        if not seen:
            other = threading.Thread(target=lambda: seen.append(stand_in(torch.ones(1)).item()))
            other.start()
            other.join()
        return pixels * 2

    compiler.answer = answer
    for _ in range(2):
        stand_in(torch.ones(1))
    assert seen == [2.0]
    assert stand_in.passes == {"eager": 3}
    assert stand_in.converted == 1


def test_it_is_the_network_s_own_gpu_that_is_waited_for(monkeypatch):
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    second = torch.device("cuda:1")
    accelerate_compile._timed(lambda: None, (SimpleNamespace(device=second),))
    accelerate_compile._timed(lambda: None, (torch.ones(1),))
    assert waited == [second, second]


@pytest.mark.parametrize("task", ["detector", "segmenter", "classifier"])
def test_the_bundled_networks_compile_whole_and_answer_the_same(task):
    """Through the compiler's own front end; the code that it would make of it needs a GPU to matter."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = registry.load(task, registry.resolve(task), EAGER)
    images = [np.array(Image.open(path).convert("RGB")) for path in PICTURES]
    corners = np.random.default_rng(0).uniform(0, 400, (3, 2))
    boxes = [np.concatenate([corners, corners + 150], axis=1).astype(np.float32)] * 2
    calls = {
        "detector": lambda: [each.phrase_scores for each in model.predict_batch(images, PHRASES, 0.1)],
        "segmenter": lambda: [each.scores for each in model.predict_batch(images, boxes)],
        "classifier": lambda: [e.probs for e in model.predict_batch(images, boxes, None, [(p,) for p in PHRASES])],
    }
    expected = calls[task]()
    graph = graph_of(task, model)
    stand_in = Compiled(graph, ON, shorter=False, backend="aot_eager")
    graph.install(stand_in)
    for _ in range(2):
        calls[task]()
    answers = calls[task]()
    assert stand_in.passes["quick"] >= 1
    assert not torch._dynamo.utils.counters["graph_break"]
    for one, other in zip(expected, answers, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_what_a_runtime_asks_for_decides(monkeypatch):
    def installed(**changes: object) -> bool:
        model = registry.load("classifier", registry.resolve("classifier"), EAGER)
        runtime = Runtime("cuda:1", "float16", **changes)
        accelerate.apply("classifier", model, registry.resolve("classifier"), runtime)
        return isinstance(model.encoder, Compiled)

    monkeypatch.setattr(accelerate, "find_spec", lambda name: None)  # a torch without Triton
    assert not installed()
    assert installed(compile="on")
    monkeypatch.setattr(accelerate, "find_spec", lambda name: object())
    assert installed()
    assert not installed(compile="off")

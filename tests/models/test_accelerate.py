"""Forward passes that go over to a quicker graph: when, to which, and that nothing fails a run."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from autolabel.errors import ModelError
from autolabel.models import accelerate, registry
from autolabel.models.accelerate import AT_ONCE, Policy, Quick
from autolabel.models.accelerate_openvino import Job, Store
from autolabel.protocols import Runtime

SAMPLES = Path(__file__).parents[2] / "sample_data" / "images"
PICTURES = [SAMPLES / name for name in ("brushed_metal_01.jpg", "brushed_metal_02.jpg")]  # one shape for the detector
PHRASES = ["scratch", "dent", "crack", "rust", "hole", "stain"]
EAGER = Runtime(cpu="eager")
JOB = Job("classifier", "open-clip:starter", "0" * 64)


class Doubling:
    """A network that doubles, with its graph."""

    name = "doubling"

    def __init__(self) -> None:
        self.asked = 0

    def eager(self, pixels: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return pixels * 2

    def network(self) -> torch.nn.Module:
        return torch.nn.Identity()

    def moving(self) -> bool:
        return False

    def inputs(self, pixels: torch.Tensor) -> list[np.ndarray]:
        return [pixels.numpy()]

    def key(self, inputs: list[np.ndarray]) -> tuple[object, ...]:
        return inputs[0].shape

    def outputs(self, arrays: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(arrays[0])

    def differs(self, expected: torch.Tensor, got: torch.Tensor, inputs: list[np.ndarray]) -> str | None:
        return None if torch.equal(expected, got) else "they differ"

    def labels_differ(self, expected: torch.Tensor, got: torch.Tensor) -> str | None:
        return None if torch.allclose(expected, got, atol=0.05) else "labels differ"


class Finished:
    """A conversion that has ended, with or without a problem."""

    started = 0

    def __init__(self, trouble: str | None = None) -> None:
        self.trouble = trouble

    def wait(self) -> None: ...

    def done(self) -> bool:
        return True

    def problem(self) -> str | None:
        return self.trouble


@pytest.fixture
def conversions(monkeypatch):
    """Conversions write an empty file and end at once; the list holds those that were asked for."""
    asked: list[Path] = []

    def start(job, graph, inputs, target, *, hurry):
        asked.append(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
        return Finished()

    monkeypatch.setattr(accelerate.Conversion, "start", start)
    monkeypatch.setattr(accelerate, "compiled", lambda target, number_format: lambda inputs: [inputs[0] * 2])
    return asked


def _quick(graph: Doubling, tmp_path: Path, **changes: object) -> Quick:
    settings = {"load_after": 0.0, "convert_after": 0.0, "least_gain": 0.0, "wait": True, **changes}
    return Quick(graph, JOB, Policy(**settings), Store(tmp_path))


def test_a_graph_takes_over_after_the_first_call(conversions, tmp_path):
    graph = Doubling()
    quick = _quick(graph, tmp_path)
    assert [quick(torch.ones(2)).tolist() for _ in range(3)] == [[2.0, 2.0]] * 3
    assert (graph.asked, quick.converted, len(conversions)) == (1, 1, 1)


def test_a_short_run_converts_nothing(conversions, tmp_path):
    graph = Doubling()
    quick = Quick(graph, JOB, Policy(), Store(tmp_path))
    for _ in range(5):
        quick(torch.ones(2))
    assert (graph.asked, conversions) == (5, [])


def test_what_was_converted_before_is_taken_sooner(conversions, tmp_path):
    _quick(Doubling(), tmp_path)(torch.ones(2))
    quick = _quick(Doubling(), tmp_path, convert_after=1e9)
    quick(torch.ones(2))
    assert (quick.converted, len(conversions)) == (1, 1)


def test_a_graph_is_loaded_when_there_is_room_for_it(conversions, tmp_path, monkeypatch):
    room = iter([False, True])
    monkeypatch.setattr(accelerate, "room_for", lambda target: next(room))
    quick = _quick(Doubling(), tmp_path, wait=False)
    counts = []
    for _ in range(4):
        quick(torch.ones(2))
        counts.append(quick.converted)
    assert counts == [0, 0, 1, 1]


def test_a_conversion_under_way_is_not_waited_for(conversions, tmp_path, monkeypatch):
    pending = Finished()
    pending.done = lambda: False
    monkeypatch.setattr(accelerate.Conversion, "start", lambda *_, **__: pending)
    graph = Doubling()
    quick = _quick(graph, tmp_path, wait=False)
    for _ in range(3):
        quick(torch.ones(2))
    assert (graph.asked, quick.converted) == (3, 0)


def test_a_graph_that_answers_otherwise_is_left_with_one_note(conversions, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(accelerate, "compiled", lambda target, number_format: lambda inputs: [inputs[0] * 2.1])
    graph = Doubling()
    quick = _quick(graph, tmp_path)
    assert [quick(torch.ones(1)).item() for _ in range(3)] == [2.0] * 3
    assert (graph.asked, quick.converted) == (3, 0)
    assert [r.message for r in caplog.records] == [
        "doubling stays with eager PyTorch (its answers differ: they differ)"
    ]


def test_a_graph_that_gains_too_little_is_left(conversions, tmp_path):
    graph = Doubling()
    quick = _quick(graph, tmp_path, least_gain=1e9)
    for _ in range(3):
        quick(torch.ones(1))
    assert (quick.passes, quick.converted) == ({"eager": 3}, 0)
    assert graph.asked == 5  # two more beside the graph, once


def test_a_failed_conversion_is_said_once_and_not_tried_for_other_shapes(tmp_path, monkeypatch, caplog):
    started: list[Path] = []

    def start(job, graph, inputs, target, *, hurry):
        started.append(target)
        return Finished("no such operation")

    monkeypatch.setattr(accelerate.Conversion, "start", start)
    graph = Doubling()
    quick = _quick(graph, tmp_path)
    answers = [quick(torch.ones(n)).tolist() for n in (1, 1, 2, 3)]
    assert answers == [[2.0], [2.0], [2.0] * 2, [2.0] * 3]
    assert len(started) == 1
    assert [r.message for r in caplog.records] == [
        "doubling stays with eager PyTorch (it was not converted: no such operation)"
    ]


def test_a_graph_that_breaks_down_hands_back(conversions, tmp_path, monkeypatch, caplog):
    calls = iter([True, True, True, True, False])

    def infer(inputs):
        if not next(calls):
            raise RuntimeError("no memory")
        return [inputs[0] * 2]

    monkeypatch.setattr(accelerate, "compiled", lambda target, number_format: infer)
    graph = Doubling()
    quick = _quick(graph, tmp_path)
    assert [quick(torch.ones(1)).item() for _ in range(4)] == [2.0] * 4
    assert (graph.asked, quick.converted) == (3, 0)
    assert "no memory" in caplog.records[0].message


def test_an_error_on_the_way_is_no_error_of_the_run(tmp_path, monkeypatch, caplog):
    def start(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(accelerate.Conversion, "start", start)
    quick = _quick(Doubling(), tmp_path)
    assert quick(torch.ones(1)).item() == 2.0
    assert "disk full" in caplog.records[0].message


F32 = "OpenVINO in f32, 2.00 times as fast as eager"
BF16 = "OpenVINO in bf16, 5.00 times as fast as eager"


@pytest.fixture
def formats(monkeypatch):
    """Graphs by number format: how they answer, by a factor, and the seconds that a pass takes; eager takes 10."""
    now = itertools.count()
    clock = {"s": 0.0}
    graphs: dict[str, tuple[float, float]] = {}

    def compiled(target, number_format):
        factor, seconds = graphs[number_format]

        def infer(inputs):
            clock["s"] += seconds
            return [inputs[0] * factor]

        return infer

    monkeypatch.setattr(accelerate.Conversion, "start", lambda *_, **__: Finished())
    monkeypatch.setattr(accelerate, "compiled", compiled)
    monkeypatch.setattr(accelerate, "time", SimpleNamespace(perf_counter=lambda: clock["s"] + next(now) * 1e-9))
    monkeypatch.setattr(accelerate, "room_for", lambda target: True)
    return graphs, clock


@pytest.mark.parametrize(
    ("exact", "short", "factor", "told"),
    [
        ((2.0, 5.0), (2.01, 2.0), 2.01, BF16),  # quicker, the labels are the same
        ((2.0, 5.0), (2.1, 2.0), 2.0, F32),  # quicker, other labels
        ((2.0, 5.0), (2.01, 4.9), 2.0, F32),  # too little
        ((2.0, 9.9), (2.01, 2.0), 2.01, BF16),  # only the shorter one gains
        ((2.01, 5.0), (2.01, 2.0), 2.0, "eager"),  # the exact one is wrong: nothing of that graph is believed
    ],
)
def test_a_shorter_format_is_taken_where_it_is_quicker_still_and_labels_are_the_same(
    formats, tmp_path, exact, short, factor, told
):
    graphs, clock = formats
    graphs |= {"f32": exact, "bf16": short}

    class Slow(Doubling):
        def eager(self, pixels):
            clock["s"] += 10.0
            return super().eager(pixels)

    policy = Policy(load_after=0.0, convert_after=0.0, wait=True)
    said: list[str] = []
    quick = Quick(Slow(), JOB, policy, Store(tmp_path), formats=("f32", "bf16"), note=said.append)
    quick(torch.ones(1))
    assert quick(torch.ones(1)).item() == pytest.approx(factor)
    assert said[-1] == told


@pytest.mark.parametrize(("seconds", "taken"), [(15.0, True), (29.0, False)])
def test_a_graph_is_timed_beside_eager_passes_and_not_against_those_of_a_quieter_time(
    formats, tmp_path, seconds, taken
):
    graphs, clock = formats
    graphs["f32"] = (2.0, seconds)
    eager_seconds = iter([10.0, 10.0, 10.0, 30.0, 30.0, 30.0])  # from the third call on, others use the processor

    class Slowed(Doubling):
        def eager(self, pixels):
            clock["s"] += next(eager_seconds)
            return super().eager(pixels)

    quick = Quick(Slowed(), JOB, Policy(load_after=25.0, convert_after=25.0, wait=True), Store(tmp_path))
    for _ in range(4):
        quick(torch.ones(1))
    assert quick.passes == ({"eager": 3, "quick": 1} if taken else {"eager": 4})


def test_a_shorter_format_that_fails_leaves_the_exact_one(formats, tmp_path):
    graphs, _ = formats
    graphs["f32"] = (2.0, 0.0)
    quick = Quick(Doubling(), JOB, Policy(0.0, 0.0, 0.0, wait=True), Store(tmp_path), formats=("f32", "bf16"))
    assert [quick(torch.ones(1)).item() for _ in range(2)] == [2.0, 2.0]
    assert quick.passes == {"eager": 1, "quick": 1}


@pytest.mark.parametrize(
    ("runtime", "works_in", "tried"),
    [
        (Runtime(), {"FP32", "BF16"}, ("f32", "bf16")),
        (Runtime(), {"FP32"}, ("f32",)),
        (Runtime(exact=True), {"FP32", "BF16"}, ("f32",)),
        (Runtime(cpu="openvino"), {"FP32", "BF16"}, ("f32",)),
        (Runtime(cpu="openvino", dtype="bfloat16", exact=True), {"FP32"}, ("bf16",)),
    ],
)
def test_a_shorter_format_is_tried_where_none_was_asked_for_and_the_processor_has_it(
    monkeypatch, runtime, works_in, tried
):
    monkeypatch.setattr(accelerate, "number_formats", lambda: frozenset(works_in))
    assert accelerate.formats_for(runtime) == tried


def test_only_so_many_shapes_are_kept(conversions, tmp_path):
    quick = _quick(Doubling(), tmp_path, most_shapes=2)
    for _ in range(2):
        for length in (1, 2, 3):
            quick(torch.ones(length))
    assert (quick.converted, len(conversions)) == (2, 2)


def test_the_seconds_of_eager_passes_say_when_a_conversion_pays(conversions, tmp_path, monkeypatch):
    clock = itertools.count(step=10)  # looked at before and after a pass
    monkeypatch.setattr(accelerate, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    quick = _quick(Doubling(), tmp_path, load_after=15.0, convert_after=35.0, wait=False)
    counts = []
    for _ in range(6):
        quick(torch.ones(1))
        counts.append(len(conversions))
    assert counts == [0, 0, 0, 1, 1, 1]


def _loaded(task: str) -> object:
    return registry.load(task, registry.resolve(task), EAGER)


@pytest.mark.parametrize(
    "runtime",
    [EAGER, Runtime(dtype="bfloat16"), Runtime(device="cuda", compile="off")],
    ids=["eager", "bfloat16", "cuda"],
)
def test_nothing_is_replaced_where_it_was_not_asked_for(runtime):
    model = _loaded("classifier")
    before = model.encoder
    accelerate.apply("classifier", model, registry.resolve("classifier"), runtime)
    assert model.encoder is before


def test_without_openvino_auto_is_eager_and_asking_for_it_says_how(monkeypatch):
    monkeypatch.setattr(accelerate, "find_spec", lambda name: None)
    assert not isinstance(registry.load("classifier", registry.resolve("classifier"), Runtime()).encoder, Quick)
    with pytest.raises(ModelError, match=r"pip install \"autolabel-vision\[openvino\]\""):
        registry.load("classifier", registry.resolve("classifier"), Runtime(cpu="openvino"))


def test_a_noted_failure_is_not_tried_again(tmp_path, monkeypatch, caplog):
    graph = Doubling()
    quick = _quick(graph, tmp_path)
    target = Store(tmp_path).target(JOB, graph, [np.ones(1, np.float32)])
    target.with_suffix(".failed").write_text("ValueError: no", "utf-8")
    monkeypatch.setattr(accelerate.Conversion, "start", lambda *_, **__: pytest.fail("converted again"))
    quick(torch.ones(1))
    assert "ValueError: no" in caplog.records[0].message


def test_the_policies_differ_in_waiting_only_where_it_is_asked_for():
    assert AT_ONCE.wait
    assert not Policy().wait

"""Forward passes that go over to OpenVINO: when, that answers stay the same, and that nothing fails a run."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from autolabel import runner
from autolabel.config import Recipe
from autolabel.errors import ModelError
from autolabel.models import accelerate, accelerate_openvino, registry
from autolabel.models.accelerate import AT_ONCE, Policy, Quick
from autolabel.models.accelerate_graphs import DetectorGraph, graph_of
from autolabel.models.accelerate_openvino import Conversion, Job, Store
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
    monkeypatch.setattr(accelerate, "compiled", lambda target: lambda inputs: [inputs[0] * 2])
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
    monkeypatch.setattr(accelerate, "compiled", lambda target: lambda inputs: [inputs[0] * 2.1])
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
    assert (graph.asked, quick.converted) == (3, 0)


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

    monkeypatch.setattr(accelerate, "compiled", lambda target: infer)
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
    "runtime", [EAGER, Runtime(dtype="bfloat16"), Runtime(device="cuda")], ids=["eager", "bfloat16", "cuda"]
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


def test_a_backend_of_someone_else_has_no_graph():
    assert graph_of("detector", Doubling()) is None


def _dino_answer(boxes: list[list[float]], scores: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([scores])[..., None].logit(), torch.tensor([boxes])


@pytest.mark.parametrize(
    ("boxes", "scores", "said"),
    [
        ([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], [0.9, 0.3], None),
        ([[0.2, 0.2, 0.1, 0.1], [0.5, 0.5, 0.2, 0.2]], [0.3, 0.9], None),  # another order
        ([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], [0.9, 0.302], "0.002 of its score"),
        ([[0.505, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], [0.9, 0.3], "1 px"),
        ([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], [0.9, 0.01], "of its score"),
        ([[0.5, 0.5, 0.2, 0.2], [0.2, float("nan"), 0.1, 0.1]], [0.9, 0.3], "not numbers"),
    ],
)
def test_boxes_are_compared_wherever_they_stand(boxes, scores, said):
    class Detector:
        forward = None

    expected = _dino_answer([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]], [0.9, 0.3])
    inputs = [np.zeros((1, 3, 100, 200), np.float32)]
    problem = DetectorGraph(Detector()).differs(expected, _dino_answer(boxes, scores), inputs)
    assert problem is None if said is None else said in problem


def test_rubbish_below_every_threshold_may_differ():
    class Detector:
        forward = None

    one, other = (_dino_answer([[x, 0.5, 0.2, 0.2]], [0.02]) for x in (0.1, 0.9))
    assert DetectorGraph(Detector()).differs(one, other, [np.zeros((1, 3, 100, 200), np.float32)]) is None


def test_stored_graphs_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerate_openvino, "_KEPT_BYTES", 250)
    for age, name in enumerate(("new", "older", "oldest")):
        for suffix, size in ((".xml", 10), (".bin", 90)):
            path = tmp_path / f"{name}{suffix}"
            path.write_bytes(b"x" * size)
            os.utime(path, (1000 - age, 1000 - age))
    accelerate_openvino._forget(tmp_path / "new.xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.bin", "new.xml", "older.bin", "older.xml"]


def test_what_killed_conversions_left_goes(tmp_path):
    for name in ("dead", "living"):
        (tmp_path / f"{name}.part").mkdir()
        (tmp_path / f"{name}.part" / f"{name}.bin").write_bytes(b"x")
    os.utime(tmp_path / "dead.part", (1000, 1000))
    (tmp_path / "new.xml").touch()
    accelerate_openvino._forget(tmp_path / "new.xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["living.part", "new.xml"]


def test_the_process_notes_what_cannot_be_converted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(accelerate_openvino, "_convert_asked", lambda *_: 1 / 0)
    target = tmp_path / "classifier-1.xml"
    asked = {"task": "classifier", "spec": "open-clip:starter", "weights_sha256": "", "inputs": []}
    assert accelerate_openvino.main(json.dumps({**asked, "target": str(target)})) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert accelerate_openvino.failed_before(target) == "ZeroDivisionError: division by zero"


def test_a_noted_failure_is_not_tried_again(tmp_path, monkeypatch, caplog):
    graph = Doubling()
    quick = _quick(graph, tmp_path)
    target = Store(tmp_path).target(JOB, graph, [np.ones(1, np.float32)])
    target.with_suffix(".failed").write_text("ValueError: no", "utf-8")
    monkeypatch.setattr(accelerate.Conversion, "start", lambda *_, **__: pytest.fail("converted again"))
    quick(torch.ones(1))
    assert "ValueError: no" in caplog.records[0].message


# From here on with OpenVINO itself.


class InThisProcess(Finished):
    """Converts at once, without a process of its own."""

    @classmethod
    def start(cls, job, graph, inputs, target, *, hurry):
        cls.started += 1
        target.parent.mkdir(parents=True, exist_ok=True)
        accelerate_openvino.convert(graph, [(str(part.dtype), part.shape) for part in inputs], target)
        return cls()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture
def at_once(store, monkeypatch):
    """OpenVINO from the second image on."""
    monkeypatch.setenv(accelerate_openvino.CACHE_VARIABLE, str(store))
    monkeypatch.setattr(accelerate, "Conversion", InThisProcess)


def _pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


def _converted(task: str) -> tuple[object, Quick]:
    model = registry.load(task, registry.resolve(task), Runtime(cpu="openvino"))
    quick = {"detector": "forward", "segmenter": "encoder", "classifier": "encoder"}[task]
    return model, getattr(model, quick)


def test_parity_of_the_detector(at_once):
    images = [_pixels(path) for path in PICTURES]
    expected = _loaded("detector").predict_batch(images, PHRASES, 0.1)
    model, quick = _converted("detector")
    for _ in range(2):
        answers = model.predict_batch(images, PHRASES, 0.1)
    assert quick.converted == 1
    for one, other in zip(expected, answers, strict=True):
        assert len(one.boxes_xyxy) == len(other.boxes_xyxy) > 0
        np.testing.assert_allclose(other.boxes_xyxy, one.boxes_xyxy, atol=0.5)
        np.testing.assert_allclose(other.phrase_scores, one.phrase_scores, atol=1e-3)
        assert (one.phrase_scores.argmax(axis=1) == other.phrase_scores.argmax(axis=1)).all()


def test_parity_of_the_segmenter(at_once):
    image, boxes = _pixels(PICTURES[0]), np.array([[100, 100, 500, 400], [600, 200, 800, 700]], np.float32)
    expected = _loaded("segmenter").predict_batch([image], [boxes])[0]
    model, quick = _converted("segmenter")
    for _ in range(2):
        answer = model.predict_batch([image], [boxes])[0]
    assert quick.converted == 1
    np.testing.assert_allclose(answer.scores, expected.scores, atol=1e-3)
    for one, other in zip(expected.masks, answer.masks, strict=True):
        different = (one.decode() != other.decode()).sum()
        assert different <= 1e-3 * max(one.decode().sum(), 1)


def test_parity_of_the_classifier_for_any_number_of_crops(at_once):
    image = _pixels(PICTURES[0])
    rng = np.random.default_rng(0)
    classes = [[phrase] for phrase in PHRASES]
    eager = _loaded("classifier")
    model, quick = _converted("classifier")
    for count in (2, 2, 1, 5, 20):
        corner = rng.uniform(0, 400, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(20, 300, (count, 2))], axis=1).astype(np.float32)
        one = eager.predict_batch([image], [boxes], None, classes)[0]
        other = model.predict_batch([image], [boxes], None, classes)[0]
        np.testing.assert_allclose(other.probs, one.probs, atol=1e-3)
        np.testing.assert_allclose(other.embeddings, one.embeddings, atol=1e-3)
    assert quick.converted == 1


def test_a_run_gives_the_same_labels_under_the_same_keys(at_once, tmp_path):
    before = InThisProcess.started
    # Two at a time, the shape of the tests before; the first two of a run are answered by the eager network.
    again = [shutil.copy(path, tmp_path / f"again_{path.name}") for path in PICTURES]
    runs = [
        runner.run(
            [*map(str, PICTURES), *map(str, again)],
            recipe=Recipe(
                prompt=". ".join(PHRASES), cpu=cpu, batch_size=2, tiles={"mode": "off"}, thresholds={"min_score": 0.2}
            ),
            path=tmp_path / cpu,
        )
        for cpu in ("eager", "openvino")
    ]
    assert InThisProcess.started <= before + 3
    eager, quick = ([each for image in run for each in image.annotations] for run in runs)
    assert [a.label for a in eager] == [a.label for a in quick]
    assert len(eager) > 0
    for one, other in zip(eager, quick, strict=True):
        np.testing.assert_allclose(other.box.xyxy, one.box.xyxy, atol=0.5)
        assert other.score == pytest.approx(one.score, abs=1e-3)
    keys = [json.loads((tmp_path / cpu / "manifest.json").read_text("utf-8"))["keys"] for cpu in ("eager", "openvino")]
    assert keys[0] == keys[1]


@pytest.mark.slow
def test_a_process_of_its_own_converts(store, monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(accelerate_openvino.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(accelerate_openvino, "_free_bytes", lambda: float("inf"))
    image, boxes = _pixels(PICTURES[0]), np.array([[100, 100, 500, 400]], np.float32)
    model, quick = _converted("classifier")
    for _ in range(2):
        model.predict_batch([image], [boxes], None, [["dent"]])
    assert quick.converted == 1, caplog.text
    assert [path.suffix for path in sorted((tmp_path / "openvino").iterdir())] == [".bin", ".lock", ".xml"]


@pytest.mark.slow
def test_a_process_that_fails_says_why(store, monkeypatch, tmp_path):
    graph = graph_of("classifier", _loaded("classifier"))
    monkeypatch.setattr(accelerate_openvino, "_free_bytes", lambda: float("inf"))
    target = tmp_path / "graph.xml"
    conversion = Conversion.start(JOB, graph, [np.zeros((1, 3, 96, 96), np.float32)], target, hurry=True)
    conversion.wait()
    assert conversion.problem() == "OSError: the weights of open-clip:starter have changed"
    assert not target.exists()


def test_no_conversion_starts_where_memory_is_short(store, monkeypatch, tmp_path):
    monkeypatch.setattr(accelerate_openvino, "_free_bytes", lambda: 1e9)
    graph = graph_of("classifier", _loaded("classifier"))
    assert (
        Conversion.start(JOB, graph, [np.zeros((1, 3, 96, 96), np.float32)], tmp_path / "graph.xml", hurry=True) is None
    )


def test_the_policies_differ_in_waiting_only_where_it_is_asked_for():
    assert AT_ONCE.wait
    assert not Policy().wait

"""The networks through OpenVINO itself: conversion, what is kept of it, and that answers and labels stay the same."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autolabel import runner
from autolabel.config import Recipe
from autolabel.models import accelerate, accelerate_openvino, registry
from autolabel.models.accelerate import Quick
from autolabel.models.accelerate_graphs import graph_of
from autolabel.models.accelerate_openvino import Conversion, Job
from autolabel.protocols import Runtime

SAMPLES = Path(__file__).parents[2] / "sample_data" / "images"
PICTURES = [SAMPLES / name for name in ("brushed_metal_01.jpg", "brushed_metal_02.jpg")]  # one shape for the detector
PHRASES = ["scratch", "dent", "crack", "rust", "hole", "stain"]
EAGER = Runtime(cpu="eager")
JOB = Job("classifier", "open-clip:starter", "0" * 64)


def test_stored_graphs_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerate_openvino, "_KEPT_BYTES", 250)
    for age, name in enumerate(("new", "older", "oldest")):
        for suffix, size in ((".xml", 10), (".bin", 90)):
            path = tmp_path / f"{name}{suffix}"
            path.write_bytes(b"x" * size)
            os.utime(path, (1000 - age, 1000 - age))
    accelerate_openvino._forget(tmp_path / "new.xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.bin", "new.xml", "older.bin", "older.xml"]


USES_A_GRAPH = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
import numpy as np
import torch
from autolabel.models.accelerate_openvino import compiled, quiet_openvino
openvino = quiet_openvino()
from openvino import opset13
torch.set_num_threads(2)
cores = frozenset(os.sched_getaffinity(0))
given = opset13.parameter([512, 512], np.float32)
product = given
for _ in range(20):
    product = opset13.softmax(opset13.matmul(product, given, False, False), 1)
target = Path(sys.argv[1])
openvino.save_model(openvino.Model([product], [given]), target)
infer = compiled(target)
narrowed = set()
with ThreadPoolExecutor() as pool:
    work = pool.submit(lambda: [infer([np.ones((512, 512), np.float32)]) for _ in range(30)])
    while not work.done():
        for task in os.listdir("/proc/self/task"):
            with suppress(OSError):  # it has just ended
                narrowed |= {task} if os.sched_getaffinity(int(task)) != cores else set()
print(len(narrowed))
"""


@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs two cores of Linux")
def test_a_graph_leaves_its_threads_on_all_cores(tmp_path):
    """Pinned, the graphs of several processes would wait for the same core."""
    pytest.importorskip("openvino")
    command = [sys.executable, "-W", "ignore", "-c", USES_A_GRAPH, str(tmp_path / "graph.xml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0"]


USES_TWO_GRAPHS = """
import signal, sys
from pathlib import Path
import numpy as np
from autolabel.models.accelerate_openvino import compiled, quiet_openvino
openvino = quiet_openvino()
from openvino import opset13
given = opset13.parameter([1, 4], np.float32)
target = Path(sys.argv[1])
openvino.save_model(openvino.Model([opset13.relu(given)], [given]), target)
one, other = compiled(target), compiled(target)
del one
del other
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
signal.raise_signal(signal.SIGUSR1)
"""


def test_signals_are_heard_after_graphs_have_gone(tmp_path):
    command = [sys.executable, "-c", USES_TWO_GRAPHS, str(tmp_path / "graph.xml")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (answer.returncode, answer.stdout) == (0, "heard\n"), answer.stderr


SHARES_A_CORE = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from autolabel.models import accelerate_openvino
together = Barrier(4)
def core(_):
    together.wait()
    return accelerate_openvino._core()
with ThreadPoolExecutor(4) as pool:
    cores = list(pool.map(core, range(4)))
print(len(set(map(id, cores))))
"""


def test_stages_that_load_at_the_same_time_share_one_core():
    command = [sys.executable, "-c", SHARES_A_CORE]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (answer.returncode, answer.stdout) == (0, "1\n"), answer.stderr


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


def _loaded(task: str) -> object:
    return registry.load(task, registry.resolve(task), EAGER)


class InThisProcess:
    """Converts at once, without a process of its own."""

    started = 0

    def wait(self) -> None: ...

    def done(self) -> bool:
        return True

    def problem(self) -> None:
        return None

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


@pytest.mark.parametrize("number_format", ["bfloat16", "float16"])
def test_the_labels_of_a_shorter_number_format_are_the_same(at_once, number_format):
    """What one image shows: the graph in that format passes the check by which a run would take it, or is left."""
    if {"bfloat16": "BF16", "float16": "FP16"}[number_format] not in accelerate_openvino.number_formats():
        pytest.skip(f"this processor does not work in {number_format}")
    image, boxes = _pixels(PICTURES[0]), np.array([[100, 100, 500, 400], [600, 200, 800, 700]], np.float32)
    classes = [[phrase] for phrase in PHRASES]
    expected = _loaded("classifier").predict_batch([image], [boxes], None, classes)[0]
    model = registry.load(
        "classifier", registry.resolve("classifier"), Runtime(dtype=number_format, cpu="openvino", exact=True)
    )
    for _ in range(2):
        answer = model.predict_batch([image], [boxes], None, classes)[0]
    assert model.encoder.converted == 1
    assert (answer.probs.argmax(axis=1) == expected.probs.argmax(axis=1)).all()
    np.testing.assert_allclose(answer.probs, expected.probs, atol=0.02)

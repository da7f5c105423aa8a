"""The trainings: losses on padded batches, streams that do not depend on workers, schedules, resuming, publishing."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from training import publish, runtime
from training.detector_loss import Padded, Truth, match_many, match_one_to_one, stage_loss
from training.segmenter_data import window
from training.stream import Stream
from training.train_all import Deadline, Job, run


def truths() -> list[Truth]:
    return [
        Truth(torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.7, 0.6, 0.3, 0.1]]), torch.tensor([0, 2])),
        Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)),
        Truth(torch.tensor([[0.5, 0.5, 0.4, 0.4]]), torch.tensor([1])),
    ]


def spans() -> torch.Tensor:
    return torch.eye(3, 5)


@pytest.mark.parametrize("dense", [True, False])
def test_a_padded_batch_costs_what_its_pictures_cost(dense: bool) -> None:
    torch.manual_seed(0)
    logits, coordinates = torch.randn(3, 20, 5), torch.randn(3, 20, 4)
    together = stage_loss(logits, coordinates, Padded.of(truths()), spans(), dense)
    sums, pairs = torch.zeros(3), 0
    matcher = match_many if dense else match_one_to_one
    for row, truth in enumerate(truths()):
        alone = Padded.of([truth])
        part = (logits[row : row + 1], coordinates[row : row + 1])
        count = len(matcher(part[0], part[1].sigmoid(), alone, spans())[0])
        sums += max(1, count) * torch.stack(stage_loss(*part, alone, spans(), dense))
        pairs += count
    assert torch.allclose(torch.stack(together), sums / pairs, rtol=1e-4)


def test_pictures_without_truth_teach_scores_alone() -> None:
    logits = torch.randn(1, 6, 5, requires_grad=True)
    score, distance, overlap = stage_loss(logits, torch.randn(1, 6, 4), Padded.of(truths()[1:2]), spans(), True)
    assert score.item() > 0
    assert distance.item() == overlap.item() == 0
    score.backward()
    assert logits.grad is not None


def test_matching_never_uses_padding() -> None:
    padded = Padded.of(truths())
    for matcher in (match_many, match_one_to_one):
        pictures, _, owners = matcher(torch.randn(3, 20, 5), torch.rand(3, 20, 4), padded, spans())
        assert padded.real[pictures, owners].all()
        assert set(pictures.tolist()) == {0, 2}


def draw(rng: np.random.Generator, progress: float) -> tuple[float, float]:
    return float(rng.random()), progress


def test_batches_do_not_depend_on_who_makes_them() -> None:
    def first(count: int, workers: int) -> list[tuple[float, float]]:
        batches = Stream(draw, runtime.Schedule(steps=100), seed=3).loader(workers)
        return [next(batches) for _ in range(count)]

    assert first(6, 0) == first(6, 2)
    assert [progress for _, progress in first(3, 0)] == [0, 0.01, 0.02]
    later = iter(Stream(draw, runtime.Schedule(steps=100), seed=3, first=4))
    assert next(later) == first(5, 0)[4]


def test_a_schedule_goes_on_where_it_stopped() -> None:
    schedule = runtime.Schedule(minutes=10)
    schedule.before_s = 300
    assert 0.5 <= schedule.progress(0) < 0.6
    assert runtime.Schedule(steps=4).progress(1) == 0.25
    assert runtime.Schedule(steps=4, stop_after_s=0).must_stop()
    assert not runtime.Schedule(steps=4).must_stop()
    with pytest.raises(ValueError, match="minutes or steps"):
        runtime.Schedule()


@pytest.mark.parametrize("seed", range(30))
def test_a_window_holds_its_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x0, y0 = int(rng.integers(0, 300)), int(rng.integers(0, 200))
    box = (x0, y0, x0 + int(rng.integers(1, 400 - x0)), y0 + int(rng.integers(1, 300 - y0)))
    left, top, right, bottom = window(rng, (400, 300), box)
    assert 0 <= left <= box[0]
    assert box[2] <= right <= 400
    assert 0 <= top <= box[1]
    assert box[3] <= bottom <= 300


def test_only_better_weights_are_published() -> None:
    old = {"scratch": 0.5, "dent": 0.5}
    assert publish.is_better({"scratch": 0.6, "dent": 0.49, "chip": 0.1}, old)
    assert not publish.is_better({"scratch": 0.9, "dent": 0.45}, old)
    assert not publish.is_better(old, old)
    assert not publish.is_better({}, old)


def test_a_deadline_stops_what_runs_and_a_failure_is_one() -> None:
    sleeper = Job("timeit", ("-n", "1", "-s", "import time", "time.sleep(60)"))
    assert not run([sleeper], Deadline(0.5))
    assert run([Job("timeit", ("-n", "1", "pass"))], Deadline(None))
    with pytest.raises(RuntimeError, match="no_such_module"):
        run([Job("no_such_module", ())], Deadline(None))


def call(data: Path, module: str, *arguments: str) -> None:
    environment = {**os.environ, "AUTOLABEL_TRAINING": str(data), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"training.{module}", *arguments]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=600)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with a few pictures to train on."""
    folder = tmp_path_factory.mktemp("training")
    call(folder, "dataset", "--workers", "1", "--pictures", "16")
    return folder


def weights(work: Path, model: str) -> dict[str, torch.Tensor]:
    state = torch.load(work / model / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4
    trained: dict[str, torch.Tensor] = state["model"]
    return trained


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def options(work: Path, model: str) -> tuple[str, ...]:
    processes = ("--processes", "1") if model == "detector" else ("--threads", "1")
    return ("--tiny", "--steps", "4", "--pictures", "2", *processes, "--work", str(work))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["segmenter", "classifier"])
def test_trainings_of_as_many_steps_end_with_the_same_weights(tmp_path: Path, data: Path, model: str) -> None:
    for name in ("once", "again"):
        call(data, f"train_{model}", *options(tmp_path / name, model))
    assert equal(weights(tmp_path / "once", model), weights(tmp_path / "again", model))
    assert list((tmp_path / "once" / "trained" / model).glob("*.safetensors"))


@pytest.mark.slow
def test_a_training_that_stops_goes_on_as_an_undisturbed_one_and_begins_where_told(tmp_path: Path, data: Path) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    start = ("--from", str(runtime.STARTER / "detector"))
    call(data, "train_detector", *options(once, "detector"), *start)
    call(data, "train_detector", *options(again, "detector"), *start, "--stop-after-s", "0")
    assert torch.load(again / "detector" / "checkpoint.pt", weights_only=True)["step"] < 4
    call(data, "train_detector", *options(again, "detector"), *start)
    first = weights(once, "detector")
    assert equal(first, weights(again, "detector"))
    assert (once / "trained" / "detector" / "model.safetensors").is_file()
    bundled = load_file(runtime.STARTER / "detector" / "model.safetensors")
    name = "model.backbone.conv_encoder.model.embeddings.patch_embeddings.weight"
    assert 0 < float((first[name] - bundled[name].float()).abs().mean()) < 0.01 < float(bundled[name].abs().mean())

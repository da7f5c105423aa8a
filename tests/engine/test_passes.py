"""Whole passes over run folders: the same run by every engine, and nothing lost when writing or a person stops them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import autolabel
from autolabel import labeling, parquet
from autolabel.errors import ConfigError
from autolabel.execute import Progress
from autolabel.images import Source
from autolabel.models.runtime import forward_pass
from autolabel.protocols import Runtime
from autolabel.store import RunFolder
from autolabel.types import ModelInfo
from tests.conftest import Models, write_pictures
from tests.fakes import ColourClassifier, SquareDetector

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60


def content(run: autolabel.Run) -> list[object]:
    """All that a run says, without the times in it."""
    return [
        (item.image, item.annotations, [failure for failure in run.failures() if failure.path == item.image.path])
        for item in run
    ]


def stage_files(run: autolabel.Run) -> dict[str, list[dict[str, object]]]:
    return {str(path.relative_to(run.path)): parquet.read_rows(path) for path in sorted(run.path.rglob("*.parquet"))}


def test_every_engine_makes_the_same_run(workspace: Path, models: Models) -> None:
    images = write_pictures(workspace / "images", 37)
    (images / "020.png").write_bytes(b"not an image")
    kept = {
        engine: autolabel.run(images, prompt="scratch. dent.", path=engine, engine=engine, batch_size=5, **models)
        for engine in ("sequential", "auto")
    }
    expected = kept.pop("sequential")
    assert len(stage_files(expected)) == 8 * 5
    for run in kept.values():
        assert stage_files(run) == stage_files(expected)
        assert content(run) == content(expected)
        assert run.manifest.counts == expected.manifest.counts


def test_a_changed_classifier_goes_through_the_engine(workspace: Path, models: Models) -> None:
    class Other(ColourClassifier):
        def __init__(self) -> None:
            super().__init__()
            self.info = ModelInfo("fake:other")

    images = write_pictures(workspace / "images", 12)
    runs = {}
    for engine in ("sequential", "auto"):
        settings = {"path": engine, "engine": engine, "batch_size": 5}
        autolabel.run(images, prompt="scratch. dent.", **settings, **models)
        before = models.calls()
        runs[engine] = autolabel.run(images, prompt="scratch. dent.", **settings, **{**models, "classifier": Other()})
        assert models.calls() == before
    assert stage_files(runs["auto"]) == stage_files(runs["sequential"])


def test_images_without_proposals_are_not_read_for_a_new_classifier(
    workspace: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_pictures(workspace / "images", 10)
    autolabel.run(images, prompt="scratch. dent.", path="run", **models)
    read: list[str] = []
    read_bytes = labeling.read_bytes

    def watched(source: Source) -> bytes:
        read.append(source.path)
        return read_bytes(source)

    monkeypatch.setattr("autolabel.labeling.read_bytes", watched)
    other = ColourClassifier()
    other.info = ModelInfo("fake:other")
    autolabel.run(images, prompt="scratch. dent.", path="run", **{**models, "classifier": other})
    assert sorted(read) == [f"{number:03d}.png" for number in range(10) if number % 5 != 4]


@pytest.mark.parametrize("full_at", [0, 7, 12])
def test_a_full_disk_ends_the_pass_and_costs_only_what_was_in_flight(
    workspace: Path, models: Models, monkeypatch: pytest.MonkeyPatch, full_at: int
) -> None:
    images = write_pictures(workspace / "images", 30)
    calm = autolabel.run(images, prompt="scratch. dent.", path="calm", batch_size=4, **models)
    encode, written = parquet.encode, 0

    def full(*arguments, **settings):
        nonlocal written
        written += 1
        if written > full_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return encode(*arguments, **settings)

    monkeypatch.setattr("autolabel.parquet.encode", full)
    with pytest.raises(OSError, match="No space left on device"):
        autolabel.run(images, prompt="scratch. dent.", path="stormy", batch_size=4, **models)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("autolabel-detect")]
    monkeypatch.setattr("autolabel.parquet.encode", encode)
    kept = RunFolder(workspace / "stormy").numbers()
    assert kept == list(range(full_at // 5))
    stormy = autolabel.run(images, prompt="scratch. dent.", path="stormy", batch_size=4, **models)
    assert stage_files(stormy) == stage_files(calm)


def test_a_failed_write_does_not_wait_for_the_models(
    workspace: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The detector would never come back by itself; the error of the batch before must end it."""
    failing = threading.Event()

    class Endless(SquareDetector):
        def predict_batch(self, images, phrases, min_score):
            while len(self.calls) >= 2:
                failing.set()
                time.sleep(0.001)
            return super().predict_batch(images, phrases, min_score)

    def fail(*_arguments, **_settings):
        assert failing.wait(PATIENCE_S)
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(RunFolder, "add_shard", fail)
    images = write_pictures(workspace / "images", 12)
    with pytest.raises(OSError, match="the disk is broken"):
        autolabel.run(images, prompt="scratch. dent.", path="run", batch_size=4, **{**models, "detector": Endless()})


def test_an_interrupt_keeps_what_is_written_and_ends_quietly(workspace: Path) -> None:
    images = write_pictures(workspace / "images", 120)
    command = [sys.executable, "-m", "tests.killed_run", str(images)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*command, "calm"], env=environment, check=True, cwd=workspace)
    process = subprocess.Popen(
        [*command, "stormy", "0.3"], env=environment, cwd=workspace, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + PATIENCE_S
    while len(list((workspace / "stormy" / "shards").glob("[0-9]*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (-signal.SIGINT, 130)
    assert "KeyboardInterrupt" in said
    assert "Fatal" not in said
    assert "terminate called" not in said
    before = len(RunFolder(workspace / "stormy").numbers())
    assert before >= 3
    subprocess.run([*command, "stormy"], env=environment, check=True, cwd=workspace)
    assert stage_files(autolabel.Run(workspace / "stormy")) == stage_files(autolabel.Run(workspace / "calm"))


class InterruptsAtItsEnd:
    """Is interrupted while it is finalised, where Python drops what is raised."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_is_heeded(workspace: Path, models: Models) -> None:
    images = write_pictures(workspace / "images", 40)
    states: list[Progress] = []

    def interrupt(state: Progress) -> None:
        states.append(state)
        if len(states) == 3:
            InterruptsAtItsEnd()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            autolabel.run(images, prompt="scratch. dent.", batch_size=4, on_progress=interrupt, **models)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert states[-1].done < 40


def test_workers_need_models_that_can_be_named(workspace: Path, models: Models) -> None:
    images = write_pictures(workspace / "images", 2)
    with pytest.raises(ConfigError, match="was given as a loaded object"):
        autolabel.run(images, prompt="scratch. dent.", workers=2, **models)


def test_the_manifest_says_how_fast_it_was(workspace: Path, models: Models) -> None:
    images = write_pictures(workspace / "images", 6)
    pace = autolabel.run(images, prompt="scratch. dent.", path="run", cost_per_hour=3.6, **models).manifest.pace
    assert pace is not None
    assert pace.images == 6
    assert set(pace.busy_seconds) == {"read", "detect", "segment", "classify", "resolve", "write"}
    assert all(seconds >= 0 for seconds in pace.busy_seconds.values())
    assert 0 < pace.busy_seconds["write"] <= pace.wall_seconds
    assert pace.cost_per_1000_images == pytest.approx(1 / pace.images_per_second)
    again = autolabel.run(images, prompt="scratch. dent.", path="run", cost_per_hour=7.2, **models).manifest.pace
    assert again == pace.model_copy(update={"cost_per_hour": 7.2})


def test_a_model_that_does_not_tell_of_its_forward_passes_makes_no_share(workspace: Path, models: Models) -> None:
    class Telling(SquareDetector):
        def predict_batch(self, images, phrases, min_score):
            with forward_pass(Runtime()):
                return super().predict_batch(images, phrases, min_score)

    images = write_pictures(workspace / "images", 6)
    settings = {"prompt": "scratch. dent.", "segmenter": "none", "classifier": "none"}
    silent = autolabel.run(images, path="silent", detector=SquareDetector(), **settings).manifest.pace
    telling = autolabel.run(images, path="telling", detector=Telling(), **settings).manifest.pace
    assert silent is not None
    assert silent.forward_share is None
    assert telling is not None
    assert telling.forward_share is not None
    assert 0 < telling.forward_seconds["detect"] <= telling.busy_seconds["detect"]


def test_forward_passes_are_a_share_of_the_time() -> None:
    pace = autolabel.manifest.Pace(
        images=10, wall_seconds=12, load_seconds=2, forward_seconds={"detect": 6.0, "segment": 3.0}
    )
    assert pace.images_per_second == 1.0
    assert pace.forward_share == pytest.approx(0.9)
    assert pace.cost_per_1000_images is None
    assert np.isclose(pace.model_copy(update={"processes": 3, "wall_seconds": 5.0}).forward_share, 1.0)

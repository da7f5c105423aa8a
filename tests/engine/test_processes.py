"""Engines that label in other processes: the same run as the plain one, and clear words when a process is lost."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

import autolabel
from autolabel.config import Recipe
from autolabel.dataset import Run
from autolabel.engine import Setup, Work, crew, worker
from autolabel.engine.choose import choose, seats_for
from autolabel.engine.on_ray import Share
from autolabel.engine.workers import WorkersEngine, cpu_seats
from autolabel.errors import ConfigError, ModelError
from autolabel.images import list_sources
from autolabel.labeling import Known
from autolabel.loading import models_for
from autolabel.runner import make_plan
from autolabel.shards import Detected
from tests.conftest import write_pictures
from tests.fakes import SquareDetector

ROOT = Path(__file__).parents[2]
PROMPT = "scratch. dent."
FAKES = {
    "autolabel.detectors": "SquareDetector",
    "autolabel.segmenters": "BoxSegmenter",
    "autolabel.classifiers": "ColourClassifier",
}
MODELS = dict.fromkeys(("detector", "segmenter", "classifier"), "fake-squares")
"""Specs: other processes load models by name."""


@pytest.fixture(scope="module", autouse=True)
def installed_fakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The fake models as a distribution on the path of this process and of those it starts."""
    site = tmp_path_factory.mktemp("site")
    info = site / "fake_squares-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-squares\nVersion: 1.0\n")
    points = [f"[{group}]\nfake-squares = tests.fakes:{name}\n" for group, name in FAKES.items()]
    (info / "entry_points.txt").write_text("\n".join(points))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", os.pathsep.join((str(site), str(ROOT), os.environ.get("PYTHONPATH", ""))))
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pictures, and one file that is none."""
    folder = write_pictures(tmp_path_factory.mktemp("pictures") / "images", 16)
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def plain(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of the engine that overlaps nothing."""
    path = tmp_path_factory.mktemp("plain") / "run"
    return label(pictures, path, engine="sequential")


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """Two nodes of one core each, on this machine."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()
    cluster.shutdown()


def assert_same_run(run: Run, expected: Run) -> None:
    """The same images in the same shards, and the same labels."""
    names = [sorted(path.name for path in each.path.glob("shards/*")) for each in (run, expected)]
    assert names[0] == names[1]
    assert run.manifest.counts == expected.manifest.counts
    assert run.manifest.labels == expected.manifest.labels
    assert run.manifest.keys == expected.manifest.keys
    assert set(run.manifest.models) == set(expected.manifest.models)
    for found, wanted in zip(run, expected, strict=True):
        assert found.image == wanted.image
        assert found.annotations == wanted.annotations


def test_workers_make_the_run_of_one_process(pictures: Path, plain: Run, tmp_path: Path) -> None:
    run = label(pictures, tmp_path / "run", workers=2)
    assert_same_run(run, plain)
    assert run.manifest.timings["load"] > 0


def test_workers_go_on_with_a_run_that_one_process_began(pictures: Path, plain: Run, tmp_path: Path) -> None:
    label(sorted(pictures.iterdir())[:4], tmp_path / "run", classifier="none")
    run = label(pictures, tmp_path / "run", workers=2)
    assert run.manifest.counts == plain.manifest.counts
    assert run.manifest.labels == plain.manifest.labels


@pytest.mark.usefixtures("ray_cluster")
def test_two_nodes_of_ray_make_the_run_of_one_process(pictures: Path, plain: Run, tmp_path: Path) -> None:
    path = tmp_path / "run"
    label(sorted(pictures.iterdir())[:4], path)
    shards = {file: file.stat().st_mtime_ns for file in path.glob("shards/*/*")}
    run = label(pictures, path, engine="ray")
    assert_same_run(run, plain)
    assert shards.items() <= {file: file.stat().st_mtime_ns for file in path.glob("shards/*/*")}.items()


@pytest.mark.usefixtures("ray_cluster")
def test_ray_hands_on_an_error_of_an_actor(pictures: Path, tmp_path: Path) -> None:
    engine = choose(
        setup_for(engine="ray", identities={"detector": "another"}), models_for(Recipe(prompt=PROMPT, **MODELS))
    )
    with pytest.raises(ModelError, match="the run was started with 'another'"):
        list(engine.label(works_of(pictures)))


def test_a_worker_with_other_weights_labels_nothing(pictures: Path) -> None:
    engine = WorkersEngine(setup_for(identities={"segmenter": "another"}), cpu_seats(1, "cpu"))
    with pytest.raises(ModelError, match="the run was started with 'another'"):
        list(engine.label(works_of(pictures)))


def test_a_worker_that_is_killed_is_an_error_that_says_what_it_did(pictures: Path) -> None:
    before = set(psutil.Process().children())
    answers = WorkersEngine(setup_for(), cpu_seats(1, "cpu")).label(works_of(pictures) * 50)
    first = next(answers)
    for process in set(psutil.Process().children()) - before:
        process.kill()
    assert first.rows[0].path == "000.png"
    with pytest.raises(ModelError, match=r"ended by signal 9 while it worked on '.*fewer workers.*same command again"):
        list(answers)


def test_a_worker_tells_of_an_error_while_it_waits_for_works(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_GIVE_UP_S", 3600.0)
    nothing = np.zeros((0, 4), np.float32)
    broken = Known(Detected(np.zeros(1, np.int32), nothing, nothing))  # a place for which there is no box
    (first, *_) = works_of(pictures)
    here, there = socket.socketpair()
    with here, there, here.makefile("rwb") as mine, there.makefile("rwb") as theirs:
        serving = threading.Thread(target=worker.serve, args=(theirs, theirs), daemon=True)
        serving.start()
        for item in (worker.Order(setup_for(), "cpu"), (0, replace(first, known=broken))):
            pickle.dump(item, mine)
            mine.flush()
        here.settimeout(60)
        assert isinstance(pickle.load(mine).content, IndexError)
        pickle.dump(None, mine)
        mine.flush()
        serving.join()


def test_closing_the_answers_ends_the_processes(pictures: Path) -> None:
    before = set(psutil.Process().children())
    answers = WorkersEngine(setup_for(), cpu_seats(2, "cpu")).label(works_of(pictures) * 50)
    next(answers)
    mine = set(psutil.Process().children()) - before
    assert len(mine) == 2
    answers.close()
    assert not any(process.is_running() for process in mine)


def test_workers_end_when_whoever_started_them_is_killed(pictures: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "autolabel.cli", "run", str(pictures), "--prompt", PROMPT, "--workers", "2"]
    command += ["--run", str(tmp_path / "run"), "--device", "cpu", "--batch-size", "1"]
    command += [text for task, spec in MODELS.items() for text in (f"--{task}", spec)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as started:
        parent = psutil.Process(started.pid)
        while not (workers := parent.children()) and started.poll() is None:
            time.sleep(0.05)
        started.kill()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert gone
    assert not alive


def test_nothing_to_do_starts_no_process() -> None:
    before = psutil.Process().children()
    assert list(WorkersEngine(setup_for(), cpu_seats(2)).label([])) == []
    assert psutil.Process().children() == before


def test_loaded_models_stay_in_this_process(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="detector was given as a loaded object"):
        autolabel.run(
            pictures, PROMPT, path=tmp_path / "run", workers=2, detector=SquareDetector(),
            segmenter="none", classifier="none",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("device", "workers", "gpus", "devices"),
    [
        (None, None, 0, [None]),
        (None, None, 4, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        ("cuda", 2, 4, ["cuda:0", "cuda:1"]),
        ("cuda:2", None, 4, ["cuda:2"]),
        ("cpu", None, 4, ["cpu"]),
        ("cpu", 3, 4, ["cpu", "cpu", "cpu"]),
    ],
)
def test_seats(device: str | None, workers: int | None, gpus: int, devices: list[str | None]) -> None:
    assert [seat.device for seat in seats_for(device, workers, gpus)] == devices


@pytest.mark.parametrize(("device", "workers", "gpus"), [("cuda", 3, 2), ("cuda:1", 2, 2), ("mps", 2, 0)])
def test_workers_do_not_share_a_gpu(device: str, workers: int, gpus: int) -> None:
    with pytest.raises(ConfigError, match=f"workers = {workers}"):
        seats_for(device, workers, gpus)


@pytest.mark.parametrize(
    ("nodes", "workers", "device", "share"),
    [
        ([{"CPU": 16.0}], None, None, Share(4, 0, 4)),
        ([{"CPU": 2.0}], None, None, Share(1, 0, 2)),
        ([{"CPU": 2.0}], 2, None, Share(2, 0, 1)),
        ([{"CPU": 1.0}, {"CPU": 1.0}], None, None, Share(2, 0, 1)),
        ([{"CPU": 8.0}, {"CPU": 3.0}], 3, None, Share(3, 0, 3)),
        ([{"CPU": 2.0}], 5, None, Share(2, 0, 1)),
        ([{"CPU": 64.0, "GPU": 8.0}], None, None, Share(8, 1, 4)),
        ([{"CPU": 8.0, "GPU": 4.0}, {"CPU": 32.0}], 2, "cuda", Share(2, 1, 2)),
        ([{"CPU": 8.0, "GPU": 2.0}], None, "cpu", Share(2, 0, 4)),
    ],
)
def test_a_cluster_is_shared_out(
    nodes: list[dict[str, float]], workers: int | None, device: str | None, share: Share
) -> None:
    assert Share.of(nodes, workers, device) == share


def label(images: object, path: Path, **settings: object) -> Run:
    return autolabel.run(images, PROMPT, path=path, batch_size=2, device="cpu", **{**MODELS, **settings})


def setup_for(identities: dict[str, str] | None = None, **settings: object) -> Setup:
    recipe = Recipe(prompt=PROMPT, device="cpu", **MODELS).merged(settings)
    plan = make_plan(recipe, recipe.ontology(), "6b1f6f0e-8a52-5d0c-9d61-0b6a3b1f2c77", 0.1)
    return Setup(recipe, plan, identities=identities or {})


def works_of(folder: Path) -> list[Work]:
    return [Work.new([source]) for source in list_sources([str(folder)])]

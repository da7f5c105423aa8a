"""The whole pass as a user types it, with the bundled models, in processes of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

import autolabel
from autolabel.evaluate import EvalResult, evaluate
from training.make_sample_data import coco_of
from training.natural import natural_size
from training.seeds import TEST

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_data"
PROMPT = "scratch. dent. crack. rust. hole. stain."
LONG_PROMPT = f"{PROMPT} chip. blister. missing screw. burr."
UNSEEN_PICTURES = 40

pytestmark = pytest.mark.slow


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "autolabel.cli", *arguments]


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900
    )


def on_unseen_pictures(folder: Path, edition: str, prompt: str) -> EvalResult:
    """What the bundled models find on pictures of test seeds, which no training and no tuning has used."""
    from training.generator import EDITIONS, generate

    (folder / "images").mkdir()
    scenes = []
    for seed in TEST[:UNSEEN_PICTURES]:
        scene = generate(seed, natural_size(seed), edition=EDITIONS[edition])
        cv2.imwrite(str(folder / "images" / f"{seed}.jpg"), scene.image[..., ::-1])
        scenes.append((f"{seed}.jpg", scene))
    (folder / "coco.json").write_text(json.dumps(coco_of(scenes, EDITIONS[edition].classes)))
    run = autolabel.run(folder / "images", prompt=prompt, path=folder / "run", offline=True)
    assert run.manifest.status == "done"
    return evaluate(run, folder / "coco.json", ranked="proposals")


@pytest.mark.parametrize(("edition", "prompt", "enough"), [("first", PROMPT, 0.40), ("second", LONG_PROMPT, 0.35)])
def test_the_starter_pack_finds_defects_it_has_never_seen(
    tmp_path: Path, edition: str, prompt: str, enough: float
) -> None:
    unseen = on_unseen_pictures(tmp_path, edition, prompt)
    assert unseen.box is not None
    assert unseen.box.ap50 is not None
    assert unseen.box.ap50 >= enough
    assert {c.name for c in unseen.classes if c.recall == 0} <= {"blister", "burr"}


def test_as_typed_in_a_folder_with_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("painted_04.jpg", "brushed_metal_03.jpg", "wood_03.png"):
        source = next(p for p in (SAMPLES / "images").iterdir() if p.name == name)
        shutil.copy(source, tmp_path / "images")
    answer = call(tmp_path, "run", "--prompt", "scratch. dent.", "--json")
    assert answer.returncode == 0, answer.stderr
    values = json.loads(answer.stdout)
    assert values["counts"]["labelled"] == 3
    assert set(values["labels"]) == {"scratch", "dent"}
    assert (tmp_path / values["report"]).is_file()
    run = autolabel.Run(tmp_path / values["run"])
    for item in run:
        for annotation in item.annotations:
            assert annotation.mask is not None
            assert annotation.class_probs is not None
            assert sum(annotation.class_probs) == pytest.approx(1, abs=1e-4)
    assert {task: info.weights_sha256 is not None for task, info in run.manifest.models.items()} == {
        "detector": True,
        "segmenter": True,
        "classifier": True,
    }


def test_awkward_files_cost_their_rows_and_not_the_run(tmp_path: Path) -> None:
    answer = call(tmp_path, "run", str(SAMPLES / "hard"), "--prompt", "scratch.", "--json", "--no-report")
    assert answer.returncode == 3, answer.stderr
    run = autolabel.Run.open(tmp_path / json.loads(answer.stdout)["run"])
    assert {failure.path for failure in run.failures()} == {
        "huge_header.png",
        "not_an_image.jpg",
        "truncated.jpg",
        "zero_bytes.jpg",
    }
    assert {"cmyk.jpg", "exif_rotated.jpg", "gray16.png", "kratzer_größe_测试.png", "tiny_1x1.png"} <= {
        image.path for image in run.images()
    }
    rotated = run["exif_rotated.jpg"].image
    assert run.read_image(rotated).shape[:2] == (rotated.height, rotated.width)


def test_a_killed_pass_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for source in sorted((SAMPLES / "images").iterdir())[:6]:
        shutil.copy(source, tmp_path / "images")
    arguments = ("run", "--prompt", "scratch. rust. hole.", "--batch-size", "1", "--no-report", "--quiet")
    assert call(tmp_path, *arguments, "--run", "calm").returncode == 0
    shards = tmp_path / "stormy" / "shards"
    for wanted in (1, 3):
        process = subprocess.Popen(command(*arguments, "--run", "stormy"), cwd=tmp_path)
        while process.poll() is None and len(list(shards.glob("0*"))) < wanted:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert len(list(shards.glob("0*"))) < 6
    assert call(tmp_path, *arguments, "--run", "stormy").returncode == 0
    for name in ("calm", "stormy"):
        assert call(tmp_path, "export", name, "--format", "coco", "--out", f"{name}-coco").returncode == 0
    exported = [(tmp_path / f"{name}-coco" / "annotations.json").read_bytes() for name in ("calm", "stormy")]
    assert exported[0] == exported[1]
    assert json.loads(exported[0])["annotations"]


def test_official_weights_that_are_not_here_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    shutil.copy(SAMPLES / "images" / "painted_04.jpg", tmp_path / "images")
    environment = {"HF_HOME": str(tmp_path / "empty"), "HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"]}
    answer = subprocess.run(
        command("run", "--prompt", "dent.", "--models", "tiny"),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert answer.returncode == 1
    assert "autolabel models pull tiny" in answer.stderr
    assert "--models starter" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.shared
def test_real_photos_go_through_and_export(shared_data: Path, tmp_path: Path) -> None:
    photos = sorted((shared_data / "coco100" / "images").iterdir())[:4]
    run = autolabel.run(photos, prompt="person. car. dog.", path=tmp_path / "run", offline=True)
    assert run.manifest.status == "done"
    assert [item.image.path for item in run] == [photo.name for photo in photos]
    assert len(run.to_coco()["images"]) == 4

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import autolabel
from tests.conftest import Call, Models, write_pictures


@pytest.fixture
def call(command: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call the command line in this process with the fakes as models; returns exit code, stdout, stderr."""
    fakes = Models()
    run = autolabel.run
    monkeypatch.setattr("autolabel.runner.run", lambda *args, **settings: run(*args, **{**settings, **fakes}))
    return command


def test_help_needs_no_torch() -> None:
    script = "import sys, autolabel, autolabel.cli, autolabel.runner; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    "name", ["run", "resolve", "show", "export", "report", "eval", "tune", "models", "models pull", "doctor"]
)
def test_every_command_has_help_with_examples(call: Call, name: str) -> None:
    code, out, _ = call(*name.split(), "--help")
    assert code == 0
    assert "Examples:\n" in out
    assert f"autolabel {name}" in out


def test_as_typed_it_labels_the_images_folder(call: Call, workspace: Path) -> None:
    write_pictures(workspace / "images", 6)
    code, out, _ = call("run", "--prompt", "scratch. dent.")
    assert code == 0
    assert "6 images, 8 annotations" in out
    assert "report.html" in out
    (report,) = workspace.glob("runs/*/report.html")
    assert report.stat().st_size > 1000


def test_again_there_is_nothing_to_do(call: Call, workspace: Path) -> None:
    write_pictures(workspace / "images", 2)
    call("run", "-p", "scratch. dent.", "--no-report")
    code, out, _ = call("run", "-p", "scratch. dent.", "--no-report")
    assert code == 0
    assert "nothing to do" in out


def test_json_is_all_of_stdout(call: Call, workspace: Path) -> None:
    write_pictures(workspace / "images", 3)
    code, out, err = call("run", "--prompt", "scratch. dent.", "--json")
    values = json.loads(out)
    assert code == 0
    assert err == ""
    assert values["counts"] == {"images": 3, "labelled": 3, "failed": 0, "annotations": 4}
    assert values["labels"] == {"scratch": 3, "dent": 1}
    assert Path(values["report"]).is_file()


def test_every_setting_of_the_command_line_reaches_the_recipe(call: Call, workspace: Path) -> None:
    write_pictures(workspace / "images", 2)
    options = (
        "--min-score 0.3 --min-prob 0.2 --min-area 9 --nms-iou 0.6 --assign fused --floor 0.2 --tiles on "
        "--tile-size 80 --batch-size 1 --engine sequential --workers 1 --cost-per-hour 3.6 "
        "--device cpu --dtype float32 --cpu eager"
    )
    code, _, err = call("run", "-p", "scratch. dent.", "--run", "run", "--no-report", "--no-noise", *options.split())
    assert code == 0, err
    manifest = autolabel.Run.open("run").manifest
    asked = {name: manifest.recipe[name] for name in ("engine", "workers", "cost_per_hour", "device", "dtype", "cpu")}
    assert asked == {
        "engine": "sequential", "workers": 1, "cost_per_hour": 3.6, "device": "cpu", "dtype": "float32", "cpu": "eager",
    }  # fmt: skip
    thresholds = {"min_score": 0.3, "min_prob": 0.2, "min_area_px": 9.0, "nms_iou": 0.6}
    assert {name: manifest.resolved["thresholds"][name] for name in thresholds} == thresholds
    assert (manifest.resolved["assign"], manifest.resolved["floor"]) == ("fused", 0.2)
    assert (manifest.resolved["tiles"]["mode"], manifest.resolved["tiles"]["size"]) == ("on", 80)
    assert len(list(Path("run/shards").iterdir())) == 2
    assert manifest.pace is not None
    assert (manifest.pace.engine, manifest.pace.cost_per_hour) == ("sequential", 3.6)
    assert not Path("run/issues.parquet").exists()


def test_quiet_prints_nothing(call: Call, workspace: Path) -> None:
    write_pictures(workspace / "images", 2)
    assert call("run", "--prompt", "scratch.", "--quiet", "--no-report") == (0, "", "")


def test_failed_images_exit_with_3(call: Call, workspace: Path) -> None:
    write_pictures(workspace / "images", 2)
    (workspace / "images" / "[red]bad.jpg").write_bytes(b"")
    code, out, _ = call("run", "--prompt", "scratch.", "--no-report")
    assert code == 3
    assert "1 images failed" in out
    assert "[red]bad.jpg" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "nothing to look for"),
        (["run", "--prompt", "."], "prompt has no words"),
        (["run", "nowhere/", "--prompt", "dent."], "'nowhere/' does not exist"),
        (["run", "--prompt", "dent. Dent."], "same after normalisation"),
        (["run", "--prompt", "dent.", "--min-score", "1.3"], "1.3 is not in the range 0<=x<=1"),
        (["run", "--recipe", "none.toml"], "no recipe 'none.toml'"),
        (["export"], "Missing option '--format'"),
        (["label"], "No such command 'label'"),
    ],
)
def test_wrong_usage_exits_with_2(call: Call, arguments: list[str], words: str) -> None:
    code, out, err = call(*arguments)
    assert code == 2
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def test_a_missing_run_exits_with_1(call: Call) -> None:
    code, _, err = call("show")
    assert code == 1
    assert err == 'error: there is no run here yet; start one with: autolabel run --prompt "scratch. dent."\n'


def test_later_commands_use_the_last_run(call: Call, workspace: Path) -> None:
    write_pictures(workspace / "images", 6)
    call("run", "--prompt", "scratch. dent.", "--no-report", "--run", "mine")
    code, out, _ = call("resolve", "--min-score", "0.43", "--json")
    assert code == 0
    assert json.loads(out)["rejects"] == {"low_score": 1}
    assert json.loads(call("show", "--json")[1])["counts"]["annotations"] == 7
    code, out, _ = call("export", "--format", "coco", "--out", "labels")
    assert code == 0
    assert "7 annotations of 6 images" in out
    code, out, _ = call("eval", "--against", "labels/annotations.json", "--json")
    assert code == 0
    assert call("report", "--out", "page.html")[0] == 0
    assert (workspace / "page.html").is_file()


def test_resolving_refreshes_a_report_that_is_there(call: Call, workspace: Path) -> None:
    write_pictures(workspace / "images", 6)
    call("run", "--prompt", "scratch. dent.", "--no-report", "--run", "mine")
    report = workspace / "mine" / "report.html"
    call("resolve", "--min-score", "0.4")
    assert not report.exists()
    call("report")
    before = report.read_bytes()
    assert call("resolve", "--min-score", "0.43")[0] == 0
    assert report.read_bytes() != before


def test_a_split_is_checked(call: Call, workspace: Path) -> None:
    write_pictures(workspace / "images", 2)
    call("run", "--prompt", "scratch.", "--no-report")
    code, _, err = call("export", "--format", "yolo", "--split", "most,rest")
    assert code == 2
    assert "--split must be numbers" in err


def test_a_run_that_finds_nothing_says_what_to_try(call: Call, workspace: Path) -> None:
    write_pictures(workspace / "images", 2)
    _, out, _ = call("run", "--prompt", "crack.", "--no-report")
    assert "nothing found; try other words" in out
    call("run", "--prompt", "scratch.", "--no-report", "--min-score", "0.99")
    assert "2 boxes scored too low" in call("show")[1]


def test_a_disk_error_is_one_line(call: Call, workspace: Path) -> None:
    write_pictures(workspace / "images", 1)
    (workspace / "runs").write_text("a file where the folder should be")
    code, _, err = call("run", "--prompt", "scratch.", "--no-report")
    assert code == 1
    assert "Traceback" not in err
    assert "runs" in err


def test_label_noise_is_a_step_of_a_run_and_follows_new_thresholds(make_run, tmp_path):
    """Shards without any proposal are part of it; a run without labels has nothing to judge."""
    from autolabel.commands.common import screen_for
    from autolabel.commands.label import _finish, _judge
    from autolabel.issues import read_notes

    run = make_run(10, batch_size=1)
    screen = screen_for(True, False)
    assert _judge(screen, run) is not None
    assert read_notes(run.path)["labels"] == "run"
    empty = make_run(2, prompt="crack.", path=tmp_path / "empty")
    _finish(screen, empty, noise=True, report=False)
    assert read_notes(empty.path) is None


def test_a_price_becomes_the_cost_of_a_thousand_images(call: Call, workspace: Path) -> None:
    write_pictures(workspace / "images", 6)
    code, out, _ = call("run", "-p", "scratch. dent.", "--cost-per-hour", "3.6", "--no-report")
    assert code == 0
    assert "6 images in " in out
    assert "images/s once loaded" in out
    assert "1,000 images cost " in out
    assert " at 3.6 an hour" in out
    pace = json.loads(call("show", "--json")[1])["pace"]
    assert pace["cost_per_1000_images"] == pytest.approx(1 / pace["images_per_s"], rel=0.05)
    code, _, err = call("run", "-p", "scratch. dent.", "--cost-per-hour", "-1")
    assert code == 2
    assert "cost-per-hour" in err

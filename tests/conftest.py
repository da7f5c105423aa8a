"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

import autolabel
from autolabel import cli
from tests.fakes import BoxSegmenter, ColourClassifier, SquareDetector, picture
from tests.services import unavailable

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SHARED = Path(__file__).parents[2] / "shared"
LATEST = Path(__file__).parents[1] / "runs" / ".latest"
_KEPT = pytest.StashKey[bytes | None]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Keep which run was the last one here: tests that run in this folder would leave theirs to the next command."""
    if not hasattr(session.config, "workerinput"):
        session.config.stash[_KEPT] = LATEST.read_bytes() if LATEST.is_file() else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Put it back, once all workers are done."""
    if _KEPT not in session.config.stash:
        return
    kept = session.config.stash[_KEPT]
    if kept is not None:
        LATEST.write_bytes(kept)
    else:
        LATEST.unlink(missing_ok=True)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real images with ground truth, where there is one."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real images (../shared/data) are not here")
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless Chromium, for one module at a time: Playwright's loop keeps others out of its thread while it runs."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        unavailable("no Chromium here; install the system's chromium package")
    with api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call the command line in this process; returns exit code, stdout, stderr."""

    def invoke(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["autolabel", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return invoke


def write_pictures(folder: Path, count: int = 6) -> Path:
    """Write ``count`` pictures: a scratch on each, a dent on every second, nothing on every fifth."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        squares = [("scratch", 2 + number % 30, 3, 10), ("dent", 40, 20, 8 + number % 7)][: 1 + number % 2]
        if number % 5 == 4:
            squares = []
        Image.fromarray(picture(*squares)).save(folder / f"{number:03d}.png")
    return folder


class Models(dict[str, object]):
    """The three fakes, as keyword arguments of ``autolabel.run``."""

    def __init__(self) -> None:
        super().__init__(detector=SquareDetector(), segmenter=BoxSegmenter(), classifier=ColourClassifier())

    def calls(self) -> dict[str, list[int]]:
        """Batch sizes of every call, by task."""
        return {task: list(model.calls) for task, model in self.items()}  # type: ignore[attr-defined]


@pytest.fixture
def models() -> Models:
    """Fakes that answer by arithmetic."""
    return Models()


@pytest.fixture
def make_run(workspace: Path) -> Callable[..., autolabel.Run]:
    """Label a few pictures with the fakes."""

    def make(count: int = 6, prompt: str = "scratch. dent.", **settings: object) -> autolabel.Run:
        write_pictures(workspace / "images", count)
        return autolabel.run(prompt=prompt, **{**Models(), **settings})  # type: ignore[arg-type]

    return make

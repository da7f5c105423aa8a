"""A real FiftyOne over a real MongoDB that is nobody else's.

In a test, ask for ``fiftyone``: the module, connected to an empty database::

    def test_review(fiftyone, make_run):
        dataset = fiftyone.Dataset("name", persistent=True)      # gone after the test

or for ``mongodb`` alone, to give ``mongodb.environment`` to a subprocess. Never import fiftyone at the top of a test
module: that takes seconds, and connects to the database of whoever runs the tests.

FiftyOne shares one mongod between all processes of a user, whatever FIFTYONE_DATABASE_DIR says: so the one of the
tests is started here, one for each test process, and FIFTYONE_DATABASE_URI leads to it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from autolabel.dataset import Run
from autolabel.reviewing import Reviewer, load_reviewer
from tests.fiftyone.sessions import refresh
from tests.services import launch, stop, unavailable

START_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class MongoDB:
    """A database server of this test process, and the settings that lead FiftyOne to it and keep it off the user's."""

    process: subprocess.Popen[bytes]
    folder: Path
    uri: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables for FiftyOne, to be set before it is imported."""
        return {
            "FIFTYONE_DATABASE_URI": self.uri,
            "FIFTYONE_DO_NOT_TRACK": "true",
            **{
                f"FIFTYONE_{name}": str(self.folder / name.lower())
                for name in (
                    "CONFIG_PATH",
                    "APP_CONFIG_PATH",
                    "DATABASE_DIR",
                    "DEFAULT_DATASET_DIR",
                    "DATASET_ZOO_DIR",
                    "MODEL_ZOO_DIR",
                    "PLUGINS_DIR",
                )
            },
        }


@pytest.fixture(scope="session")
def mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoDB]:
    """A running MongoDB with nothing in it; skips without one, but fails in continuous integration."""
    program = mongod()
    if not program:
        unavailable("no MongoDB runs here; `make setup-dev` says why")
    folder = tmp_path_factory.mktemp("mongodb")
    (folder / "data").mkdir()
    log = folder / "mongod.log"
    # Port 0: mongod takes a free one, so that no two test processes can want the same.
    serve = [program, "--dbpath", folder / "data", "--bind_ip", "127.0.0.1", "--port", "0", "--nounixsocket"]
    process = launch([*serve, "--wiredTigerCacheSizeGB", "0.25"], log, os.environ)
    try:
        yield MongoDB(process, folder, f"mongodb://127.0.0.1:{listening_port(process, log)}")
    finally:
        stop(process)


@pytest.fixture(scope="session")
def _connected(mongodb: MongoDB) -> Iterator[ModuleType]:
    if "fiftyone" in sys.modules:
        pytest.fail("fiftyone was imported before this fixture: it is connected to another database", pytrace=False)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("FIFTYONE_")]:
            patch.delenv(name)
        for name, value in mongodb.environment.items():
            patch.setenv(name, value)
        yield importlib.import_module("fiftyone")


@pytest.fixture
def fiftyone(_connected: ModuleType) -> Iterator[ModuleType]:
    """FiftyOne with an empty database; what the test makes is removed, sessions of the App are closed."""
    yield _connected
    _connected.close_app()
    for name in _connected.list_datasets():
        _connected.delete_dataset(name)


@pytest.fixture
def reviewer(fiftyone: ModuleType) -> Reviewer:
    """FiftyOne as ``autolabel review`` finds it."""
    return load_reviewer()


@pytest.fixture
def run(make_run: Callable[..., Run]) -> Run:
    """Six images with two classes."""
    return make_run(6)


@pytest.fixture
def dataset(fiftyone: ModuleType, reviewer: Reviewer, run: Run) -> Any:
    """The run as it is shown."""
    return fiftyone.load_dataset(refresh(reviewer, run).dataset)


def mongod() -> str:
    """The program that FiftyOne brings, or the machine's own, if it runs; empty if none does."""
    package = importlib.util.find_spec("fiftyone")  # does not import it
    folders = list(package.submodule_search_locations or []) if package else []
    for program in (*(f"{folder}/db/bin/mongod" for folder in folders), shutil.which("mongod")):
        if program and Path(program).is_file() and _runs(program):
            return program
    return ""


def _runs(program: str) -> bool:
    return subprocess.run([program, "--version"], capture_output=True, check=False).returncode == 0


def listening_port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until mongod's log says where it listens."""
    deadline = time.monotonic() + START_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        for line in log.read_text(errors="replace").splitlines(keepends=True):
            if line.endswith("\n") and '"Waiting for connections"' in line:
                return int(json.loads(line)["attr"]["port"])
        time.sleep(0.05)
    raise RuntimeError(f"MongoDB did not start:\n{log.read_text(errors='replace')[-2000:]}")

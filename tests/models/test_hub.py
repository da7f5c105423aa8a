from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from autolabel.errors import ModelError
from autolabel.models import hub, registry
from autolabel.models.weights import LOCK_NAME, read_state_dict, weights_sha256, write_lock
from autolabel.protocols import ModelRef, Runtime
from tests.models.fake_hub import COMMIT, serve

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 5000, "tokenizer.json": b"{}", "README.md": b"much text"}


def autolabel(code: str, home: Path, endpoint: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: the hub's client reads its environment once, at import."""
    env = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "NO_PROXY": "127.0.0.1", **environment}
    prelude = (
        "from pathlib import Path\nfrom autolabel.models.pull import pull\nfrom autolabel.models.hub import locate\n"
        "from autolabel.protocols import ModelRef, Runtime\n"
    )
    return subprocess.run([sys.executable, "-c", prelude + code], env=env, capture_output=True, text=True, check=False)


def test_pull_fetches_what_is_needed_and_locks_it(tmp_path: Path):
    with serve("me/model", FILES) as endpoint:
        code = f"pull('grounding-dino:me/model', Path({str(tmp_path / 'out')!r}), print)"
        done = autolabel(code, tmp_path / "hf", endpoint)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "hf" / "hub").glob("models--me--model/snapshots/*")
    assert folder.name == COMMIT
    assert {p.name for p in folder.iterdir()} == set(FILES) - {"README.md"} | {LOCK_NAME}
    lock = json.loads((folder / LOCK_NAME).read_text())
    assert (lock["repository"], lock["revision"]) == ("me/model", COMMIT)
    assert lock["files"]["model.safetensors"]["sha256"] == hashlib.sha256(FILES["model.safetensors"]).hexdigest()
    copy = tmp_path / "out" / "detector"
    assert (copy / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert not (copy / "model.safetensors").is_symlink()
    # What was pulled is found again without any hub.
    again = autolabel(
        "found = locate(ModelRef('grounding-dino', 'me/model'), Runtime(offline=True)); print(found.revision)",
        tmp_path / "hf",
        "http://127.0.0.1:9",
    )
    assert again.stdout.strip() == COMMIT, again.stderr


def test_a_file_that_is_not_what_the_hub_states_is_refused(tmp_path: Path):
    with serve("me/model", FILES, {"model.safetensors": "ab" * 32}) as endpoint:
        done = autolabel("pull('grounding-dino:me/model')", tmp_path, endpoint)
    assert "the hub states abababab" in done.stderr
    assert not list(tmp_path.glob(f"**/{LOCK_NAME}"))


def test_an_unknown_repository_is_said_to_be_one(tmp_path: Path):
    with serve("me/model", FILES) as endpoint:
        done = autolabel("pull('grounding-dino:me/other')", tmp_path, endpoint)
    assert "the hub has no such repository" in done.stderr


def test_an_unreachable_hub_is_an_answer_and_no_wait(tmp_path: Path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)  # accepts, and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        # Timed inside the process: starting Python and importing take long on a busy machine.
        code = (
            "import time\nfrom autolabel.errors import ModelError\nbegun = time.monotonic()\n"
            "try: locate(ModelRef('sam2', 'facebook/sam2.1-hiera-tiny'), Runtime())\n"
            "except ModelError as error: print(time.monotonic() - begun, error)"
        )
        done = autolabel(code, tmp_path, address)
    seconds, _, message = done.stdout.partition(" ")
    assert float(seconds) < 30, done.stderr
    assert "does not answer. On a connected machine run: autolabel models pull tiny --to models" in message
    assert "--segmenter models/segmenter" in message


def test_offline_and_missing_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"autolabel models pull base --to models; .* --detector models/detector"):
        hub.locate(registry.resolve("detector", None, "base"), Runtime(offline=True))


def test_what_is_neither_file_nor_repository_is_refused():
    with pytest.raises(ModelError, match="is no file, no folder and no repository"):
        hub.locate(ModelRef("sam2", "/nowhere/at/all.pt"), Runtime(offline=True))


def test_a_folder_without_weights_names_what_it_lacks(tmp_path: Path):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        hub.locate(ModelRef("grounding-dino", str(tmp_path)), Runtime())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="has no weights: it holds none of model"):
        hub.locate(ModelRef("grounding-dino", str(tmp_path)), Runtime())


def test_a_lock_is_verified_when_weights_are_loaded(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    write_lock(tmp_path, "me/model", COMMIT, [path])
    assert weights_sha256([path]) == hashlib.sha256(b"weights").hexdigest()
    path.write_bytes(b"changed")
    with pytest.raises(ModelError, match="damaged or was replaced"):
        weights_sha256([path])


def test_weights_of_several_files_have_one_hash(tmp_path: Path):
    paths = [tmp_path / "b.safetensors", tmp_path / "a.safetensors"]
    for path in paths:
        path.write_bytes(path.name.encode())
    assert weights_sha256(paths) == weights_sha256(paths[::-1]) != weights_sha256(paths[:1])


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path):
    import torch

    path = tmp_path / "evil.pt"
    torch.save({"model": print}, path)
    with pytest.raises(ModelError, match="holds more than tensors, and reading it could run code"):
        read_state_dict(path)
    torch.save({"model": {"a": torch.ones(2)}}, path)
    assert list(read_state_dict(path)) == ["a"]
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="holds no table of named tensors"):
        read_state_dict(path)

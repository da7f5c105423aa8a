from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from autolabel.errors import ModelError
from autolabel.models import registry
from autolabel.models.sets import SETS, part_of
from autolabel.protocols import Runtime

EXAMPLE = Path(__file__).parent.parent / "plugin_example"


def install(folder: Path, entry_points: str, module: str | None = None, name: str = "corner-detector") -> None:
    """Lay a distribution out as an installer does, without one: nothing is fetched, nothing is built."""
    info = folder / f"{name.replace('-', '_')}-0.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text(entry_points)
    if module is not None:
        (folder / f"{name.replace('-', '_')}.py").write_text(module)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_the_built_in_backends_come_by_entry_points():
    assert registry.backend_names("detector")[:2] == ("grounding-dino", "groundingdino-py")
    assert all(backend.builtin and backend.version for backend in registry.backends())


def test_a_third_partys_ten_lines_are_listed_and_detect(site: Path):
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    ((group, points),) = project["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    install(site, "\n".join(lines), (EXAMPLE / "corner_detector.py").read_text())
    (own,) = [b for b in registry.backends("detector") if not b.builtin]
    assert (own.name, own.distribution, own.version) == ("corner", "corner-detector", "0.3")
    model = registry.load_detector("corner:anything", Runtime())
    (found,) = model.predict_batch([np.zeros((40, 60, 3), np.uint8)], ["dent", "rust"], 0.1)
    assert found.boxes_xyxy.tolist() == [[0, 0, 30, 20]]
    assert found.phrase_scores.shape == (1, 2)
    assert model.info.spec == "corner:anything"
    assert str(registry.resolve("detector", "corner")) == "corner"


def test_the_example_is_a_package_an_installer_takes(tmp_path: Path):
    pytest.importorskip("hatchling")
    shutil.copytree(EXAMPLE, tmp_path / "example")
    target = tmp_path / "target"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run(
        [*command, "--target", str(target), str(tmp_path / "example")], capture_output=True, text=True, check=False
    )
    if "No module named pip" in done.stderr:
        pytest.skip("pip is not installed here")
    assert done.returncode == 0, done.stderr
    assert (target / "corner_detector.py").is_file()


def test_a_plug_in_that_does_not_import_names_its_distribution(site: Path):
    install(site, "[autolabel.detectors]\nbroken = broken_plugin:load\n", "import no_such_module\n", "broken-plugin")
    with pytest.raises(ModelError, match=r"'broken' of broken-plugin 0\.3 failed to load .* No module named 'no_such"):
        registry.load("detector", "broken:x", Runtime())


def test_two_distributions_with_one_name_are_told_apart(site: Path):
    install(site, "[autolabel.detectors]\ntwice = one:load\n", "", "first")
    install(site, "[autolabel.detectors]\ntwice = two:load\n", "", "second")
    with pytest.raises(ModelError, match=r"offered by first 0\.3 and second 0\.3; uninstall one"):
        registry.load("detector", "twice:x", Runtime())


def test_a_plug_in_without_predict_batch_is_refused(site: Path):
    install(
        site, "[autolabel.detectors]\nempty = empty_plugin:load\n", "def load(ref, runtime): return 3\n", "empty-plugin"
    )
    with pytest.raises(ModelError, match="has no predict_batch"):
        registry.load("detector", "empty:x", Runtime())


def test_a_plug_in_that_skips_an_image_is_caught(site: Path):
    module = "class D:\n    def __init__(self, ref, runtime): pass\n    def predict_batch(self, *a): return []\n"
    install(site, "[autolabel.detectors]\nshort = short_plugin:D\n", module, "short-plugin")
    model = registry.load_detector("short:x", Runtime())
    with pytest.raises(ModelError, match="gave 0 answers for 1 images"):
        model.predict_batch([np.zeros((4, 4, 3), np.uint8)], ["dent"], 0.1)


def test_sets_and_specs_resolve_to_references():
    assert str(registry.resolve("detector")) == "grounding-dino:starter"
    assert str(registry.resolve("segmenter", None, "tiny")).startswith("sam2:facebook/sam2.1-hiera-tiny@")
    assert registry.resolve("classifier", "base").reference == "timm/ViT-B-16-SigLIP2"
    assert str(registry.resolve("detector", "grounding-dino:x/y?span=mean")) == "grounding-dino:x/y?span=mean"
    with pytest.raises(ModelError, match="no model set 'huge'; sets: starter, tiny, base, large"):
        registry.resolve("detector", None, "huge")


def test_every_model_of_a_set_is_pinned_to_a_commit():
    for each in SETS.values():
        for part in each.parts:
            assert part.ref.reference == "starter" or re.fullmatch("[0-9a-f]{40}", part.ref.revision)
            assert part.weights_sha256 is None or re.fullmatch("[0-9a-f]{64}", part.weights_sha256)
            assert part_of(part.ref) is part


def test_registry_and_specs_import_no_torch():
    code = (
        "import sys, autolabel, autolabel.models.registry, autolabel.models.specs, autolabel.models.hub, "
        "autolabel.models.pull, autolabel.models.catalogue, autolabel.models.doctor, autolabel.models.runtime\n"
        "assert not {'torch', 'transformers', 'sam2', 'open_clip'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

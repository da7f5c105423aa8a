"""What a clone and a wheel hold: pins for everything, no addresses, and the files that run without a network."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PIN = re.compile(r"^(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[0-9][A-Za-z0-9.+!]*)(?P<marker> ; .+)?$")


def pins(file: str = "constraints.txt") -> dict[str, list[re.Match[str]]]:
    found: dict[str, list[re.Match[str]]] = {}
    for line in (ROOT / file).read_text().splitlines():
        match = PIN.match(line)
        assert match, f"{file} must hold 'name==version' lines only, got: {line}"
        found.setdefault(match["name"], []).append(match)
    return found


def required() -> set[str]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"], *chain.from_iterable(extras)]
    return {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-") for requirement in wanted}


def test_every_requirement_is_pinned():
    assert required() - set(pins()) == set(), "run `make lock`"


@pytest.mark.parametrize("file", ["constraints.txt", "tools/label-studio.txt"])
def test_a_pin_is_single_or_told_apart_by_markers(file: str):
    for name, matches in pins(file).items():
        assert len(matches) == 1 or all(match["marker"] for match in matches), name


@pytest.mark.parametrize(
    "name",
    ["constraints.txt", "pyproject.toml", "Makefile", "tools/bootstrap.sh", "tools/label-studio.in"],
)
def test_no_address_of_an_index(name: str):
    text = (ROOT / name).read_text()
    assert not re.search(r"https?://|index-url\s*=|find-links\s*=", text)


def test_the_label_studio_of_the_tests_is_pinned():
    wanted = (ROOT / "tools" / "label-studio.in").read_text().split()
    assert wanted == [f"label-studio=={pins('tools/label-studio.txt')['label-studio'][0]['version']}"]


def test_setting_up_installs_every_extra_that_a_command_needs():
    script = (ROOT / "tools" / "bootstrap.sh").read_text()
    installed = re.search(r"extras=([a-z,-]+)", script)
    assert installed
    optional = set(PROJECT["project"]["optional-dependencies"])
    assert set(installed[1].split(",")) == optional - {"groundingdino"}  # a second detector backend, for parity tests


def test_only_one_package_writes_cv2():
    assert "opencv-python-headless" in pins()
    assert "opencv-python" not in pins()


def wheel_files() -> set[str]:
    builders = pytest.importorskip("hatchling.builders.wheel")
    return {file.distribution_path for file in builders.WheelBuilder(str(ROOT)).recurse_included_files()}


def test_wheel_holds_the_three_packages_their_types_templates_and_weights():
    files = wheel_files()
    assert {name.partition("/")[0] for name in files} == {"autolabel", "autolabel_connectors", "autolabel_pipelines"}
    for package in ("autolabel", "autolabel_connectors", "autolabel_pipelines"):
        assert f"{package}/py.typed" in files
    on_disk = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "autolabel").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert on_disk <= files
    assert any(name.startswith("autolabel/report/templates/") for name in files)
    assert any(name.startswith("autolabel/starter/") and name.endswith(".safetensors") for name in files)


def test_wheel_holds_nothing_else():
    for name in wheel_files():
        assert "__pycache__" not in name
        assert not name.endswith((".pyc", ".pt", ".pth"))


def test_entry_points_name_modules_that_exist():
    for group, names in PROJECT["project"]["entry-points"].items():
        for target in names.values():
            module = target.partition(":")[0]
            file = ROOT / (module.replace(".", "/") + ".py")
            assert group.startswith("autolabel.")
            assert file.is_file() or module.startswith("autolabel_"), target

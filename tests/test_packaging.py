"""What a clone and a wheel hold: pins for everything, no addresses, and the files that run without a network."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PIN = re.compile(r"^(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[0-9][A-Za-z0-9.+!]*)(?P<marker> ; .+)?$")

# Imported here, but only ever in the company of a package that is asked for and brings them.
BROUGHT_ALONG = {
    "bson": "fiftyone",
    "huggingface_hub": "transformers",
    "hydra": "sam2",
    "markupsafe": "jinja2",
    "omegaconf": "sam2",
    "pymongo": "fiftyone",
    "urllib3": "cvat-sdk",
}


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


def imported() -> dict[str, str]:
    """Top-level name of everything the packages import, anywhere, and a file that does."""
    found: dict[str, str] = {}
    for file in chain.from_iterable((ROOT / root).rglob("*.py") for root in ("autolabel", "connectors", "pipelines")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            else:
                continue
            found.update((name.partition(".")[0], file.relative_to(ROOT).as_posix()) for name in names)
    return {name: file for name, file in found.items() if name not in sys.stdlib_module_names}


def test_everything_imported_is_asked_for():
    requirements = chain(PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values())
    asked_for = {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() for requirement in requirements}
    installed = packages_distributions()
    unasked = {}
    for name, file in imported().items():
        packages = {BROUGHT_ALONG[name]} if name in BROUGHT_ALONG else set(installed.get(name, [name]))
        packages = {package.lower().replace("_", "-") for package in packages}
        if not name.startswith("autolabel") and not packages & asked_for:
            unasked[name] = file
    assert unasked == {}, "name its package in pyproject.toml, then `make lock`"


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

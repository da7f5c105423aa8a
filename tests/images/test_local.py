"""Inputs to files: everything is found once, in a stable order, under a name that tells no secret."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolabel.errors import ImageError, UsageError
from autolabel.images import list_sources, read_bytes
from autolabel.images.found import natural
from tests.images.pictures import paths, picture


def test_no_inputs():
    with pytest.raises(UsageError, match="no input given"):
        list_sources([])
    with pytest.raises(UsageError, match="an input is empty"):
        list_sources([" "])


def test_empty_folder_names_the_input_and_the_remedy(tmp_path: Path):
    with pytest.raises(
        UsageError, match=r"holds no image: looked for .*\.jpg.*name files of another extension outright"
    ):
        list_sources([str(tmp_path)])


@pytest.mark.parametrize(
    "text", ["nowhere", "nowhere/a.jpg", "/nowhere/at/all", "memory://nowhere", "memory://no/a.jpg"]
)
def test_missing_input(text: str):
    with pytest.raises(UsageError, match=f"input '{text}' does not exist: name an image file"):
        list_sources([text])


@pytest.mark.parametrize("text", ["nothing*.jpg", "**/nothing.jpg", "memory://nothing/*.png"])
def test_glob_without_a_match(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="holds no image"):
        list_sources([text])


def test_one_bad_input_among_good_ones_is_an_error(tree: Path):
    with pytest.raises(UsageError, match="'nowhere'"):
        list_sources(["a", "nowhere"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder(tmp_path: Path):
    (tmp_path / "in").mkdir(mode=0)
    with pytest.raises(UsageError, match="Permission denied"):
        list_sources([str(tmp_path)])


def test_folder_is_searched_in_natural_order(tree: Path):
    assert paths("a") == ["deep/er/x.tiff", "img2.JPG", "img10.jpg"]
    assert paths(tree / "a") == paths("a/") == paths("./b/../a") == paths("a")


def test_broken_files_are_listed(tree: Path):
    assert "broken.png" in paths("b")


def test_equal_names_in_two_folders_stay_apart(tree: Path):
    assert paths("a", "b") == ["a/deep/er/x.tiff", "a/img2.JPG", "a/img10.jpg", "b/broken.png", "b/img2.JPG"]


def test_order_is_that_of_the_inputs(tree: Path):
    assert paths("b", "a")[:2] == ["b/broken.png", "b/img2.JPG"]


def test_a_file_reached_twice_is_listed_once(tree: Path):
    assert paths("a", "a/img2.JPG", "a/*.jpg", tree / "a") == ["deep/er/x.tiff", "img2.JPG", "img10.jpg"]


def test_files_are_named_from_the_current_folder(tree: Path):
    assert paths("a/img2.JPG") == ["a/img2.JPG"]
    assert paths("a/img2.JPG", "b/img2.JPG") == ["a/img2.JPG", "b/img2.JPG"]


def test_files_elsewhere_are_named_from_what_they_share(
    tree: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch
):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert paths(tree / "a/img2.JPG") == ["img2.JPG"]
    assert paths(tree / "a/img2.JPG", tree / "b/img2.JPG") == ["a/img2.JPG", "b/img2.JPG"]


def test_unknown_extension_is_taken_when_named(tree: Path):
    assert paths("a/notes.md") == ["a/notes.md"]
    assert paths("a/*.md") == ["notes.md"]


def test_hidden_and_run_folders_can_be_asked_for(tree: Path):
    assert paths("a/runs") == ["demo/z.png"]
    assert paths("a/.cache") == ["y.png"]
    assert paths("a/runs/**/*.png") == ["z.png"] or paths("a/runs/**/*.png") == ["demo/z.png"]


def test_globs(tree: Path):
    assert paths("a/*.jpg") == ["img10.jpg"]
    assert paths("a/*") == ["deep/er/x.tiff", "img2.JPG", "img10.jpg"]
    assert paths("**/*.JPG") == ["a/img2.JPG", "b/img2.JPG"]
    assert paths("a/img?.JPG") == ["img2.JPG"]
    assert paths("[ab]/img2.JPG") == ["a/img2.JPG", "b/img2.JPG"]
    assert paths("**/*.png") == ["b/broken.png"]


def test_a_file_whose_name_looks_like_a_glob(tree: Path):
    (tree / "a" / "x[1].png").write_bytes(picture())
    assert paths("a/x[1].png") == ["a/x[1].png"]


def test_links_are_followed_once(tree: Path):
    (tree / "a" / "again").symlink_to(tree / "a")
    (tree / "a" / "other").symlink_to(tree / "b")
    (tree / "a" / "alias.png").symlink_to(tree / "b" / "img2.JPG")
    (tree / "a" / "dangling.png").symlink_to(tree / "nowhere.png")
    found = paths("a")
    assert found == ["alias.png", "dangling.png", "deep/er/x.tiff", "img2.JPG", "img10.jpg", "other/broken.png"]
    dangling = next(source for source in list_sources(["a"]) if source.path == "dangling.png")
    with pytest.raises(ImageError, match=r"cannot read 'dangling\.png': No such file"):
        read_bytes(dangling)


def test_odd_names(tree: Path):
    for name in ("kratzer_größe_测试.png", "with space.png", "per%20cent.png", "new\nline.png", "a@b.png", "é.png"):
        (tree / "b" / name).write_bytes(picture())
    (tree / "b" / os.fsdecode(b"latin\xe9.png")).write_bytes(picture())
    found = list_sources(["b"])
    for source in found:
        assert source.path.encode("utf-8").decode().isprintable()
        read_bytes(source)
    assert {"kratzer_größe_测试.png", "with space.png", "per%20cent.png", "a@b.png"} <= {
        source.path for source in found
    }


def test_fingerprint_changes_with_the_file(tree: Path):
    before = list_sources(["a"])
    assert before == list_sources(["a"])
    (tree / "a" / "img2.JPG").write_bytes(picture() + b"more")
    after = list_sources(["a"])
    assert [x.path for x, y in zip(before, after, strict=True) if x.fingerprint != y.fingerprint] == ["img2.JPG"]


def test_paths_do_not_change_when_files_are_added(tree: Path):
    before = set(paths("a", "b"))
    (tree / "b" / "deep").mkdir()
    (tree / "b" / "deep" / "new.png").write_bytes(picture())
    assert before < set(paths("a", "b"))


def test_sources_travel_to_other_processes(tree: Path):
    for source in list_sources(["a"]):
        assert pickle.loads(pickle.dumps(source)) == source
        assert read_bytes(source) == picture()


def test_home_and_file_uris(tree: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tree))
    assert paths("~/a/img2.JPG") == ["a/img2.JPG"]
    assert paths(f"file://{tree}/a/img2.JPG") == ["a/img2.JPG"]


def test_file_that_went_away(tree: Path):
    source = list_sources(["a/img2.JPG"])[0]
    (tree / "a" / "img2.JPG").unlink()
    with pytest.raises(ImageError, match=r"cannot read 'a/img2\.JPG': No such file or directory; check"):
        read_bytes(source)


@given(st.lists(st.text(alphabet="ab019._- ", min_size=1, max_size=8), max_size=12))
def test_natural_order_is_total_and_puts_numbers_by_value(names: list[str]):
    assert sorted(sorted(names, reverse=True), key=natural) == sorted(names, key=natural)
    assert sorted(["i10", "i9", "i1"], key=natural) == ["i1", "i9", "i10"]

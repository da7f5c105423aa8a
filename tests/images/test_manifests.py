"""Lists of images: every entry is kept, also one that is missing."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from autolabel.errors import ImageError, UsageError
from autolabel.images import MISSING, list_sources, read_bytes
from autolabel.images.manifests import read_entries
from tests.images.pictures import paths, picture


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.txt", "# a comment\n\na/img2.JPG\r\nb/img2.JPG\na/img2.JPG\n"),
        ("m.csv", "id,Path\n1,a/img2.JPG\n2,b/img2.JPG\n"),
        ("m.csv", "file_name;score\na/img2.JPG;1\nb/img2.JPG;2\n"),
        ("m.csv", 'note,url\n"x, y",a/img2.JPG\n,b/img2.JPG\n'),
        ("m.jsonl", '{"image": "a/img2.JPG"}\n\n{"uri": "b/img2.JPG", "x": 1}\n'),
        ("m.jsonl", '"a/img2.JPG"\n"b/img2.JPG"'),
        ("M.TXT", "\ufeffa/img2.JPG\nb/img2.JPG"),
    ],
)
def test_manifests(tree: Path, name: str, text: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch):
    (tree / name).write_text(text, encoding="utf-8")
    assert paths(name) == ["a/img2.JPG", "b/img2.JPG"]
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert paths(tree / name) == ["a/img2.JPG", "b/img2.JPG"]


def test_manifest_may_name_anything(tree: Path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/far.jpg", picture())
    lists = tree / "lists"
    lists.mkdir()
    lines = ["../a/img2.JPG", str(tree / "b/img2.JPG"), "memory://bucket/far.jpg", "../a/notes.md"]
    (lists / "m.txt").write_text("\n".join(lines))
    assert paths("lists/m.txt") == ["a/img2.JPG", "b/img2.JPG", "memory/bucket/far.jpg", "a/notes.md"]


def test_missing_entries_are_kept_for_the_failure_ledger(tree: Path):
    (tree / "m.txt").write_text("a/img2.JPG\nnowhere.jpg\na\nmemory://gone/x.jpg")
    found = {source.path: source for source in list_sources(["m.txt"])}
    assert [source.fingerprint == MISSING for source in found.values()] == [False, True, True, True]
    for path in ("nowhere.jpg", "a", "memory/gone/x.jpg"):
        with pytest.raises(ImageError, match=f"cannot read '{path}'"):
            read_bytes(found[path])


def test_manifest_whose_entries_are_all_missing(tree: Path):
    (tree / "m.txt").write_text("x.jpg\ny.jpg")
    with pytest.raises(UsageError, match=r"names 2 files, and none of them exists .*relative to the manifest"):
        list_sources(["m.txt"])


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("m.txt", b"", "names no image"),
        ("m.txt", b"# only a comment\n", "names no image"),
        ("m.txt", b"\xff\xfe\x00a", "must be UTF-8"),
        ("m.csv", b"", "none of"),
        ("m.csv", b"id,picture\n1,a.jpg\n", r"columns \['id', 'picture'\], but none of"),
        ("m.csv", b"path\n", "names no image"),
        ("m.jsonl", b'{"path": "a.jpg"}\n{oops', "line 2 is not JSON"),
        ("m.jsonl", b'{"name": "a.jpg"}', "line 1: expected a text under one of"),
        ("m.jsonl", b"[1]", "line 1: expected"),
    ],
)
def test_bad_manifests(name: str, data: bytes, why: str):
    with pytest.raises(UsageError, match=why):
        read_entries(data, name)

"""Inputs to files: everything is found once, in a stable order, under a name that tells no secret."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from autolabel.errors import ImageError, UsageError
from autolabel.images import MISSING, Source, list_sources, local, read_bytes, redact, uris
from autolabel.images.found import natural
from autolabel.images.manifests import read_entries


def picture(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(buffer, "PNG")
    return buffer.getvalue()


def paths(*inputs: object) -> list[str]:
    return [source.path for source in list_sources([str(text) for text in inputs])]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders with equal names inside, and what a search must leave out."""
    root = tmp_path / "data"
    for name in (
        "a/img10.jpg",
        "a/img2.JPG",
        "a/deep/er/x.tiff",
        "a/notes.md",
        "a/.hidden.png",
        "a/.cache/y.png",
        "a/runs/demo/z.png",
        "b/img2.JPG",
        "b/broken.png",
    ):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"" if "broken" in name else picture())
    monkeypatch.chdir(root)
    return root


# --- nothing ---------------------------------------------------------------------------------------------------------


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


# --- folders, files and globs ----------------------------------------------------------------------------------------


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


# --- manifests -------------------------------------------------------------------------------------------------------


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


# --- elsewhere -------------------------------------------------------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    for name in (
        "a/img10.jpg",
        "a/img2.jpg",
        "a/deep/x.png",
        "a/notes.txt",
        "a/.hid.png",
        "a/runs/z.png",
        "b/img2.jpg",
    ):
        system.pipe(f"/bucket/{name}", picture())
    yield system
    system.store.clear()


def test_memory_folders_files_and_globs(memory: fsspec.AbstractFileSystem):
    assert paths("memory://bucket/a") == ["deep/x.png", "img2.jpg", "img10.jpg"]
    assert paths("memory://bucket/a/") == paths("memory://bucket/a")
    assert paths("memory://bucket/a", "memory://bucket/b")[-1] == "b/img2.jpg"
    assert paths("memory://bucket/a/img2.jpg") == ["img2.jpg"]
    assert paths("memory://bucket/**/img2.jpg") == ["a/img2.jpg", "b/img2.jpg"]
    assert paths("memory://bucket/a/*.jpg") == ["img2.jpg", "img10.jpg"]
    for source in list_sources(["memory://bucket/a"]):
        assert read_bytes(source) == picture()
        assert source.fingerprint


def test_a_new_listing_sees_a_changed_file(memory: fsspec.AbstractFileSystem):
    before = list_sources(["memory://bucket/b"])
    assert before == list_sources(["memory://bucket/b"])
    memory.pipe("/bucket/b/img2.jpg", picture("blue") + b"0")
    assert list_sources(["memory://bucket/b"])[0].fingerprint != before[0].fingerprint


def test_remote_manifest(memory: fsspec.AbstractFileSystem):
    memory.pipe("/bucket/list.jsonl", json.dumps({"path": "a/img2.jpg"}).encode())
    assert paths("memory://bucket/list.jsonl") == ["a/img2.jpg"]


def test_local_and_remote_together(memory: fsspec.AbstractFileSystem, tree: Path):
    assert paths("memory://bucket/b", "b") == ["memory/bucket/b/img2.jpg", "broken.png", "img2.JPG"]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    file = tmp_path / "pictures.zip"
    with zipfile.ZipFile(file, "w") as members:
        for name in ("in/img10.jpg", "in/img2.jpg", "photo@2x.png", "in/readme.md", "__MACOSX/._x.jpg"):
            members.writestr(name, picture())
        members.writestr("../evil.png", picture())
    return file


def test_zip(archive: Path, monkeypatch: pytest.MonkeyPatch):
    everything = ["__/evil.png", "in/img2.jpg", "in/img10.jpg", "photo@2x.png"]
    assert paths(archive) == everything
    assert paths(f"zip://::{archive}") == everything
    assert paths(f"zip://in/*.jpg::{archive}") == ["img2.jpg", "img10.jpg"]
    assert paths(f"zip://in/img2.jpg::{archive}") == ["img2.jpg"]
    monkeypatch.chdir(archive.parent)
    assert paths("zip://in::pictures.zip") == ["img2.jpg", "img10.jpg"]
    with pytest.raises(UsageError, match="does not exist"):
        list_sources(["zip://in::nowhere.zip"])


def test_zip_members_are_read_by_threads(archive: Path):
    sources = list_sources([str(archive)]) * 20
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read_bytes, sources)) == {picture()}


def test_replaced_zip_is_seen_by_a_new_listing(archive: Path):
    read_bytes(list_sources([str(archive)])[0])
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("new.png", picture("blue"))
    (source,) = list_sources([str(archive)])
    assert (source.path, read_bytes(source)) == ("new.png", picture("blue"))


def test_damaged_zip(tmp_path: Path):
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(UsageError, match="cannot be listed: BadZipFile"):
        list_sources([str(tmp_path / "x.zip")])


class Handler(SimpleHTTPRequestHandler):
    """Static files; those under /private need a password, those under /flaky fail the first time."""

    seen: set[str]

    def send_head(self):
        path = self.path.partition("?")[0]
        wanted = "Basic " + base64.b64encode(b"ann:s3cr3t").decode()
        if path.startswith("/private") and self.headers.get("Authorization") != wanted:
            self.send_error(403)
            return None
        if path.startswith("/flaky") and self.command == "GET" and path not in self.seen:
            self.seen.add(path)
            self.send_error(503)
            return None
        return super().send_head()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("www")
    for name in ("shop/img10.jpg", "shop/img2.jpg", "shop/deep/x y.png", "private/p.png", "flaky/f.png", "no_suffix"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture())
    handler = type("FreshHandler", (Handler,), {"seen": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(root))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


def test_web_file(server: str):
    (source,) = list_sources([f"http://{server}/shop/img2.jpg"])
    assert source.path == "img2.jpg"
    assert source.fingerprint not in ("", MISSING)
    assert read_bytes(source) == picture()
    assert paths(f"http://{server}/no_suffix") == ["no_suffix"]


def test_web_folder(server: str):
    found = list_sources([f"http://{server}/shop/"])
    assert [source.path for source in found] == ["deep/x y.png", "img2.jpg", "img10.jpg"]
    for source in found:
        assert source.fingerprint not in ("", MISSING)
        assert read_bytes(source) == picture()


def test_web_manifest(server: str, tmp_path: Path):
    (tmp_path / "m.csv").write_text(f"url\nhttp://{server}/shop/img2.jpg\nhttp://{server}/gone.jpg\n")
    found = list_sources([str(tmp_path / "m.csv")])
    assert [source.path for source in found] == [f"http/{server}/shop/img2.jpg", f"http/{server}/gone.jpg"] or [
        source.path for source in found
    ] == ["shop/img2.jpg", "gone.jpg"]
    assert [source.fingerprint == MISSING for source in found] == [False, True]
    with pytest.raises(ImageError, match="not found"):
        read_bytes(found[1])


def test_web_hiccup_is_tried_again(server: str):
    (source,) = list_sources([f"http://{server}/flaky/f.png"])
    assert read_bytes(source) == picture()


def test_missing_web_file(server: str):
    with pytest.raises(UsageError, match=f"input 'http://{server}/shop/none.jpg'"):
        list_sources([f"http://{server}/shop/none.jpg?X-Amz-Signature=s3cr3t"])


def test_password_opens_and_stays_secret(server: str, caplog: pytest.LogCaptureFixture):
    (source,) = list_sources([f"http://ann:s3cr3t@{server}/private/p.png"])
    assert read_bytes(source) == picture()
    assert source.path == "p.png"
    for text in (repr(source), str(source), caplog.text):
        assert "s3cr3t" not in text
        assert "ann" not in text


def test_the_same_file_signed_twice_is_one_source(server: str):
    url = f"http://{server}/shop/img2.jpg"
    inputs = [f"{url}?X-Amz-Signature=abc&X-Amz-Expires=60", f"{url}?X-Amz-Signature=def", url]
    assert paths(*inputs) == ["img2.jpg"]


def test_a_query_that_chooses_the_picture_makes_another_source(server: str):
    url = f"http://{server}/no_suffix"
    found = paths(f"{url}?id=1", f"{url}?id=2&sig=s3cr3t", f"{url}?sig=other&id=2")
    assert len(found) == len(set(found)) == 2
    assert not any("s3cr3t" in path or "id=" in path for path in found)


@pytest.mark.parametrize(
    "uri",
    [
        "http://ann:s3cr3t@127.0.0.1:9/a.jpg",
        "http://127.0.0.1:9/a.jpg?X-Amz-Signature=s3cr3t&X-Amz-Credential=s3cr3t",
        "http://127.0.0.1:9/a.jpg?token=s3cr3t",
        "zip://a.jpg::http://ann:s3cr3t@127.0.0.1:9/x.zip",
        "nonsense://ann:s3cr3t@host/a.jpg",
        "http://ann:it's(s3cr3t)@127.0.0.1:9/a.jpg?sig='s3cr3t'",
        "http://ann:s3cr3t@127.0.0.1:9/m.csv?sig=s3cr3t",
        "ftp://ann:s3cr3t@127.0.0.1:9/a.jpg",
    ],
)
def test_errors_tell_no_secrets(uri: str):
    with pytest.raises(UsageError) as caught:
        list_sources([uri])
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None or "s3cr3t" not in str(caught.value.__cause__)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    with pytest.raises(ImageError) as failed:
        read_bytes(Source("a.jpg", uri))
    assert "s3cr3t" not in str(failed.value) + repr(failed.value.__cause__)
    assert str(failed.value).startswith("cannot read 'a.jpg': ")


def test_redact():
    assert redact("get https://me:pw@host/a.jpg?sig=1#f failed") == "get https://host/a.jpg failed"
    assert redact("url='s3://key:secret@bucket/k'") == "url='s3://bucket/k'"
    assert redact("zip://a.jpg::http://me:pw@h/x.zip") == "zip://a.jpg::http://h/x.zip"
    assert redact("url='https://me:p'w@h/x.zip'") == "url='https://h/x.zip'"
    assert redact("plain a@b text") == "plain a@b text"


def test_unknown_protocol():
    with pytest.raises(UsageError, match="nonsense:// is not a known protocol"):
        list_sources(["nonsense://bucket/a.jpg"])


@pytest.mark.parametrize("uri", ["s3://bucket/a.jpg", "gs://bucket/folder/", "https://host/a.jpg"])
def test_missing_driver_names_the_extra(uri: str, monkeypatch: pytest.MonkeyPatch):
    def fail(protocol: str) -> None:
        raise ImportError(f"no driver for {protocol}")

    monkeypatch.setattr("fsspec.core.get_filesystem_class", fail)
    with pytest.raises(UsageError, match=r'pip install "autolabel-vision\[cloud\]"'):
        list_sources([uri])


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "stripped", "name", "expected"),
    [
        ("s3://bucket/a", "bucket/a", "bucket/a/x.jpg", "s3://bucket/a/x.jpg"),
        ("memory://d", "/d", "/d/x.jpg", "memory://d/x.jpg"),
        ("sftp://u:p@host/data", "/data", "/data/x.jpg", "sftp://u:p@host/data/x.jpg"),
        ("zip://in::/d/x.zip", "in", "in/a.jpg", "zip://in/a.jpg::/d/x.zip"),
        ("simplecache::s3://b/k", "b/k", "b/k/a.jpg", "simplecache::s3://b/k/a.jpg"),
        ("https://h/d/", "https://h/d/", "https://h/d/a.jpg", "https://h/d/a.jpg"),
        ("abfs://c@acc.dfs/x", "c/x", "c/x/a.jpg", "abfs://c@acc.dfs/x/a.jpg"),
    ],
)
def test_names_become_uris_again(pattern: str, stripped: str, name: str, expected: str):
    assert uris.rebuild(pattern, stripped, name) == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://key:secret@bucket/a/b.jpg", ("s3", "bucket", "a", "b.jpg")),
        ("https://u:p@h/a%20b.jpg?X-Amz-Date=1", ("https", "h", "a b.jpg")),
        ("https://h/%2e%2e/%2e%2e/etc/x.jpg", ("https", "h", "__", "__", "etc", "x.jpg")),
        ("zip://a/b.png::/data/x.zip", ("/", "data", "x.zip", "a", "b.png")),
        ("zip://a@2x.png::s3://b/x.zip", ("s3", "b", "x.zip", "a@2x.png")),
        ("file:///data/../x.png", ("/", "data", "__", "x.png")),
        ("/data/../x.png", ("/", "x.png")),
    ],
)
def test_parts(uri: str, expected: tuple[str, ...]):
    assert uris.parts(uri) == expected


def test_absolute_keeps_links(tmp_path: Path):
    (tmp_path / "link").symlink_to("/usr")
    assert local.absolute(str(tmp_path / "link" / "x")) == tmp_path / "link" / "x"

"""Images in archives, on the web and in stores: found, read again after a hiccup, and no secret told."""

from __future__ import annotations

import base64
import json
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from autolabel.errors import ImageError, UsageError
from autolabel.images import MISSING, Source, list_sources, read_bytes, redact
from tests.images.pictures import paths, picture


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

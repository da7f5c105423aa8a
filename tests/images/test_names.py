"""Addresses and names."""

from __future__ import annotations

from pathlib import Path

import pytest

from autolabel.images import local, uris


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

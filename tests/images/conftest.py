"""A folder to search."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.images.pictures import picture


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

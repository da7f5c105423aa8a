"""The bundled models through every engine and batch size: the same labels, to the bit where nothing is rounded."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import autolabel
from autolabel import parquet

SAMPLES = Path(__file__).parents[2] / "sample_data" / "images"
PROMPT = "scratch. dent. crack. rust. hole. stain."
# Several sizes, two pictures without defects, and more than one portion.
NAMES = (
    "brushed_metal_02.jpg",
    "brushed_metal_03.jpg",
    "cast_03.jpg",
    "painted_03.png",
    "painted_04.jpg",
    "sandblasted_01.jpg",
    "sandblasted_02.jpg",
    "wood_03.png",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name in NAMES:
        shutil.copy(SAMPLES / name, folder)
    return folder


def label(images: Path, path: Path, **settings: object) -> autolabel.Run:
    return autolabel.run(images, prompt=PROMPT, path=path, device="cpu", offline=True, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reference(images: Path, tmp_path_factory: pytest.TempPathFactory) -> autolabel.Run:
    """One image after another, one step after another."""
    return label(images, tmp_path_factory.mktemp("reference") / "run", engine="sequential", batch_size=1)


@pytest.mark.parametrize(
    "settings",
    [{"engine": "auto"}, {"engine": "auto", "batch_size": 3}, {"engine": "sequential", "batch_size": 16}],
    ids=str,
)
def test_labels_hang_on_no_engine_and_no_batch(
    images: Path, reference: autolabel.Run, tmp_path: Path, settings: dict[str, object]
) -> None:
    run = label(images, tmp_path / "run", **settings)
    assert run.manifest.counts == reference.manifest.counts
    assert run.manifest.rejects == reference.manifest.rejects
    for mine, theirs in zip(run, reference, strict=True):
        assert mine.image == theirs.image
        for a, b in zip(mine.annotations, theirs.annotations, strict=True):
            assert a.label == b.label
            np.testing.assert_allclose(a.box.xyxy, b.box.xyxy, atol=0.05)
            np.testing.assert_allclose([a.score, *a.phrase_scores], [b.score, *b.phrase_scores], atol=1e-4)
            np.testing.assert_allclose(a.class_probs, b.class_probs, atol=1e-3)
            np.testing.assert_allclose(a.mask_score, b.mask_score, atol=1e-3)
            one, other = a.mask.decode(), b.mask.decode()
            assert (one & other).sum() >= 0.995 * (one | other).sum()


def test_the_same_portions_give_the_same_bits(images: Path, tmp_path: Path) -> None:
    """Four images go from stage to stage together, here and there: threads alone must change nothing at all."""
    runs = [label(images, tmp_path / engine, engine=engine, batch_size=4) for engine in ("sequential", "auto")]
    one, other = (
        {
            # As text: an empty mask has a box of nan, which equals nothing.
            str(path.relative_to(run.path)): [repr(row) for row in parquet.read_rows(path)]
            for path in sorted(run.path.rglob("*.parquet"))
        }
        for run in runs
    )
    assert len(one) == 2 * 5
    assert one == other

"""The bundled weights load as their packages load any, and find what they were trained for on unseen seeds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.labelled import saved
from training import train_segmenter
from training.evaluate_models import STARTER, classifier_report, load_detector, load_segmenter
from training.generator import PUBLISHED, generate
from training.metrics import evaluate
from training.natural import Labelled
from training.seeds import TEST
from training.train_detector import detect


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Labelled]:
    folder: Path = tmp_path_factory.mktemp("pictures")
    return [saved(folder, generate(TEST.stop - 1 - i, (480, 360), defects=3, edition=PUBLISHED)) for i in range(16)]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_detector_finds_defects_and_ignores_unknown_words(pictures: list[Labelled]) -> None:
    model, processor = load_detector(STARTER / "detector")
    parts = (model, processor.image_processor, processor.tokenizer)
    found = [detect(*parts, picture.path, PUBLISHED.classes) for picture in pictures]
    report = evaluate(found, [(p.boxes, p.labels) for p in pictures], PUBLISHED.classes)
    assert report.mean_ap50 > 0.35, report
    unknown = [detect(*parts, picture.path, ("car", "bottle")).scores.max() for picture in pictures[:6]]
    assert np.median(unknown) < 0.3


def test_segmenter_beats_filling_the_box(pictures: list[Labelled]) -> None:
    report = train_segmenter.measure(load_segmenter(STARTER / "segmenter"), pictures, PUBLISHED.classes)
    assert report["miou"]["mean"] > report["box_fill"]["mean"] + 0.08, report


def test_classifier_names_ground_truth_crops(pictures: list[Labelled]) -> None:
    report = classifier_report(pictures)
    assert report["top1"] > 0.8, report
    assert report["top1_synonyms"] > 0.7, report


def test_folders_are_small() -> None:
    sizes = [path.stat().st_size for path in STARTER.rglob("*") if path.is_file()]
    assert sum(sizes) < 40e6
    assert max(sizes) < 18e6

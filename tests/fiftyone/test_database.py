"""The fixtures themselves: the database that other tests rely on is real, empty and nobody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from PIL import Image


@pytest.mark.parametrize("turn", ["first", "second"])
def test_every_test_starts_with_an_empty_database(fiftyone, turn: str):
    assert fiftyone.list_datasets() == []
    dataset = fiftyone.Dataset(turn, persistent=True)
    assert fiftyone.list_datasets() == [dataset.name]


def test_samples_with_boxes_and_masks_come_back(fiftyone, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    dataset = fiftyone.Dataset("boxes")
    box = fiftyone.Detection(label="scratch", bounding_box=[0.1, 0.2, 0.5, 0.5], confidence=0.5)
    dataset.add_sample(fiftyone.Sample(filepath=str(tmp_path / "a.png"), found=fiftyone.Detections(detections=[box])))
    ((stored,),) = fiftyone.load_dataset("boxes").values("found.detections.bounding_box")
    assert stored == [0.1, 0.2, 0.5, 0.5]


def test_another_process_sees_the_same_database(fiftyone, mongodb):
    fiftyone.Dataset("shared", persistent=True)
    told = subprocess.run(
        [sys.executable, "-c", "import json, fiftyone; print(json.dumps(fiftyone.list_datasets()))"],
        env={**os.environ, **mongodb.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(told.stdout.splitlines()[-1]) == ["shared"]


def test_nothing_of_the_users_own_is_touched(fiftyone, mongodb):
    folders = [fiftyone.config.database_dir, fiftyone.config.default_dataset_dir, fiftyone.config.plugins_dir]
    assert all(folder.startswith(str(mongodb.folder)) for folder in folders)
    assert fiftyone.config.database_uri == mongodb.uri

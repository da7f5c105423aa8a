"""The dataset of a run in FiftyOne's database: found again, made, its fields described."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from autolabel.errors import StoreError
from autolabel.manifest import write_atomically
from autolabel_connectors.fiftyone import fields
from autolabel_connectors.fiftyone.subjects import FOLDER

if TYPE_CHECKING:
    from autolabel.dataset import Run

_INFO = "autolabel"


@dataclass(frozen=True, slots=True)
class Tie:
    """What ties a run folder to its dataset: a token that both hold, and the dataset's name."""

    token: str
    dataset: str

    @classmethod
    def read(cls, run: Path) -> Tie | None:
        """Read the tie that a run folder holds; None when it was never reviewed."""
        path = run / FOLDER / "fiftyone.json"
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text("utf-8"))
            return cls(str(values["token"]), str(values["dataset"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path} is damaged ({error}); remove it, and the dataset is made anew") from None

    def write(self, run: Path) -> None:
        """Keep the tie in the run folder."""
        (run / FOLDER).mkdir(exist_ok=True)
        text = json.dumps({"token": self.token, "dataset": self.dataset}, indent=2) + "\n"
        write_atomically(run / FOLDER / "fiftyone.json", text.encode())


def find(fo: ModuleType, run: Run) -> Any | None:
    """Return the run's dataset, or None when there is none.

    A copied run folder holds the tie of the one it was copied from; where that one is still there, the dataset is its.
    """
    tie = Tie.read(run.path)
    if tie is None:
        return None
    for name in (tie.dataset, *fo.list_datasets(info={f"{_INFO}.token": tie.token})):
        if not fo.dataset_exists(name):
            continue
        dataset = fo.load_dataset(name)
        noted = notes(dataset)
        if noted.get("token") != tie.token:
            continue
        elsewhere = Path(noted.get("run", ""))
        if elsewhere != run.path.resolve() and Tie.read(elsewhere) == tie:
            return None
        return dataset
    return None


def make(fo: ModuleType, run: Run) -> Any:
    """Make the run's dataset, empty: named after the run, kept when the session ends."""
    token = uuid.uuid4().hex
    # Another run of that name may have the first; FiftyOne refuses names without a letter or digit it knows.
    for name in (run.name, f"{run.name}-{token[:6]}", f"autolabel-{token}"):
        try:
            dataset = fo.Dataset(name, persistent=True)
            break
        except ValueError:
            continue
    else:
        raise StoreError(f"FiftyOne takes no dataset named after {run.name!r}; rename the run folder")
    tie = Tie(token, dataset.name)
    dataset.media_type = "image"
    put_notes(dataset, token=token, run=str(run.path.resolve()))
    tie.write(run.path)
    return dataset


def notes(dataset: Any) -> dict[str, Any]:
    """Return what was noted about a dataset: its run, token and fingerprint."""
    return dict(dataset.info.get(_INFO) or {})


def put_notes(dataset: Any, **values: Any) -> None:
    """Note something about a dataset."""
    dataset.info = {**dataset.info, _INFO: {**notes(dataset), **values}}
    dataset.save()


def declare(fo: ModuleType, dataset: Any) -> None:
    """Declare all fields by a sample that has each of them, which is then taken out again."""
    attributes = {
        name: {"disagree": False, "flagged": False, "issues": ["x"], "related": ["x"]}.get(name, "x")
        for name in fields.ATTRIBUTES
    }
    attributes |= dict.fromkeys(("detector_score", "classifier_prob", "uncertainty", "mask_score", "quality"), 0.5)
    region = fo.Detection(
        label="x", bounding_box=[0, 0, 1, 1], mask=np.ones((1, 1), np.bool_), confidence=0.5, **attributes
    )
    doubt = ("kind", "quality", "flagged", "reason", "related", "annotation_id", "suggested_label")
    on_doubt = {name: attributes[name] for name in doubt}
    prototype = fo.Sample(
        filepath="/nowhere.png",
        metadata=fo.ImageMetadata(width=1, height=1),
        **{
            "path": "x",
            "image_id": "x",
            "review": "x",
            "reviewed_by": "x",
            fields.ANNOTATIONS: fo.Detections(detections=[region]),
            fields.DOUBTS: fo.Detections(
                detections=[fo.Detection(label="x", bounding_box=[0, 0, 1, 1], confidence=0.5, **on_doubt)]
            ),
            fields.IMAGE_ISSUES: fo.Classifications(
                classifications=[fo.Classification(label="x", confidence=0.5, **on_doubt)]
            ),
            "annotation_count": 1,
            "human_count": 1,
            "flagged_count": 1,
            "worst_quality": 0.5,
            "issue_kinds": ["x"],
            "uncertainty": 0.5,
            "disagreements": 1,
            "duplicate_group": "x",
            fields.SHOWN: {"digest": "x"},
        },
    )
    dataset.add_sample(prototype, dynamic=True)
    dataset.delete_samples([prototype.id])
    described = {field.name: field for field in dataset._doc.sample_fields}
    for name, text in fields.SAMPLE_FIELDS.items():
        described[name].description = text
        described[name].read_only = name in ("path", "image_id", fields.SHOWN)
    for place in (fields.ANNOTATIONS, fields.DOUBTS):
        (regions,) = [field for field in described[place].fields if field.name == "detections"]
        for field in regions.fields:
            field.description = fields.ATTRIBUTES.get(field.name, field.description)
            field.read_only = field.name in fields.READ_ONLY_ATTRIBUTES
    # FiftyOne's own way to describe a field saves and reloads the dataset for each: two seconds for fifty fields.
    dataset._doc.save()
    dataset.reload()

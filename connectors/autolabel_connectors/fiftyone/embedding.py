"""The regions' stored embeddings as a map in the app: alike regions lie close, odd ones apart."""

from __future__ import annotations

import hashlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from autolabel.types import Float
from autolabel_connectors.fiftyone import fields
from autolabel_connectors.fiftyone.dataset import notes, put_notes
from autolabel_connectors.fiftyone.documents import object_id

if TYPE_CHECKING:
    from autolabel.dataset import Run

KEY = "regions"
_FEWEST = 3


def show(fo: ModuleType, dataset: Any, run: Run) -> list[str]:
    """Save the map as the brain run ``regions``, unless it is there already; returns warnings."""
    there = set(map(str, dataset.values(f"{fields.ANNOTATIONS}.detections.id", unwind=True)))
    made_of = "".join([run.manifest.keys.classify, *sorted(there)])
    digest = hashlib.blake2b(made_of.encode(), digest_size=16).hexdigest()
    if notes(dataset).get("map") == digest:
        return []
    vectors = region_embeddings(run)
    ids = sorted(there & set(vectors))
    if len(ids) < _FEWEST:
        return []
    try:
        import fiftyone.brain as fob
    except ImportError as error:
        return [f"no map of the embeddings: {error}; pip install fiftyone-brain brings it"]
    points = dict(zip(ids, project(np.stack([vectors[uid] for uid in ids])), strict=True))
    if KEY in dataset.list_brain_runs():
        dataset.delete_brain_run(KEY)
    fob.compute_visualization(dataset, patches_field=fields.ANNOTATIONS, points=points, brain_key=KEY, progress=False)
    put_notes(dataset, map=digest)
    return []


def project(vectors: Float) -> Float:
    """Project ``(N, D)`` embeddings onto their two main axes, ``(N, 2)``: exact, and the same every time."""
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    main = axes[:, ::-1][:, :2]
    main = main * np.where(np.abs(main).max(axis=0) == main.max(axis=0), 1.0, -1.0)
    return np.asarray(centred @ main, np.float32)


def region_embeddings(run: Run) -> dict[str, Float]:
    """Map the database ids of a run's regions to their stored embeddings; regions that people drew have none."""
    found: dict[str, Float] = {}
    for item, proposals in zip(run.predicted(), run.proposals(), strict=True):
        if proposals.embeddings is None:
            return {}
        rows = {tuple(box): row for row, box in enumerate(proposals.boxes_xyxy.tolist())}
        for annotation in item.annotations:
            row = rows.get(annotation.proposed_box.xyxy)
            if row is not None:
                uid = str(object_id(item.image.path, annotation.id))
                found[uid] = proposals.embeddings[row].astype(np.float32)
    return found

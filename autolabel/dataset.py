"""A run folder, opened for reading: lazily annotated images, tables, COCO, supervision."""

from __future__ import annotations

import json
import tempfile
from collections import OrderedDict
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from autolabel import columns, corrections, shards
from autolabel.corrections import Decision, ImageDecisions
from autolabel.errors import StoreError, UsageError
from autolabel.images import Source, decode, image_id, read_bytes
from autolabel.issues import read_issues
from autolabel.manifest import RunManifest, write_atomically
from autolabel.ontology import Ontology
from autolabel.shards import Classified, Detected, ImageRow, Resolved, Segmented
from autolabel.store import Place, RunFolder
from autolabel.types import (
    RGB,
    AnnotatedImage,
    Annotation,
    Box,
    Correction,
    Failure,
    Float,
    Image,
    LabelIssue,
    Mask,
    Review,
)

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv

LATEST = Path("runs") / ".latest"
_CACHED_SHARDS = 8


class Run:
    """An existing run folder, opened for reading; nothing is held in memory but an index of the images.

    >>> run = Run.open("runs/scratch-dent")                       # doctest: +SKIP
    >>> for item in run:                                          # doctest: +SKIP
    ...     print(item.image.path, [a.label for a in item.annotations])
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = RunManifest.read(self.path)
        self._folder = RunFolder(self.path)
        self._index: dict[str, Place] | None = None
        self._cache: OrderedDict[int, list[AnnotatedImage]] = OrderedDict()
        self._sources: dict[str, Source] = {}
        self._decisions: list[Decision] | None = None
        self._standing: dict[tuple[str, str], ImageDecisions] = {}
        self._labels: Ontology | None = None

    @classmethod
    def open(cls, path: str | Path | None = None) -> Run:
        """Open a run folder; without a path, the one that the last ``autolabel run`` here used."""
        return cls(path if path is not None else latest_run())

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def ontology(self) -> Ontology:
        """Classes and negatives the run looked for."""
        return self.manifest.ontology

    @property
    def labels(self) -> Ontology:
        """Classes that the annotations have: the ontology's, then those that only people used."""
        self._decided()
        assert self._labels is not None
        return self._labels

    def __repr__(self) -> str:
        counts = self.manifest.counts
        return (
            f"Run({str(self.path)!r}, {counts.get('labelled', 0)} images, {counts.get('annotations', 0)} annotations)"
        )

    def __len__(self) -> int:
        return sum(place.failure is None for place in self._places().values())

    def __iter__(self) -> Iterator[AnnotatedImage]:
        """Iterate over the labelled images in the order of their paths, people's decisions laid over the models'."""
        return (self._corrected(item) for item in self.predicted())

    def __getitem__(self, path: str) -> AnnotatedImage:
        """Return one labelled image by its path, people's decisions laid over the models'."""
        place = self._places().get(path)
        if place is None or place.failure is not None:
            raise KeyError(path)
        return self._corrected(self._annotated(path, place))

    def predicted(self) -> Iterator[AnnotatedImage]:
        """Iterate over the labelled images with what the models said alone, in the order of their paths."""
        for path, place in sorted(self._places().items()):
            if place.failure is None:
                yield self._annotated(path, place)

    def images(self) -> Iterator[Image]:
        """Iterate over the labelled images alone."""
        return (item.image for item in self.predicted())

    def corrections(self) -> list[Correction]:
        """Return what people decided about regions, in the order of time; others' versions are there, not effective."""
        return [decision for decision in self._decided() if isinstance(decision, Correction)]

    def reviews(self) -> list[Review]:
        """Return what people decided about whole images, in the order of time."""
        return [decision for decision in self._decided() if isinstance(decision, Review)]

    def issues(self, *, flagged_only: bool = False) -> list[LabelIssue]:
        """Return the label issues of the last noise pass, the worst first."""
        return read_issues(self.path, flagged_only=flagged_only)

    def failures(self) -> list[Failure]:
        """Return the failure ledger: every image that could not be labelled, and why, in the order of their paths."""
        return [place.failure for _, place in sorted(self._places().items()) if place.failure is not None]

    def proposals(self, among: Container[str] | None = None) -> Iterator[ImageProposals]:
        """Iterate over what the models said before any threshold, in the order of the images' paths.

        ``among`` are the paths wanted; None: all.
        """
        places = [
            (path, place)
            for path, place in self._places().items()
            if place.failure is None and (among is None or path in among)
        ]
        loaded: dict[int, dict[str, ImageProposals]] = {}
        for path, place in sorted(places):
            if place.shard not in loaded:
                if len(loaded) >= _CACHED_SHARDS:
                    loaded.pop(next(iter(loaded)))
                loaded[place.shard] = self._load_proposals(place.shard)
            yield loaded[place.shard][path]

    def read_bytes(self, image: Image) -> bytes:
        """Read an image's original file; raises ImageError when it is gone, StoreError when it has changed."""
        data = read_bytes(self._source(image))
        if image_id(data) != image.id:
            raise StoreError(f"{image.path} has changed since it was labelled; run the same command again")
        return data

    def read_image(self, image: Image) -> RGB:
        """Read an image's pixels, upright: ``(H, W, 3)`` uint8."""
        return decode(self.read_bytes(image), image.path)

    def to_table(self) -> pa.Table:
        """Return all annotations as one Arrow table: a row for each, both opinions, the mask as COCO RLE."""
        rows = [_table_row(item.image, annotation) for item in self for annotation in item.annotations]
        return columns.table(rows, _TABLE)

    def to_pandas(self) -> pd.DataFrame:
        """Return all annotations as a pandas data frame; columns as in `to_table`."""
        frame: pd.DataFrame = self.to_table().to_pandas()
        return frame

    def to_coco(self) -> dict[str, Any]:
        """Return all annotations as a COCO dictionary; `export` writes large runs to a file without holding them."""
        from autolabel.export import export_run

        with tempfile.TemporaryDirectory() as folder:
            export_run(self, "coco", Path(folder) / "coco")
            values: dict[str, Any] = json.loads((Path(folder) / "coco" / "annotations.json").read_text("utf-8"))
        return values

    def to_supervision(self, item: AnnotatedImage) -> sv.Detections:
        """Return one image's annotations as `supervision.Detections` (needs the ``supervision`` extra)."""
        try:
            import supervision as sv
        except ImportError:
            raise UsageError('supervision is not installed; pip install "autolabel-vision[supervision]"') from None
        annotations = item.annotations
        if not annotations:
            return sv.Detections.empty()
        masks = [annotation.mask for annotation in annotations]
        return sv.Detections(
            xyxy=np.array([annotation.box.xyxy for annotation in annotations], np.float32),
            mask=None if None in masks else np.stack([mask.decode() for mask in masks if mask]),
            confidence=np.array([annotation.confidence for annotation in annotations], np.float32),
            class_id=np.array([annotation.label_id for annotation in annotations]),
            data={"class_name": np.array([annotation.label for annotation in annotations])},
        )

    def local_path(self, image: Image) -> Path | None:
        """Return where an image's file lies on this machine, or None when it is remote."""
        uri = self._source(image).uri
        return None if "://" in uri else Path(uri)

    def _source(self, image: Image) -> Source:
        if image.path not in self._sources:
            self._annotated(image.path, self._places()[image.path])
        return self._sources[image.path]

    def _decided(self) -> list[Decision]:
        if self._decisions is None:
            self._decisions = corrections.read_decisions(self.path)
            self._standing = corrections.standing(self._decisions)
            self._labels = corrections.labels_of(self.ontology, self._decisions)
        return self._decisions

    def _corrected(self, item: AnnotatedImage) -> AnnotatedImage:
        self._decided()
        return corrections.apply(item, self._standing.get((item.image.path, item.image.id)), self.labels)

    def _places(self) -> dict[str, Place]:
        if self._index is None:
            self._index = self._folder.index(self.manifest.keys)
        return self._index

    def _annotated(self, path: str, place: Place) -> AnnotatedImage:
        if place.shard not in self._cache:
            if len(self._cache) >= _CACHED_SHARDS:
                self._cache.popitem(last=False)
            self._cache[place.shard] = self._load(place.shard)
        self._cache.move_to_end(place.shard)
        item = self._cache[place.shard][place.row]
        if item.image.path != path:
            raise StoreError(
                f"shard {place.shard:06d} of {self.path} is damaged: row {place.row} is {item.image.path!r}"
            )
        return item

    def _load(self, shard: int) -> list[AnnotatedImage]:
        tables = self._tables(shard, embeddings=False)
        resolved = self._folder.resolved(shard, self.manifest.keys.resolve)
        self._sources.update((row.path, Source(row.path, row.uri, row.fingerprint)) for row in tables.rows)
        return tables.annotated(resolved)

    def _load_proposals(self, shard: int) -> dict[str, ImageProposals]:
        tables = self._tables(shard, embeddings=True)
        return {row.path: tables.proposals(place) for place, row in enumerate(tables.rows)}

    def _tables(self, shard: int, *, embeddings: bool) -> Tables:
        keys, folder = self.manifest.keys, self._folder
        class_count = len(self.ontology.all_classes)
        opinions = folder.file(shard, "classify", keys.classify)
        return Tables(
            shards.read_images(folder.images_file(shard)),
            shards.read_detect(folder.file(shard, "detect", keys.detect), class_count),
            shards.read_segment(folder.file(shard, "segment", keys.segment)),
            # Embeddings are most of a shard's bytes.
            shards.read_classify(opinions, class_count)
            if embeddings
            else Classified(shards.read_probs(opinions, class_count), None),
        )


@dataclass(frozen=True, slots=True)
class ImageProposals:
    """What the models said about one image before any threshold: N proposals, best first.

    Detector's boxes ``(N, 4)`` px, scores and probabilities ``(N, K)`` over all classes, embeddings ``(N, D)``.
    """

    image: Image
    boxes_xyxy: Float
    class_scores: Float
    masks: tuple[Mask | None, ...]
    mask_scores: Float
    class_probs: Float | None
    embeddings: Float | None


@dataclass(frozen=True, slots=True)
class Tables:
    """What the models said about the images of a shard, or of a batch in memory."""

    rows: tuple[ImageRow, ...]
    detected: Detected
    segmented: Segmented
    classified: Classified

    def annotated(self, resolved: Resolved) -> list[AnnotatedImage]:
        """Return each image with its annotations."""
        found: list[list[Annotation]] = [[] for _ in self.rows]
        kept = resolved.proposals
        # To Python's numbers all at once: numpy takes ten times as long for one at a time, and a run has many.
        own = self.detected.boxes_xyxy[kept].tolist()
        settled = own if resolved.boxes_xyxy is None else resolved.boxes_xyxy.tolist()
        scores = self.detected.class_scores[kept].tolist()
        probs = None if self.classified.probs is None else self.classified.probs[kept].tolist()
        mask_scores = self.segmented.scores[kept].tolist()
        masks = [self.segmented.masks[proposal] for proposal in kept.tolist()]
        for place, row in enumerate(self.detected.images[kept].tolist()):
            found[row].append(
                Annotation(
                    id=resolved.ids[place],
                    image_id=self.rows[row].image_id,
                    box=Box(*settled[place]),
                    detector_box=None if settled[place] == own[place] else Box(*own[place]),
                    label_id=int(resolved.label_ids[place]),
                    label=resolved.labels[place],
                    score=max(scores[place]),
                    phrase_scores=tuple(scores[place]),
                    class_probs=None if probs is None else tuple(probs[place]),
                    mask=masks[place],
                    mask_score=None if masks[place] is None else mask_scores[place],
                )
            )
        return [
            AnnotatedImage(_image(row), tuple(annotations)) for row, annotations in zip(self.rows, found, strict=True)
        ]

    def proposals(self, place: int) -> ImageProposals:
        """Return all proposals of one image."""
        mine = np.flatnonzero(self.detected.images == place)
        probs, embeddings = self.classified.probs, self.classified.embeddings
        return ImageProposals(
            image=_image(self.rows[place]),
            boxes_xyxy=self.detected.boxes_xyxy[mine],
            class_scores=self.detected.class_scores[mine],
            masks=tuple(self.segmented.masks[i] for i in mine),
            mask_scores=self.segmented.scores[mine],
            class_probs=None if probs is None else probs[mine],
            embeddings=None if embeddings is None else embeddings[mine],
        )


_TABLE = pa.schema(
    [
        ("path", pa.string()),
        ("image_id", pa.string()),
        ("image_width", pa.int32()),
        ("image_height", pa.int32()),
        ("id", pa.string()),
        ("label_id", pa.int32()),
        ("label", pa.string()),
        ("score", pa.float32()),
        ("x_min", pa.float32()),
        ("y_min", pa.float32()),
        ("x_max", pa.float32()),
        ("y_max", pa.float32()),
        ("mask_counts", pa.binary()),
        ("mask_score", pa.float32()),
        ("phrase_scores", pa.list_(pa.float32())),
        ("class_probs", pa.list_(pa.float32())),
        ("origin", pa.string()),
    ]
)


def _table_row(image: Image, annotation: Annotation) -> dict[str, Any]:
    box = annotation.box
    return {
        "path": image.path,
        "image_id": image.id,
        "image_width": image.width,
        "image_height": image.height,
        "id": annotation.id,
        "label_id": annotation.label_id,
        "label": annotation.label,
        "score": annotation.score,
        "x_min": box.x_min,
        "y_min": box.y_min,
        "x_max": box.x_max,
        "y_max": box.y_max,
        "mask_counts": annotation.mask.counts if annotation.mask else None,
        "mask_score": annotation.mask_score,
        "phrase_scores": annotation.phrase_scores,
        "class_probs": annotation.class_probs,
        "origin": annotation.origin,
    }


def _image(row: ImageRow) -> Image:
    return Image(row.image_id, row.path, row.width, row.height)


def remember_latest(run: Path) -> None:
    """Make a run folder the default of later commands in this working directory."""
    LATEST.parent.mkdir(exist_ok=True)
    try:
        text = run.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        text = run.resolve().as_posix()
    write_atomically(LATEST, text.encode())


def latest_run() -> Path:
    """Return the run folder that the last ``autolabel run`` in this working directory used."""
    if not LATEST.is_file():
        raise StoreError('there is no run here yet; start one with: autolabel run --prompt "scratch. dent."')
    return Path(LATEST.read_text(encoding="utf-8").strip())

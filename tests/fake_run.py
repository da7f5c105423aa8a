"""A run held in memory, for tests of what reads runs."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image as Pillow

from autolabel.ontology import Ontology
from autolabel.types import AnnotatedImage, Annotation, Box, Failure, Image, Mask, ModelInfo


def png(width: int, height: int, seed: int = 0) -> bytes:
    """Encode a gradient that differs by seed."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // max(width, 1), y * 255 // max(height, 1), np.full_like(x, seed * 37 % 256)], axis=-1)
    buffer = io.BytesIO()
    Pillow.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class FakeRun:
    """What ``autolabel.Run`` offers to readers, from values."""

    ontology: Ontology
    items: list[AnnotatedImage] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    failed: list[Failure] = field(default_factory=list)
    name: str = "fake"
    path: Path = Path("runs/fake")
    manifest: SimpleNamespace | None = None

    def __post_init__(self) -> None:
        self.manifest = self.manifest or SimpleNamespace(
            run_id="0" * 32,
            ontology=self.ontology,
            recipe={"detect": {"model": "tiny", "min_score": 0.25}},
            models={"detector": ModelInfo("grounding-dino:tiny", "ab" * 32, "Apache-2.0")},
            counts={"done": len(self.items), "failed": len(self.failed)},
            rejects={"duplicate": 3},
            timings={"detect": 4.0, "segment": 2.0},
            status="done",
            versions={"autolabel": "0.1.0"},
            created="2026-01-02T03:04:05+00:00",
        )

    @property
    def labels(self):
        return Ontology(self.ontology.classes)

    def __len__(self):
        return len(self.items)

    def __iter__(self):
        return iter(sorted(self.items, key=lambda item: item.image.path))

    def failures(self):
        return self.failed

    def local_path(self, image):
        return None

    def read_bytes(self, image):
        return self.files[image.path]

    def read_image(self, image):
        return np.asarray(Pillow.open(io.BytesIO(self.files[image.path])).convert("RGB"))

    def add(self, path: str, *boxes, size_wh=(64, 48), seed: int | None = None) -> Image:
        """Add an image with annotations, each ``(label_id, (x0, y0, x1, y1), score, mask array or None)``."""
        data = png(*size_wh, seed=len(self.items) if seed is None else seed)
        image = Image(hashlib.sha256(data).hexdigest(), path, *size_wh)
        self.files[path] = data
        notes = tuple(annotation(f"{path}-{i}", image.id, self.ontology, *values) for i, values in enumerate(boxes))
        self.items.append(AnnotatedImage(image, notes))
        return image


def annotation(key, image_id, ontology, label_id, xyxy, score=0.9, mask=None, probs=None) -> Annotation:
    """Build one annotation; both opinions favour the label unless ``probs`` says otherwise."""
    count = len(ontology.all_classes)
    phrase = tuple(score if i == label_id else 0.05 for i in range(count))
    if probs is None:
        probs = tuple(0.8 if i == label_id else 0.2 / max(count - 1, 1) for i in range(count))
    return Annotation(
        id=key,
        image_id=image_id,
        box=Box(*map(float, xyxy)),
        label_id=label_id,
        label=ontology.names[label_id],
        score=score,
        phrase_scores=phrase,
        class_probs=tuple(probs),
        mask=None if mask is None else Mask.encode(mask),
        mask_score=None if mask is None else 0.95,
    )

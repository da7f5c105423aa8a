"""COCO instances: ``bbox`` as x, y, width, height in px and masks as compressed run lengths or polygons.

Equal annotations give equal bytes: no dates, ids counted from 1 in path order, 2 decimals of a px, 4 of a score.
``score``, ``mask_score`` and ``origin`` are additions that readers of COCO ignore. Declared losses: the detector's and
classifier's opinions, and with polygons the outline within the tolerance.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Literal

from autolabel.export.contours import mask_rings, simplify
from autolabel.ontology import Ontology
from autolabel.types import AnnotatedImage, Annotation, Mask

Segmentation = Literal["rle", "polygon"]


class CocoWriter:
    """Streams records to disk: images and annotations go to two files that are joined when the writer closes."""

    def __init__(
        self, folder: Path, ontology: Ontology, splits: Iterable[str], segmentation: Segmentation, tolerance_px: float
    ) -> None:
        self._folder = folder
        self._ontology = ontology
        self._segmentation = segmentation
        self._tolerance_px = tolerance_px
        self._next_image = 1
        self._next_annotation = 1
        self._parts = {
            split: (_Part(folder / f".images_{split}"), _Part(folder / f".annotations_{split}")) for split in splits
        }

    def add(self, item: AnnotatedImage, split: str, name: str) -> None:
        """Write one image and its annotations; ``name`` becomes ``file_name``."""
        image_part, annotation_part = self._parts[split]
        record = {
            "id": self._next_image,
            "file_name": name,
            "width": item.image.width,
            "height": item.image.height,
            "sha256": item.image.id,
        }
        image_part.append(record)
        for annotation in item.annotations:
            annotation_part.append(self._record(annotation))
        self._next_image += 1

    def close(self, files: dict[str, str]) -> None:
        """Join the parts of each split into the file that ``files`` names for it."""
        head = {
            "info": {"description": "Labels written by autolabel", "version": "1.0"},
            "licenses": [],
            "categories": [
                {"id": i, "name": name, "supercategory": ""} for i, name in enumerate(self._ontology.names, start=1)
            ],
        }
        opening = json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}")
        for split, (image_part, annotation_part) in self._parts.items():
            with (self._folder / files[split]).open("w", encoding="utf-8", newline="\n") as out:
                out.write(f'{opening},\n "images": [')
                image_part.drain(out)
                out.write('],\n "annotations": [')
                annotation_part.drain(out)
                out.write("]\n}\n")

    def _record(self, annotation: Annotation) -> dict[str, object]:
        x_min, y_min, x_max, y_max = (round(float(v), 2) for v in annotation.box.xyxy)
        record: dict[str, object] = {
            "id": self._next_annotation,
            "image_id": self._next_image,
            "category_id": annotation.label_id + 1,
            "bbox": [x_min, y_min, round(x_max - x_min, 2), round(y_max - y_min, 2)],
            "area": annotation.mask.area if annotation.mask else round((x_max - x_min) * (y_max - y_min), 2),
            "iscrowd": 0,
            "score": round(float(annotation.score), 4),
            "confidence": round(float(annotation.confidence), 4),
            "origin": annotation.origin,
        }
        if annotation.mask_score is not None:
            record["mask_score"] = round(float(annotation.mask_score), 4)
        # Without a mask the key is left out: an empty list breaks pycocotools, a rectangle would be an invention.
        if annotation.mask is not None:
            record["segmentation"] = self._outline(annotation.mask)
        self._next_annotation += 1
        return record

    def _outline(self, mask: Mask) -> object:
        if self._segmentation == "polygon":
            rings = [simplify(ring, self._tolerance_px) for ring in mask_rings(mask)]
            # COCO polygons know no holes, and one polygon per part is what readers expect; masks with holes and empty
            # ones stay run lengths, which the format allows side by side.
            if rings and not any(ring.hole for ring in rings):
                return [[round(float(v), 2) for v in ring.points.ravel()] for ring in rings]
        return {"size": [mask.height, mask.width], "counts": mask.counts.decode("ascii")}


class _Part:
    """The inside of a JSON array, one record a line, kept in a file until it is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # A file name with bytes that are not UTF-8 holds lone surrogates; written as \\udc80 they are valid JSON.
        self._file = path.open("w+", encoding="utf-8", errors="backslashreplace", newline="\n")
        self._comma = ""

    def append(self, record: dict[str, object]) -> None:
        self._file.write(f"{self._comma}\n  {json.dumps(record, ensure_ascii=False)}")
        self._comma = ","

    def drain(self, out: IO[str]) -> None:
        self._file.seek(0)
        shutil.copyfileobj(self._file, out)
        self._file.close()
        self._path.unlink()

"""YOLO label files: ``class cx cy w h`` or ``class x1 y1 x2 y2 …``, divided by the image's width and height.

Six decimals: within 0.01 px on an image of 10,000 px. Declared losses: scores, opinions and origins (the format has no
place for them); for ``yolo`` the masks; for ``yolo-seg`` the boxes (a reader takes the polygon's extent), parts below
1 % of a mask, and the outline within the tolerance. Further parts and holes are joined to the largest part by bridges
of zero width, since a line holds one polygon: exact when filled by the even-odd rule. An annotation without a mask
becomes its box as a polygon of four corners.

Trainers find labels by swapping ``images`` for ``labels`` in a path. Exported without images, ``sources.csv`` says
under which name each one belongs in ``images/<split>``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autolabel.export.contours import join, mask_rings, simplify
from autolabel.ontology import Ontology
from autolabel.types import AnnotatedImage, Annotation, Image

_MIN_PART = 0.01


class YoloWriter:
    """Writes one label file an image (empty for a clean one), ``data.yaml`` and ``sources.csv``."""

    def __init__(
        self, folder: Path, ontology: Ontology, splits: Iterable[str], polygons: bool, tolerance_px: float
    ) -> None:
        self._folder = folder
        self._ontology = ontology
        self._splits = tuple(splits)
        self._polygons = polygons
        self._tolerance_px = tolerance_px
        for split in self._splits:
            (folder / "labels" / split).mkdir(parents=True)
        self._sources = (folder / "sources.csv").open("w", encoding="utf-8", errors="backslashreplace", newline="")
        self._rows = csv.writer(self._sources, lineterminator="\n")
        self._rows.writerow(("split", "name", "source", "sha256"))

    def add(self, item: AnnotatedImage, split: str, name: str) -> None:
        """Write one image's labels to ``labels/<split>/<stem of name>.txt``."""
        lines = [f"{a.label_id} {self._values(a, item.image)}\n" for a in item.annotations]
        target = self._folder / "labels" / split / f"{Path(name).stem}.txt"
        target.write_text("".join(lines), encoding="utf-8", newline="\n")
        self._rows.writerow((split, name, item.image.path, item.image.id))

    def close(self) -> None:
        """Write ``data.yaml``; its paths are relative to its own folder."""
        self._sources.close()
        used = {split: f"images/{split}" for split in self._splits}
        # Trainers insist on a validation set; without a split they get to see the training images.
        used.setdefault("val", used["train"])
        # A JSON string is a YAML string, so that names with quotes, colons or other scripts need no YAML package.
        names = "".join(
            f"  {i}: {json.dumps(name, ensure_ascii=False)}\n" for i, name in enumerate(self._ontology.names)
        )
        paths = "".join(f"{split}: {used[split]}\n" for split in ("train", "val", "test") if split in used)
        text = f"{paths}nc: {len(self._ontology.names)}\nnames:\n{names}"
        (self._folder / "data.yaml").write_text(text, encoding="utf-8", newline="\n")

    def _values(self, annotation: Annotation, image: Image) -> str:
        size_wh = np.array([image.width, image.height], np.float64)
        corners = np.array(annotation.box.xyxy, np.float64).reshape(2, 2) / size_wh
        if not self._polygons:
            return _decimals(np.concatenate([corners.mean(axis=0), corners[1] - corners[0]]))
        points = self._polygon(annotation)
        if len(points) < 3:
            (x_min, y_min), (x_max, y_max) = corners
            return _decimals(np.array([[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max]]))
        return _decimals(np.clip(points / size_wh, 0.0, 1.0))

    def _polygon(self, annotation: Annotation) -> NDArray[np.float64]:
        if annotation.mask is None:
            return np.zeros((0, 2))
        rings = mask_rings(annotation.mask)
        if len(rings) > 1:
            smallest = _MIN_PART * annotation.mask.area
            rings = [ring for ring in rings if ring.area >= smallest]
        return join([simplify(ring, self._tolerance_px) for ring in rings])


def _decimals(values: NDArray[np.float64]) -> str:
    return ("%.6f " * values.size % tuple(values.ravel().tolist())).rstrip()

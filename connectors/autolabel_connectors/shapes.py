"""How an annotation is best drawn for a person, and what a person's region is when it comes back from a tool.

Pixels only: each connector's ``convert.py`` turns a Drawing into its tool's shapes and the tool's shapes into Regions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import cv2
import numpy as np

from autolabel.connect import Shape
from autolabel.errors import ConfigError
from autolabel.export.contours import Ring, crop_parts, join, mask_parts, simplify
from autolabel.types import Annotation, Box, Mask
from autolabel_connectors.many import read_masks
from autolabel_connectors.raster import GRID, Points, rasterise, snap
from autolabel_connectors.rle import canonical, mask_box, mask_iou, union

DrawnKind = Literal["box", "polygon", "mask"]
RegionKind = Literal["box", "polygon", "mask", "ellipse", "line", "point", "unknown"]
RegionOrigin = Literal["prediction", "prediction-changed", "manual"]
SHAPES: tuple[Shape, ...] = get_args(Shape)


@dataclass(frozen=True, slots=True)
class ShapeOptions:
    """When a polygon stands for a mask.

    ``max_vertices`` is the budget of an annotation, all its parts and holes together. ``min_iou``, ``max_parts`` and
    ``max_holes`` say when ``auto`` sends the mask instead: too much lost, or too fiddly to edit as polygons.
    """

    max_vertices: int = 100
    min_iou: float = 0.95
    max_parts: int = 4
    max_holes: int = 0

    def __post_init__(self) -> None:
        if self.max_vertices < 4:
            raise ConfigError(f"max_vertices must be at least 4, got {self.max_vertices}")
        if not 0.0 <= self.min_iou <= 1.0:
            raise ConfigError(f"min_iou must be in [0, 1], got {self.min_iou}")
        if self.max_parts < 1 or self.max_holes < 0:
            raise ConfigError(
                f"max_parts must be at least 1 and max_holes at least 0, got {self.max_parts} and {self.max_holes}"
            )


@dataclass(frozen=True, slots=True)
class Outline:
    """Polygons that stand for a mask: one simple ring ``(N, 2)`` px for each part, its holes joined in by bridges.

    ``iou`` compares the filled rings with the mask. ``parts`` and ``holes`` are the mask's own; parts and holes
    smaller than ``tolerance_px`` squared may be left out, which the IoU counts. ``filled`` is what the rings enclose.
    """

    rings: tuple[Points, ...]
    iou: float
    parts: int
    holes: int
    tolerance_px: float
    filled: Mask | None = None

    @property
    def vertices(self) -> int:
        """Vertices of all rings."""
        return sum(len(ring) for ring in self.rings)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is sent for one annotation: a box, polygons, or a mask.

    ``box`` is always there. ``rings`` are set for polygons and ``mask``, without empty runs, for masks. ``iou`` is
    what a person sees against the annotation's mask: below 1 for polygons that lose something, 1 otherwise. ``filled``
    is what the rings enclose.
    """

    kind: DrawnKind
    box: Box
    rings: tuple[Points, ...] = ()
    mask: Mask | None = None
    iou: float = 1.0
    filled: Mask | None = None

    @property
    def vertices(self) -> int:
        """Vertices of all rings, 0 for boxes and masks."""
        return sum(len(ring) for ring in self.rings)


@dataclass(frozen=True, slots=True)
class Region:
    """One region as it came back from a tool, in upright image px.

    ``annotation_id`` is ours if the region is known to stand for one of our annotations. ``box`` is clipped to the
    image and None where nothing is left of it. ``problem`` says in plain words why a region cannot become an
    annotation (a keypoint has no area); such a region is reported, never dropped. ``part_ids`` are the tool's ids of
    all shapes that make up this region. ``rotation`` is that of a turned rectangle in degrees; it has a mask as well.
    """

    remote_id: str
    kind: RegionKind
    label: str | None
    box: Box | None
    mask: Mask | None = None
    annotation_id: str | None = None
    origin: RegionOrigin = "manual"
    score: float | None = None
    rotation: float = 0.0
    attributes: Mapping[str, str] = field(default_factory=dict)
    part_ids: tuple[str, ...] = ()
    problem: str | None = None


def draw(annotation: Annotation, shape: Shape = "auto", options: ShapeOptions | None = None) -> Drawing:
    """Choose how to show ``annotation``; without a mask, or with an empty one, it is a box.

    ``auto`` draws polygons where they keep at least ``min_iou`` of the mask within the budget, else the mask.
    """
    _check(shape)
    options = options or ShapeOptions()
    mask = annotation.mask
    tight = mask_box(mask) if mask is not None and shape != "box" else None
    if mask is None or tight is None:
        return Drawing("box", annotation.box)
    as_mask = Drawing("mask", tight, mask=canonical(mask))
    return as_mask if shape == "mask" else _drawn(as_mask, mask_parts(mask), shape, options)


def draw_all(
    annotations: Sequence[Annotation], shape: Shape = "auto", options: ShapeOptions | None = None
) -> list[Drawing]:
    """Choose how to show annotations, as `draw` does; from five or so on, all at once takes less time."""
    _check(shape)
    options = options or ShapeOptions()
    drawings = [Drawing("box", annotation.box) for annotation in annotations]
    masked = [place for place, annotation in enumerate(annotations) if annotation.mask is not None]
    if shape == "box" or not masked:
        return drawings
    masks = [mask for annotation in annotations if (mask := annotation.mask) is not None]
    many = read_masks(masks)
    boxes = many.boxes_xyxy.tolist()
    for place, mask, box, exact in zip(masked, masks, boxes, many.canonical.tolist(), strict=True):
        if box[2]:
            drawings[place] = Drawing("mask", Box(*map(float, box)), mask=mask if exact else canonical(mask))
    if shape != "mask":
        for crops in many.crops():
            for here, place in enumerate(masked[crops.first : crops.first + len(crops.widths)]):
                if drawings[place].mask is not None:
                    x, y = boxes[crops.first + here][:2]
                    drawings[place] = _drawn(drawings[place], crop_parts(crops.crop(here), x, y), shape, options)
    return drawings


def _check(shape: Shape) -> None:
    if shape not in SHAPES:
        raise ConfigError(f"shapes must be one of {', '.join(SHAPES)}, got {shape!r}")


def _drawn(as_mask: Drawing, parts: list[list[Ring]], shape: Shape, options: ShapeOptions) -> Drawing:
    """Draw a mask of these parts as polygons where that serves."""
    assert as_mask.mask is not None
    holes = sum(len(part) - 1 for part in parts)
    if shape == "auto" and (len(parts) > options.max_parts or holes > options.max_holes):
        return as_mask
    found = _outline(as_mask.mask, parts, options.max_vertices)
    if shape == "auto" and found.iou < options.min_iou:
        return as_mask
    return Drawing("polygon", as_mask.box, rings=found.rings, iou=found.iou, filled=found.filled)


def outline(mask: Mask, max_vertices: int = 100) -> Outline:
    """Outline a mask by at most ``max_vertices`` vertices, at the smallest tolerance that fits.

    An exact outline that fits is kept as it is. Raises nothing for odd masks; an empty mask has no rings.
    """
    return _outline(canonical(mask), mask_parts(mask), max_vertices)


def digest(region: Region, *, with_label: bool = True) -> str:
    """Fingerprint of a region's label and geometry: 16 hex digits that change if and only if a person changed it.

    A box counts to 0.01 px, a mask by its pixels. Scores, notes and ids do not count.
    """
    parts = [(region.label or "") if with_label else ""]
    if region.mask is not None:
        parts += [f"{region.mask.height}x{region.mask.width}", region.mask.counts.decode("ascii")]
    elif region.box is not None:
        parts += [str(round(value * GRID)) for value in region.box.xyxy]
    else:
        parts += [region.kind, region.attributes.get("point", ""), region.attributes.get("points", "")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _outline(mask: Mask, parts: list[list[Ring]], max_vertices: int) -> Outline:
    """Search the tolerances from exact to coarse, for a mask without empty runs."""
    size_wh = (mask.width, mask.height)
    if not parts:
        return Outline((), 1.0, 0, 0, 0.0)
    holes = sum(len(part) - 1 for part in parts)
    if _cost(parts) <= max_vertices:
        # Most often: exact, on pixel corners, and the pixels that it encloses are the mask's own.
        return Outline(tuple(join(part) for part in parts), 1.0, len(parts), holes, 0.0, mask)
    x0, y0 = parts[0][0].points.min(axis=0)
    x1, y1 = parts[0][0].points.max(axis=0)
    steps = int(np.ceil(np.log(max(x1 - x0, y1 - y0, 1.0)) / np.log(1.1))) + 16
    tolerances = [0.0, *(0.35 * 1.1 ** np.arange(steps))]
    low, high = 0, len(tolerances) - 1
    while low < high:
        middle = (low + high) // 2
        if _cost(_simplified(parts, tolerances[middle])) <= max_vertices:
            high = middle
        else:
            low = middle + 1
    kept = _simplified(parts, tolerances[low])
    rings = tuple(np.clip(snap(join(part)), 0.0, np.array(size_wh, np.float64)) for part in kept)
    filled = union([rasterise([ring], size_wh) for ring in rings])
    return Outline(rings, mask_iou(filled, mask), len(parts), holes, float(tolerances[low]), filled)


def _simplified(parts: list[list[Ring]], tolerance_px: float) -> list[list[Ring]]:
    """Simplify all rings, leave out specks below the tolerance, and always keep the largest part."""
    kept = []
    for place, (outer, *holes) in enumerate(parts):
        if place and outer.area < tolerance_px**2:
            continue
        large = [ring for ring in holes if ring.area >= tolerance_px**2]
        kept.append([_fewer(ring, tolerance_px) for ring in (outer, *large)])
    return kept


def _fewer(ring: Ring, tolerance_px: float) -> Ring:
    """Simplify one ring; a thin one that would collapse to a line becomes the tightest turned rectangle."""
    simpler = simplify(ring, tolerance_px, max_area_change=1.0)
    if tolerance_px > 0 and len(ring.points) > 4 and (simpler is ring or simpler.area < 0.5 * ring.area):
        corners = cv2.boxPoints(cv2.minAreaRect(ring.points.astype(np.float32)))
        return Ring(np.asarray(corners, np.float64), ring.hole)
    return simpler


def _cost(parts: list[list[Ring]]) -> int:
    """Vertices after joining: each hole repeats two for its bridge."""
    return sum(len(ring.points) for part in parts for ring in part) + 2 * sum(len(part) - 1 for part in parts)

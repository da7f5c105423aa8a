"""Steps that every connector takes to make a Region: fill in geometry, and unite the parts of one annotation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autolabel.errors import AutolabelError
from autolabel.types import Box, Mask
from autolabel_connectors.raster import Points, rasterise, snap
from autolabel_connectors.rle import mask_box, union
from autolabel_connectors.shapes import Region


def with_ring(region: Region, ring: Points, size_wh: tuple[int, int], *, filled: bool) -> Region:
    """Fill in the box of a ring ``(N, 2)`` px, clipped to the image of ``size_wh`` px, and its pixels if ``filled``."""
    if not np.isfinite(ring).all():
        raise AutolabelError("coordinates must be finite numbers; delete the region and draw it again")
    points = snap(ring)
    low = np.clip(points.min(axis=0), 0, size_wh)
    high = np.clip(points.max(axis=0), 0, size_wh)
    if np.any(high <= low):
        outside = "lies outside the image" if np.all(points.max(axis=0) > points.min(axis=0)) else "has no area"
        return replace(region, problem=f"the region {outside}; delete it or draw it again")
    box = Box(float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    mask = rasterise([points], size_wh) if filled else None
    if mask is not None and mask_box(mask) is None:
        mask = None  # thinner than a pixel: the box is what there is
    return replace(region, box=box, mask=mask)


def with_mask(region: Region, mask: Mask) -> Region:
    """Fill in a mask and its box."""
    box = mask_box(mask)
    if box is None:
        return replace(region, problem="the mask has no pixels; delete the region or paint it again")
    return replace(region, box=box, mask=mask)


def merge_parts(regions: Sequence[Region]) -> list[Region]:
    """Unite the parts of each annotation that have the label of its first part; others become regions of their own.

    The first region given of an annotation is its first part.
    """
    parts: dict[tuple[str, str | None], list[Region]] = {}
    out: list[Region | tuple[str, str | None]] = []
    first: dict[str, str | None] = {}
    for region in regions:
        if region.annotation_id is not None:
            first.setdefault(region.annotation_id, region.label)
    for region in regions:
        owner = region.annotation_id
        if owner is None:
            out.append(region)
        elif region.label != first[owner]:
            out.append(replace(region, annotation_id=None))
        else:
            key = (owner, region.label)
            if key not in parts:
                out.append(key)
            parts.setdefault(key, []).append(region)
    return [_unite(parts[entry]) if isinstance(entry, tuple) else entry for entry in out]


def _unite(parts: Sequence[Region]) -> Region:
    """Make one region of several; an unusable part is left out if another is usable."""
    main = min(parts, key=lambda part: part.problem is not None)
    usable = [part for part in parts if part.problem is None]
    all_ids = tuple(part.remote_id for part in parts)
    if len(parts) == 1 or not usable:
        return replace(main, part_ids=all_ids)
    masks = [part.mask for part in usable if part.mask is not None]
    boxes = [part.box for part in usable if part.box is not None]
    mask = union(masks) if masks else None
    box = Box(
        min(box.x_min for box in boxes),
        min(box.y_min for box in boxes),
        max(box.x_max for box in boxes),
        max(box.y_max for box in boxes),
    )
    changed = next((part.origin for part in usable if part.origin != "prediction"), main.origin)
    return replace(main, box=box, mask=mask, origin=changed, part_ids=all_ids)

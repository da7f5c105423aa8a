"""How heavy an image's regions are for an editor in a browser, and a warning before it freezes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from autolabel.types import Image
from autolabel_connectors.rle import row_runs
from autolabel_connectors.shapes import Drawing

Tool = Literal["label-studio", "cvat"]

MAX_SHAPES = 1000
"""CVAT's editor lags over 1,000 shapes on a frame, as its users report."""

MAX_BRUSH_BYTES = 2**30
"""Label Studio holds every brush region as RGBA pixels of the whole image, several times over.

Its users report about 40 GB for 100 to 200 masks on one image; a browser tab ends at a few GB, and with some five
copies of each region that is about 1 GiB of pixels.
"""

MAX_VERTICES = 50_000
"""Every vertex of a polygon is an element of the page that can be dragged."""


@dataclass(frozen=True, slots=True)
class Weight:
    """What one image's regions cost an editor: counts, and ``brush_bytes`` of RGBA pixels held in the browser.

    ``wire_bytes`` estimates the runs of all masks as they are sent.
    """

    regions: int
    masks: int
    vertices: int
    mask_pixels: int
    brush_bytes: int
    wire_bytes: int


def weigh(image: Image, drawings: Iterable[Drawing]) -> Weight:
    """Add up the regions of one image as they would be drawn; each polygon ring is a region."""
    regions = masks = vertices = pixels = wire = 0
    for drawing in drawings:
        regions += max(1, len(drawing.rings))
        vertices += drawing.vertices
        if drawing.mask is not None:
            starts, ends = row_runs(drawing.mask)
            masks += 1
            pixels += int((ends - starts).sum())
            wire += 6 * len(starts) + 16
    return Weight(regions, masks, vertices, pixels, masks * image.width * image.height * 4, wire)


def freeze_warning(weight: Weight, tool: Tool, image: Image) -> str | None:
    """Say in one sentence what would freeze the editor and what to do about it, or None."""
    name = f"image {image.path!r}"
    if tool == "label-studio" and weight.brush_bytes > MAX_BRUSH_BYTES:
        return (
            f"{name}: {weight.masks} brush masks of {image.width}×{image.height} px need about "
            f"{weight.brush_bytes / 2**30:.1f} GiB of pixels in the browser, several times over, and may freeze Label "
            "Studio; send polygons (shapes = polygon), raise min_score, or cut the image into tiles"
        )
    if weight.regions > MAX_SHAPES:
        editor = "CVAT" if tool == "cvat" else "Label Studio"
        return (
            f"{name}: {weight.regions} shapes make {editor} slow (over {MAX_SHAPES} on one image); raise min_score or "
            "min_area_px, or cut the image into tiles"
        )
    if weight.vertices > MAX_VERTICES:
        return (
            f"{name}: {weight.vertices} polygon vertices make the editor slow (over {MAX_VERTICES} on one image); "
            "lower max_vertices, or send boxes (shapes = box)"
        )
    return None

"""Export a run as COCO, YOLO or Pascal VOC: streamed, written at once or not at all, and the same every time.

Own writers rather than a library's. supervision (MIT) holds a whole dataset with dense masks in memory, refuses equal
file names from two folders, writes masks with holes as ``iscrowd: 1`` and no score, and one YOLO line for each part of
a mask. labelformat (MIT) streams, but knows neither scores nor splits nor atomic replacement. The formats take about
eighty lines each; the libraries serve the tests instead, as independent readers.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from autolabel.errors import UsageError
from autolabel.export.coco import CocoWriter, Segmentation
from autolabel.export.folder import atomic_folder, check_replaceable
from autolabel.export.names import Names
from autolabel.export.split import SPLITS, check_fractions, split_of
from autolabel.export.voc import VocWriter
from autolabel.export.yolo import YoloWriter

if TYPE_CHECKING:
    from autolabel.dataset import Run
    from autolabel.ontology import Ontology
    from autolabel.types import Image

Format = Literal["coco", "yolo", "yolo-seg", "voc"]
Images = Literal["none", "copy", "link"]
FORMATS: tuple[Format, ...] = get_args(Format)
_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written: the folder, images by split, annotations, and notes on anything a reader may trip over."""

    folder: Path
    format: Format
    images: dict[str, int]
    annotations: int
    notes: tuple[str, ...] = ()


def export_run(
    run: Run,
    fmt: Format,
    out: Path,
    *,
    split: Sequence[float] | None = None,
    images: Images = "none",
    segmentation: Segmentation = "rle",
    tolerance_px: float = 0.5,
) -> ExportResult:
    """Write the run's annotations to the folder ``out``, replacing an earlier export but nothing else.

    ``split`` gives fractions for train, val and test; ``images`` brings the original files along or links to them;
    ``segmentation`` is COCO's; ``tolerance_px`` simplifies polygons. Raises UsageError for wrong options or an ``out``
    that holds other files.
    """
    _check(fmt, images, segmentation, tolerance_px)
    fractions = None if split is None else check_fractions(split)
    check_replaceable(out)
    splits = SPLITS[:1] if fractions is None else tuple(s for s, f in zip(SPLITS, fractions, strict=False) if f > 0)
    counts = dict.fromkeys(splits, 0)
    annotation_count, turned, unmasked = 0, 0, 0
    names = Names()
    with atomic_folder(out) as folder:
        writer = _writer(fmt, folder, run.labels, splits, segmentation=segmentation, tolerance_px=tolerance_px)
        for item in run:
            side = split_of(item.image.id, fractions)
            # COCO's labels live in one file, so there folders can stay as they are and paths stay recognisable.
            keep = fmt == "coco"
            if keep and images == "none":
                name = item.image.path
            else:
                name = names.nested(item.image.path) if keep else names.flat(item.image.path)
            writer.add(item, side, name)
            if images != "none":
                turned += _place(run, item.image, folder / _image_folder(fmt, side) / name, images)
            counts[side] += 1
            annotation_count += len(item.annotations)
            unmasked += sum(a.mask is None for a in item.annotations)
        if isinstance(writer, CocoWriter):
            files = {s: "annotations.json" if fractions is None else f"instances_{s}.json" for s in splits}
            writer.close(files)
        else:
            writer.close()
    return ExportResult(out, fmt, counts, annotation_count, tuple(_notes(fmt, counts, turned, unmasked)))


def _check(fmt: str, images: str, segmentation: str, tolerance_px: float) -> None:
    for name, value, allowed in (
        ("format", fmt, FORMATS),
        ("images", images, get_args(Images)),
        ("segmentation", segmentation, get_args(Segmentation)),
    ):
        if value not in allowed:
            raise UsageError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    if tolerance_px < 0:
        raise UsageError(f"tolerance_px must be >= 0, got {tolerance_px}")


def _writer(
    fmt: Format,
    folder: Path,
    ontology: Ontology,
    splits: Sequence[str],
    *,
    segmentation: Segmentation,
    tolerance_px: float,
) -> CocoWriter | YoloWriter | VocWriter:
    if fmt == "coco":
        return CocoWriter(folder, ontology, splits, segmentation, tolerance_px)
    if fmt == "voc":
        return VocWriter(folder, splits)
    return YoloWriter(folder, ontology, splits, polygons=fmt == "yolo-seg", tolerance_px=tolerance_px)


def _image_folder(fmt: Format, split: str) -> str:
    return {"coco": "images", "voc": "JPEGImages"}.get(fmt, f"images/{split}")


def _place(run: Run, image: Image, target: Path, images: Images) -> bool:
    """Copy or link one original; return whether its pixels are stored turned."""
    from PIL import Image as Pillow

    target.parent.mkdir(parents=True, exist_ok=True)
    local = run.local_path(image) if images == "link" else None
    if local is not None:
        target.symlink_to(local.absolute())
        source: Path | io.BytesIO = target
    else:
        # A remote image has nothing to link to.
        data = run.read_bytes(image)
        target.write_bytes(data)
        source = io.BytesIO(data)
    try:
        with Pillow.open(source) as picture:
            return bool(picture.getexif().get(_ORIENTATION, 1) != 1)
    except (OSError, Pillow.DecompressionBombError):
        # Only a note depends on it; the picture itself was read when it was labelled.
        return False


def _notes(fmt: Format, counts: dict[str, int], turned: int, unmasked: int) -> list[str]:
    notes = []
    total = sum(counts.values())
    empty = [split for split, count in counts.items() if total and not count]
    if empty:
        notes.append(f"no image fell into {', '.join(empty)}: the split is by hash, and {total} images are few")
    if turned:
        notes.append(
            f"{turned} images carry an EXIF rotation; labels are for the upright image, so a reader must apply it"
        )
    if fmt == "yolo-seg" and unmasked:
        notes.append(f"{unmasked} annotations have no mask and were written as their boxes")
    return notes

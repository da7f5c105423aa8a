"""From files to the frames of a task, and from frames back to images and chunks."""

from __future__ import annotations

import io
import random
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from .state import Row

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class WorkFailedError(Exception):
    """A background request that ends as ``failed``, with what its message ends in."""


Files = list[tuple[str, bytes]]


def natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", name)]


def ordered(files: Files, method: str, order: list[str] | None = None) -> Files:
    """Sort as the server's ``sorting_method`` says."""
    match method:
        case "natural":
            return sorted(files, key=lambda file: natural(file[0]))
        case "predefined":
            places = {name: place for place, name in enumerate(order or [])}
            return sorted(files, key=lambda file: places.get(file[0], len(places))) if places else list(files)
        case "random":
            return random.Random(0).sample(files, len(files))
    return sorted(files)


def unpacked(files: Iterable[tuple[str, bytes]]) -> Files:
    """Replace zip archives by the images in them."""
    found: Files = []
    for name, content in files:
        if not name.lower().endswith(".zip"):
            found.append((name, content))
            continue
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            inside = [entry for entry in archive.namelist() if Path(entry).suffix.lower() in SUFFIXES]
            found += [(entry, archive.read(entry)) for entry in inside]
    return found


def frames_of(files: Files, params: Row) -> list[Row]:
    """Frames ``{name, content, width, height}`` in their order; ``WorkFailedError`` for what is no image."""
    files = ordered(unpacked(files), params.get("sorting_method", "lexicographical"), params.get("upload_file_order"))
    if mapping := params.get("job_file_mapping"):
        by_name = dict(files)
        wanted = [name for names in mapping for name in names]
        if missing := [name for name in wanted if name not in by_name]:
            raise WorkFailedError(f"ValueError: Some of the job files not found in the input files: {missing}")
        files = [(name, by_name[name]) for name in wanted]
    start, stop = params.get("start_frame", 0), params.get("stop_frame")
    step = int(re.sub(r"\D", "", params.get("frame_filter") or "") or 1)
    files = files[start : None if stop is None else stop + 1 : step]
    if not files:
        raise WorkFailedError("ValueError: No media data found")
    return [frame(name, content) for name, content in files]


def frame(name: str, content: bytes) -> Row:
    """Measure one image; width and height are those after EXIF rotation, as the server has them."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in {5, 6, 7, 8}
    except (UnidentifiedImageError, OSError) as error:
        raise WorkFailedError(f"PIL.UnidentifiedImageError: cannot identify image file '/{name}'") from error
    size = {"width": height, "height": width} if turned else {"width": width, "height": height}
    return {"name": name, "content": content, **size}


def shown(row: Row, quality: str, level: int) -> tuple[bytes, str]:
    """Bytes and suffix of a frame: the file itself, or a JPEG when it is compressed or was rotated."""
    suffix = Path(row["name"]).suffix.lower()
    with Image.open(io.BytesIO(row["content"])) as image:
        turned = image.getexif().get(0x0112, 1) != 1
        if quality == "original" and not turned:
            return row["content"], suffix
        upright = ImageOps.exif_transpose(image).convert("RGB")
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=100 if quality == "original" else level)
    return buffer.getvalue(), ".jpeg"


def chunk(rows: list[Row], quality: str, level: int) -> bytes:
    """A zip of frames, named by their place in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for place, row in enumerate(rows):
            content, suffix = shown(row, quality, level)
            archive.writestr(f"{place:06d}{suffix}", content)
    return buffer.getvalue()


def preview(row: Row) -> bytes:
    with Image.open(io.BytesIO(row["content"])) as image:
        small = ImageOps.exif_transpose(image).convert("RGB")
    small.thumbnail((256, 256))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG")
    return buffer.getvalue()


def files_under(root: Path, names: Iterable[str], exclude: Iterable[str] = ()) -> list[Path]:
    """Files of a share or bucket; a folder stands for all its images, ``WorkFailedError`` for what is not there."""
    left_out = [(root / name).resolve() for name in exclude]
    found: list[Path] = []
    for name in names:
        path = (root / name.lstrip("/")).resolve()
        if not path.is_relative_to(root.resolve()) or not path.exists():
            raise WorkFailedError(f"FileNotFoundError: No such file or directory: '{name}'")
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        found += [p for p in inside if not any(p == out or out in p.parents for out in left_out)]
    return found

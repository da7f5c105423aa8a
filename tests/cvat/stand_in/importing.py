"""Annotation files that come in: CVAT's XML and COCO's JSON, with the source ``file``."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any
from xml.etree import ElementTree

from .media import WorkFailedError
from .site import Site
from .state import Row


def imported(site: Site, task: Row, fmt: str, content: bytes) -> Row:
    """The body of a PUT from a file; ``WorkFailedError`` for a format or a file that cannot be read."""
    labels = {row["name"]: row for row in site.labels_of_task(task)}
    data = site.data_of(task)
    assert data is not None
    frames = {row["name"]: number for number, row in enumerate(data["frames"])}
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                name = next(entry for entry in archive.namelist() if entry.endswith((".xml", ".json")))
                content = archive.read(name)
        if fmt.startswith("CVAT"):
            return from_xml(ElementTree.fromstring(content), labels, frames)
        if fmt.startswith("COCO"):
            return from_coco(json.loads(content), labels, frames)
    except (KeyError, ValueError, StopIteration, ElementTree.ParseError) as error:
        raise WorkFailedError(
            f"cvat.apps.dataset_manager.bindings.CvatImportError: Failed to import dataset: {error}"
        ) from error
    raise WorkFailedError(f"rest_framework.exceptions.ValidationError: Unknown input format: {fmt}")


def from_xml(root: ElementTree.Element, labels: dict[str, Row], frames: dict[str, int]) -> Row:
    body: Row = {"tags": [], "shapes": [], "tracks": []}
    for image in root.iter("image"):
        for element in image:
            label = labels[element.get("label", "")]
            specs = {attribute["name"]: attribute["id"] for attribute in label["attributes"]}
            row = {
                "frame": frames[image.get("name", "")],
                "label_id": label["id"],
                "source": "file",
                "attributes": [
                    {"spec_id": specs[child.get("name", "")], "value": child.text or ""}
                    for child in element.findall("attribute")
                ],
            }
            if element.tag == "tag":
                body["tags"].append(row)
            else:
                kind = {"box": "rectangle"}.get(element.tag, element.tag)
                body["shapes"].append({**row, "type": kind, "points": xml_points(element)})
    return body


def xml_points(element: ElementTree.Element) -> list[float]:
    if element.tag == "box":
        return [float(element.get(key, "")) for key in ("xtl", "ytl", "xbr", "ybr")]
    if element.tag == "mask":
        runs = [float(value) for value in element.get("rle", "").split(",")]
        left, top, width, height = (float(element.get(key, "")) for key in ("left", "top", "width", "height"))
        return [*runs, left, top, left + width - 1, top + height - 1]
    return [float(value) for point in element.get("points", "").split(";") for value in point.split(",")]


def from_coco(coco: Any, labels: dict[str, Row], frames: dict[str, int]) -> Row:
    """Polygons stay polygons, one shape for each ring; what has none becomes a rectangle."""
    names = {category["id"]: category["name"] for category in coco["categories"]}
    images = {image["id"]: frames[image["file_name"]] for image in coco["images"]}
    shapes: list[Row] = []
    for annotation in coco["annotations"]:
        row = {
            "frame": images[annotation["image_id"]],
            "label_id": labels[names[annotation["category_id"]]]["id"],
            "source": "file",
        }
        rings = annotation.get("segmentation") or []
        if isinstance(rings, list) and rings:
            shapes += [{**row, "type": "polygon", "points": ring} for ring in rings]
        else:
            x, y, width, height = annotation["bbox"]
            shapes.append({**row, "type": "rectangle", "points": [x, y, x + width, y + height]})
    return {"tags": [], "shapes": shapes, "tracks": []}

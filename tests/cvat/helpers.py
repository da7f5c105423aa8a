"""Small things that tests against the stand-in share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from cvat_sdk import Client
    from cvat_sdk.core.proxies.tasks import Task


def write_images(folder: Path, count: int = 3, size: tuple[int, int] = (64, 48), name: str = "img{}.png") -> list[Path]:
    """Plain images of different grey, ``(width, height)`` px."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name.format(number) for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("RGB", size, (number * 20,) * 3).save(path)
    return paths


def upload_by_tus(client: Client, task: Task, paths: list[Path], **params: Any) -> None:
    """Upload as the SDK does for files over 100 MiB, whatever their size."""
    from cvat_sdk.core.uploading import DataUploader

    url = client.api_map.make_endpoint_url(task.api.create_data_endpoint.path, kwsub={"id": task.id})
    answer = DataUploader(client, max_request_size=0).upload_files(url, paths, image_quality=70, **params)
    client.wait_for_completion(json.loads(answer.data)["rq_id"])
    task.fetch()


LABELS = [
    {
        "name": "scratch",
        "attributes": [
            {"name": "score", "mutable": False, "input_type": "text", "values": ["0"], "default_value": "0"},
            {"name": "noise", "mutable": True, "input_type": "select", "values": ["no", "yes"], "default_value": "no"},
        ],
    },
    {"name": "dent"},
]


def make_task(client: Client, folder: Path, count: int = 3, labels: list[dict] | None = None, **spec: Any) -> Task:
    """A task of plain images with the labels scratch (attributes score and noise) and dent."""
    labels = LABELS if labels is None else labels
    return client.tasks.create_from_data({"name": "batch", "labels": labels, **spec}, write_images(folder, count))


def label_ids(task: Task) -> dict[str, int]:
    return {label.name: label.id for label in task.get_labels()}


def spec_ids(task: Task) -> dict[str, int]:
    return {attribute.name: attribute.id for label in task.get_labels() for attribute in label.attributes}


def rectangle(label: int, frame: int = 0, points: tuple[float, ...] = (1, 2, 10, 12), **fields: Any) -> dict[str, Any]:
    """A rectangle as it goes over the wire."""
    return {"type": "rectangle", "label_id": label, "frame": frame, "points": list(points), **fields}


def patch(task: Any, action: str, *shapes: dict[str, Any], **kinds: list[dict[str, Any]]) -> dict[str, Any]:
    """PATCH the annotations of a task or job and return the answer as it came."""
    body = {"shapes": list(shapes), "tags": [], "tracks": [], **kinds}
    _, answer = task.api.partial_update_annotations(action, task.id, patched_labeled_data_request=body)
    return json.loads(answer.data)

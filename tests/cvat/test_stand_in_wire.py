"""The stand-in answers as the real server did whose answers were recorded."""

from __future__ import annotations

import ast
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from tests.conftest import SHARED
from tests.cvat.helpers import upload_by_tus, write_images
from tests.cvat.stand_in import Entry, StandIn
from tests.cvat.stand_in.http import JSON_TYPE
from tests.cvat.wire import Replayer, differences, header_differences, read_wire

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    from cvat_sdk import Client

# What the recorded server had counted up to before the first request.
COUNTED = {
    "project": 8,
    "label": 34,
    "attribute": 9,
    "task": 18,
    "data": 18,
    "job": 18,
    "tags": 260,
    "shapes": 857,
    "token": 3,
}
OLDER_PROJECTS = 7


@pytest.fixture
def recordings() -> Path:
    """The folder with recorded requests and answers, where there is one."""
    if not (SHARED / "cvat-wire.jsonl").is_file():
        pytest.skip("the recorded answers of a real server (../shared/cvat-wire.jsonl) are not here")
    return SHARED


@pytest.mark.shared
def test_every_answer_is_as_recorded(cvat: StandIn, recordings: Path):
    wire = read_wire(recordings / "cvat-wire.jsonl")
    for number in range(OLDER_PROJECTS):
        cvat.human.create_project(f"older {number}")
    cvat.state.counters.update(COUNTED)
    replayer = Replayer(cvat)
    found = []
    for number, recorded in enumerate(wire, 1):
        answer, body = replayer.send(recorded)
        title = f"{number} {recorded['scene']}: {recorded['method']} {recorded['path']}"
        if answer.status != recorded["status"]:
            found.append(f"{title}: recorded {recorded['status']}, answered {answer.status} {body}")
            continue
        expected = recorded["response"]["body"]
        problems = [*header_differences(recorded["response"]["headers"], answer)]
        if expected == "<0 bytes>":
            problems += ["the body is not empty"] if body else []
        elif expected == "<stream>":
            problems += [] if body[:2] == b"PK" else ["the body is no archive"]
        else:
            problems += differences(expected, body)
        found += [f"{title}: {problem}" for problem in problems]
    assert len(wire) == 68
    assert found == []


@pytest.mark.shared
def test_tus_uploads_are_as_recorded(cvat: StandIn, cvat_client: Client, recordings: Path, tmp_path: Path):
    lines = [line for line in (recordings / "cvat-tus.txt").read_text().splitlines() if not line.startswith("#")]
    recorded = [tus_line(*line.split(" | ")) for line in lines]
    assert [method for method, *_ in recorded].count("PATCH") == 3

    task = cvat_client.tasks.create({"name": "tus", "labels": [{"name": "dent"}]})
    paths = write_images(tmp_path, 2, name="{:03}.png")
    cvat.log.clear()
    upload_by_tus(cvat_client, task, paths)
    file = tmp_path / "o1.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("annotations.xml", "<annotations/>")
    task.import_annotations("CVAT 1.1", file)
    sent = [entry for entry in cvat.log if entry.method in {"POST", "PATCH"}]
    assert [answered_line(entry) for entry in sent] == recorded


def tus_line(method: str, path: str, status: str, _head: str, _body: str, _fields: str, head: str, body: str) -> tuple:
    return (method, plain(path.replace("/11/", "/1/")), int(status), plain_headers(ast.literal_eval(head)), plain(body))


def answered_line(entry: Entry) -> tuple:
    assert entry.response
    path = entry.path + ("?" + urlencode(entry.request.query) if entry.request.query else "")
    names = {"tus-resumable", "location", "upload-filename", "upload-offset"}
    headers = {name.lower(): value for name, value in entry.response.headers.items() if name.lower() in names}
    body = entry.response.encoded()
    if body:
        headers["content-type"] = JSON_TYPE
    return (
        entry.method,
        plain(path),
        entry.status,
        plain_headers(headers),
        plain(body.decode().replace('": "', '":"')),
    )


def plain_headers(headers: dict[str, str]) -> dict[str, str]:
    """Without host and upload ids, and without the sizes, which depend on the files."""
    return {name: "N" if name == "upload-offset" else plain(value) for name, value in headers.items()}


def plain(text: str) -> str:
    text = re.sub(r"http://127\.0\.0\.1:\d+", "", text.strip()).replace("target_id=11", "target_id=1")
    return re.sub(r"/11/", "/1/", re.sub(r"1_[0-9a-f-]{36}", "UPLOAD", text))

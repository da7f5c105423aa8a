"""Functions of agents: the requests that cvat-cli's agent makes, and the agent itself where it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cvat.helpers import label_ids, make_task, rectangle
from tests.cvat.stand_in import StandIn

pytest.importorskip("cvat_sdk")

if TYPE_CHECKING:
    from cvat_sdk import Client

FUNCTION = """
import cvat_sdk.auto_annotation as cvataa
spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("blemish", 0)])
def detect(context, image):
    return [cvataa.rectangle(0, [1, 1, 9, 9])]
"""


def call(client: Client, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    _, answer = client.api_client.call_api(f"/api/functions{path}", method, body=body, _check_status=False)
    return answer.status, json.loads(answer.data) if answer.data else None


def test_an_agent_fetches_a_request_and_delivers(cvat: StandIn, cvat_client: Client, tmp_path: Path):
    task = make_task(cvat_client, tmp_path)
    cvat.human.add(task.id, 2, "scratch", [1, 1, 5, 5])
    labels = [{"name": "blemish", "attributes": []}]
    spec = {"provider": "native", "name": "f", "kind": "detector", "labels_v2": labels}
    status, function = call(cvat_client, "POST", "", spec)
    assert (status, function["labels_v2"][0]["type"]) == (201, "any")
    number = function["id"]
    queue, agent = f"/queues/function:{number}/requests", {"agent_id": "a"}
    batch = {**agent, "request_category": "batch"}
    assert call(cvat_client, "POST", f"{queue}/acquire", batch) == (200, {"ar_assignment": None})

    request = cvat.human.ask_function(number, task.id, {"blemish": "dent"}, cleanup=True)
    assert call(cvat_client, "POST", f"{queue}/acquire", {**batch, "request_category": "interactive"})[1] == {
        "ar_assignment": None
    }
    _, assignment = call(cvat_client, "POST", f"{queue}/acquire", batch)
    assert assignment["ar_assignment"]["ar_id"] == request
    assert assignment["ar_assignment"]["ar_params"]["mapping"] == {"blemish": {"name": "dent"}}
    assert call(cvat_client, "POST", f"{queue}/{request}/update", {**agent, "progress": 0.5})[0] == 200
    assert call(cvat_client, "POST", f"{queue}/{request}/complete", {"agent_id": "another"})[0] == 403
    result = {"annotations": {"shapes": [rectangle(label_ids(task)["dent"], 1, source="auto")]}}
    assert call(cvat_client, "POST", f"{queue}/{request}/complete", {**agent, **result})[0] == 200
    assert [(s.frame, s.source) for s in task.get_annotations().shapes] == [(1, "auto")]

    failed = cvat.human.ask_function(number, task.id, {})
    call(cvat_client, "POST", f"{queue}/acquire", batch)
    assert call(cvat_client, "POST", f"{queue}/{failed}/fail", {**agent, "exc_info": "no"})[0] == 200
    assert cvat.state.function_requests[failed]["status"] == "failed"
    assert call(cvat_client, "DELETE", f"/{number}")[0] == 204
    assert call(cvat_client, "POST", f"{queue}/acquire", batch)[0] == 404


def test_a_queue_can_be_watched(cvat: StandIn, cvat_client: Client, tmp_path: Path):
    task = make_task(cvat_client, tmp_path)
    _, function = call(cvat_client, "POST", "", {"provider": "native", "name": "f", "kind": "detector"})
    _, stream = cvat_client.api_client.call_api(
        f"/api/functions/queues/function:{function['id']}/watch", "GET", _parse_response=False
    )
    assert stream.readline() == b"retry: 100\n"
    cvat.human.ask_function(function["id"], task.id, {})
    lines = iter(stream.readline, b"")
    assert next(line for line in lines if line.startswith(b"data:")) == b'data: {"request_category": "batch"}\n'
    call(cvat_client, "DELETE", f"/{function['id']}")
    assert list(lines)[-1] == b":\n"


def test_the_agent_of_cvat_cli_works_through_the_queue(cvat: StandIn, cvat_client: Client, tmp_path: Path):
    pytest.importorskip("cvat_cli", reason="cvat-cli is not installed")
    task = make_task(cvat_client, tmp_path / "images")
    (tmp_path / "function.py").write_text(FUNCTION)
    environment = {**os.environ, "CVAT_ACCESS_TOKEN": cvat.token(), "HOME": str(tmp_path)}

    def cvat_cli(*arguments: str) -> str:
        command = [sys.executable, "-m", "cvat_cli", "--server-host", cvat.url, "function", *arguments]
        source = ["--function-file", str(tmp_path / "function.py")]
        return subprocess.run(
            [*command, *source], env=environment, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    number = int(cvat_cli("create-native", "blemishes"))
    request = cvat.human.ask_function(number, task.id, {"blemish": "dent"})
    cvat_cli("run-agent", str(number), "--burst")
    assert cvat.state.function_requests[request]["status"] == "finished"
    assert [(s.frame, s.points) for s in task.get_annotations().shapes] == [(n, [1, 1, 9, 9]) for n in range(3)]

"""``autolabel serve`` as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.label_studio.server import free_port
from tests.serve.helpers import CONFIG, install_squares
from tests.serve.test_backend import inline

SERVE = [sys.executable, "-m", "autolabel.cli", "serve"]
RECIPE = ["-p", "scratch. dent.", "--detector", "squares:any", "--segmenter", "none", "--classifier", "none"]


def test_the_command_serves_and_ends_when_told(workspace: Path) -> None:
    environment = install_squares(workspace / "installed") | {"LABEL_STUDIO_API_KEY": "s3cret" * 7}
    port = free_port()
    command = [*SERVE, "label-studio", *RECIPE, "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "ready" in line:
                break
        address = f"http://127.0.0.1:{port}"
        # Loading is a thread beside the listening: either may be first.
        with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:
            assert client.get(f"{address}/health").json()["status"] == "UP"
            body = {"tasks": [{"id": 1, "data": {"image": inline(("dent", 2, 3, 9))}}], "label_config": CONFIG}
            (result,) = client.post(f"{address}/predict", json=body).json()["results"]
        assert [item["value"]["rectanglelabels"] for item in result["result"]] == [["dent"]]
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in rest
    assert "s3cret" not in "".join(said) + rest


def test_a_tool_that_is_not_known_and_half_a_password_are_named(workspace: Path) -> None:
    environment = install_squares(workspace / "installed")
    for extra, changes, words in (
        (["paint"], {}, "known are label-studio"),
        (["label-studio"], {"AUTOLABEL_SERVE_USER": "ann"}, "AUTOLABEL_SERVE_PASSWORD"),
    ):
        command = [*SERVE, *extra, *RECIPE]
        told = environment | changes
        done = subprocess.run(command, env=told, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 2
        assert words in done.stderr

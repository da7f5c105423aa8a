"""A review session in the real App: served by the command, driven in a browser and by the App's own HTTP calls."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import autolabel
from autolabel.corrections import read_decisions
from autolabel.issues import write_issues
from autolabel.reviewing import load_reviewer
from autolabel.types import LabelIssue
from tests.conftest import Models, write_pictures

CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), "")
pytestmark = pytest.mark.slow


@dataclass
class Served:
    """The command as a reviewer starts it, and what it says."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def wait_for_url(self) -> str:
        """The address it tells; fails with all it said when it ends without."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"http://\S+(?=;)", line):
                return found.group()
        pytest.fail("the command ended:\n" + "".join(self.lines))

    def end(self) -> str:
        """Stop it as a supervisor does; returns the rest of what it says."""
        self.process.send_signal(signal.SIGTERM)
        rest, _ = self.process.communicate(timeout=60)
        return rest


@pytest.fixture
def run(tmp_path: Path) -> autolabel.Run:
    write_pictures(tmp_path / "images", 6)
    made = autolabel.run(tmp_path / "images", prompt="scratch. dent.", path=tmp_path / "run", **Models())
    bad = next(item for item in made if len(item.annotations) == 2)
    write_issues(
        made.path, [LabelIssue("label", bad.image.path, bad.image.id, 0.1, True, "why", bad.annotations[0].id)], {}
    )
    return made


@pytest.fixture
def served(fiftyone, mongodb, run, tmp_path) -> Iterator[Served]:
    arguments = ["review", str(run.path), "--remote", "--address", "127.0.0.1", "--port", str(free_port())]
    process = subprocess.Popen(
        [sys.executable, "-m", "autolabel.cli", *arguments],
        env={**os.environ, **mongodb.environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    yield Served(process)
    watchdog.cancel()
    if process.poll() is None:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def send(method: str, url: str, values: object, **headers: str) -> dict:
    request = urllib.request.Request(
        url, json.dumps(values).encode(), {"Content-Type": "application/json", **headers}, method=method
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def apply(run: autolabel.Run):
    return load_reviewer().apply(autolabel.Run.open(run.path), by="ann", dry_run=False, on_step=lambda *_: None)


def test_edits_and_tags_by_the_apps_own_calls_come_back(fiftyone, served, run):
    url = served.wait_for_url()
    origin = url.partition("/datasets/")[0]
    dataset = fiftyone.load_dataset(run.name)
    first, second, third = list(dataset.match(fiftyone.ViewField("annotation_count") > 0).sort_by("path"))[:3]
    scratch = first.annotations.detections[0]
    # Relabelled in annotate mode.
    stamp = {"If-Match": f'"{base64.b64encode(first.last_modified_at.isoformat().encode()).decode()}"'}
    send(
        "PATCH",
        f"{origin}/dataset/{dataset._doc.id}/sample/{first.id}/annotations.detections/{scratch.id}",
        [{"op": "replace", "path": "/label", "value": "dent" if scratch.label == "scratch" else "scratch"}],
        **stamp,
        **{"Content-Type": "application/json-patch+json"},
    )
    tagging = {"dataset": dataset.name, "view": [], "filters": {}, "modal": False}
    labels = {**tagging, "target_labels": True, "label_fields": ["annotations"]}
    send("POST", f"{origin}/tag", {**labels, "sample_ids": [second.id], "changes": {"reject": True}})
    send("POST", f"{origin}/tag", {**tagging, "sample_ids": [third.id], "changes": {"reviewed": True}})
    assert "3 images hold decisions" in served.end()
    assert served.process.returncode == 0
    report = apply(run)
    assert report.warnings == ()
    assert report.counts == {
        "edited": 1,
        "deleted": second.annotation_count,
        "accepted": third.annotation_count,
        "reviewed": 1,
    }
    corrected = autolabel.Run.open(run.path)
    assert corrected[second.path].annotations == ()
    edited = next(a for a in corrected[first.path].annotations if a.id == scratch.annotation_id)
    assert (edited.label != scratch.label, edited.origin) == (True, "human")


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; install the system's chromium package")
def test_suspects_tagged_in_a_browser_come_back(fiftyone, served, run):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    url = served.wait_for_url()
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{url}?view=suspects-patches")
        grid = page.locator("[data-cy=looker]")
        playwright.expect(grid).to_have_count(1, timeout=60_000)
        playwright.expect(page.locator("[data-cy=tag-annotations]")).to_have_text(re.compile("scratch|dent"))
        page.get_by_role("button", name="Dismiss").click()  # an advertisement lies over the page
        page.locator("[data-cy=action-tag-sample-labels]").first.click()
        page.locator("[data-cy=sample-tag-input]").fill("relabel:hole")
        page.keyboard.press("Enter")
        with page.expect_response(lambda answer: answer.url.endswith("/tag")) as answered:
            page.get_by_text("Apply", exact=True).click()
        assert answered.value.ok
        assert problems == []
        browser.close()
    assert "1 images hold decisions" in served.end()
    assert apply(run).counts == {"edited": 1}
    (decision,) = read_decisions(run.path)
    assert (decision.label, decision.by) == ("hole", "ann")

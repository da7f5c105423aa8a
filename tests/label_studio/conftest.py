"""Fixtures for tests against a real Label Studio server: see server.py."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.label_studio.server import ADMIN, PASSWORD, LabelStudioServer, reason_missing
from tests.services import unavailable

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.label_studio.editor import LabelEditor

CHROMIUM = next(
    (
        found
        for name in (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
        if name and (found := shutil.which(name))
    ),
    "",
)


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    """A running server, shared by all tests of this process; skips without one, but fails in continuous integration."""
    if reason := reason_missing():
        unavailable(reason)
    with LabelStudioServer.make(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(autouse=True)
def _label_studio_runs_again(request: pytest.FixtureRequest) -> None:
    """A test that stopped the server, or failed halfway, leaves no trouble to the next one."""
    if "label_studio" in request.fixturenames:
        request.getfixturevalue("label_studio").start()


@pytest.fixture(scope="session")
def label_studio_browser() -> Iterator[Browser]:
    """A headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("no Chromium here; install the system's chromium package")
    with api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def label_studio_page(label_studio: LabelStudioServer, label_studio_browser: Browser) -> Iterator[Page]:
    """A page signed in as the administrator: ``page.goto("/projects/1/data?task=1")``."""
    page = sign_in(label_studio, label_studio_browser)
    yield page
    page.context.close()


@pytest.fixture
def label_studio_editor(label_studio_page: Page) -> LabelEditor:
    """The labeling screen for the administrator: see editor.py."""
    from tests.label_studio.editor import LabelEditor

    return LabelEditor(label_studio_page)


def sign_in(server: LabelStudioServer, browser: Browser, email: str = ADMIN, password: str = PASSWORD) -> Page:
    """A page of its own for a person; close its ``context`` when done."""
    context = browser.new_context(base_url=server.url, viewport={"width": 1600, "height": 1000})
    page = context.new_page()
    page.goto("/user/login/")
    page.fill("input[name=email]", email)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/user/login" not in url)
    return page


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Show the server's log below a failure."""
    report = yield
    server = getattr(item, "funcargs", {}).get("label_studio")
    if report.failed and isinstance(server, LabelStudioServer):
        report.sections.append(("Label Studio log", server.log_tail()))
    return report

"""A real Label Studio server for tests: its own virtual environment, a cached migrated database, an ephemeral port.

In a test, ask for the fixture (conftest.py)::

    def test_push(label_studio: LabelStudioServer) -> None:
        project = label_studio.fresh_project('<View>…</View>')      # a label_studio_sdk project
        client = label_studio.client()                              # label_studio_sdk.LabelStudio
        label_studio.url, label_studio.token, label_studio.files    # address, API token, local-files document root
        label_studio.restart()                                      # same address, same data
        anna = label_studio.add_user("anna@example.com")            # an annotator with a token of their own

One server lives for each test process and serves all its tests, so use ``fresh_project`` and leave other projects
alone. A test may stop it: the next test finds it running again. A test that needs other settings starts its own:
``with LabelStudioServer.make(tmp_path, MAX_SESSION_AGE="60") as server: …`` (4 s).

``make setup-dev`` installs the server. ``python -m tests.label_studio.server`` starts one to look at in a browser.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from filelock import FileLock

from tests.services import launch, stop

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-label-studio"
PINS = ROOT / "tools" / "label-studio.txt"
ADMIN = "admin@example.com"
PASSWORD = "label-studio-tests"
TOKEN = "0123456789abcdef0123456789abcdef01234567"
START_LIMIT_S = 180.0  # the first start migrates the database: 30 s alone on a machine, more beside other work

SETTINGS = {
    "LABEL_STUDIO_USERNAME": ADMIN,
    "LABEL_STUDIO_PASSWORD": PASSWORD,
    "LABEL_STUDIO_USER_TOKEN": TOKEN,
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
    "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
    "DJANGO_DB": "sqlite",
    "LATEST_VERSION_CHECK": "false",
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    # Both are on by default, and refuse ML backends and webhooks on this machine.
    "ML_BLOCK_LOCAL_IP": "false",
    "SSRF_PROTECTION_ENABLED": "false",
}


class ServerError(RuntimeError):
    """The server did not start or did not answer; the message ends with its log."""


def reason_missing() -> str:
    """Why no server can be started here, or an empty string."""
    if not executable().is_file():
        return f"no Label Studio server in {VENV.name}; `make setup-dev` installs it"
    return ""


def executable() -> Path:
    """The server's command."""
    return VENV / "bin" / "label-studio"


@dataclass(frozen=True, slots=True)
class LabelStudioUser:
    """A person who labels."""

    id: int
    email: str
    password: str
    token: str


@dataclass(slots=True)
class LabelStudioServer:
    """A server process over ``data_dir``, listening at ``127.0.0.1:port``; ``environment`` overrides its settings."""

    data_dir: Path
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    token: str = TOKEN
    process: subprocess.Popen[bytes] | None = None
    _access_token: str = field(default="", repr=False)

    @classmethod
    def make(cls, folder: Path, **environment: str) -> LabelStudioServer:
        """A server, not started yet, with an empty migrated database and room for files in ``folder``."""
        data_dir = folder / "label-studio"
        shutil.copytree(template(), data_dir)
        server = cls(data_dir, free_port(), environment)
        server.files.mkdir()
        return server

    @property
    def url(self) -> str:
        """Address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def files(self) -> Path:
        """Document root of local-files storage; a storage's path must be a folder below it."""
        return self.data_dir / "files"

    @property
    def log(self) -> Path:
        """What the server printed since it was made."""
        return self.data_dir / "server.log"

    def __enter__(self) -> LabelStudioServer:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def running(self) -> bool:
        """Whether the process is alive."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start unless it runs already, and return when it answers."""
        if self.running():
            return
        settings = {
            **SETTINGS,
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data_dir),
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(self.files),
            **self.environment,
        }
        # Settings that a developer exported for a server of their own must not reach this one.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LABEL_STUDIO_")}
        serve = [executable(), "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(self.port)]
        self.process = launch(serve, self.log, {**inherited, **settings})
        try:
            self.wait_until(self._healthy, "an answer from /health", limit_s=START_LIMIT_S)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End the process as an administrator would, or by force if it takes too long."""
        if self.process is not None:
            stop(self.process)
            self.process = None

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        if self.process is not None:
            stop(self.process, signal.SIGKILL)
            self.process = None

    def restart(self) -> None:
        """Stop and start: same address, same data."""
        self.stop()
        self.start()

    def client(self, token: str | None = None, **options: Any) -> LabelStudio:
        """The official SDK, signed in as the administrator or with ``token``; ``options`` go to its constructor."""
        from label_studio_sdk import LabelStudio

        return LabelStudio(base_url=self.url, api_key=token or self.token, **options)

    def http(self, token: str | None = None) -> httpx.Client:
        """A plain HTTP client, signed in as the administrator or with a (legacy) ``token``."""
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Token {token or self.token}"}, timeout=60, trust_env=False
        )

    def fresh_project(self, label_config: str, title: str = "test", **settings: Any) -> Any:
        """Make a project whose title nobody else has; answers what the SDK does (``.id``, ``.title``)."""
        unique = f"{title[:40]} {secrets.token_hex(4)}"
        return self.client().projects.create(title=unique, label_config=label_config, **settings)

    def access_token(self) -> str:
        """A personal access token of the administrator: the newer kind, a refresh JWT.

        The server makes one for each person, shows it once, and refuses a second (409): every test of a process
        gets the same.
        """
        if not self._access_token:
            with self.http() as http:
                self._access_token = str(http.post("/api/token/").raise_for_status().json()["token"])
        return self._access_token

    def add_user(self, email: str, password: str = PASSWORD) -> LabelStudioUser:
        """Sign a person up through the organisation's invitation link, as people do."""
        with self.http() as http:
            invitation = http.get("/api/invite").raise_for_status().json()["invite_url"]
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False) as visitor:
            form = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', visitor.get(invitation).text)
            assert form, "Label Studio's sign-up page has no form"
            answer = visitor.post(
                invitation, data={"email": email, "password": password, "csrfmiddlewaretoken": form[1]}
            )
            assert answer.status_code == 302, f"Label Studio refused to sign {email} up"
            token = visitor.get("/api/current-user/token").raise_for_status().json()["token"]
            person = visitor.get("/api/current-user/whoami").raise_for_status().json()
        return LabelStudioUser(person["id"], email, password, token)

    def wait_until(self, check: Callable[[], bool], what: str, limit_s: float = 30.0) -> None:
        """Call ``check`` until it is true; ServerError if the server ends or ``limit_s`` seconds pass before."""
        deadline = time.monotonic() + limit_s
        while not check():
            if not self.running():
                raise ServerError(f"Label Studio ended while waiting for {what}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"Label Studio gave no sign of {what} in {limit_s:.0f} s:\n{self.log_tail()}")
            time.sleep(0.1)

    def log_tail(self, lines: int = 60) -> str:
        """The end of the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        once = [line for line, _ in groupby(text.splitlines())]  # the server prints every line through two handlers
        return "\n".join(once[-lines:])

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def template() -> Path:
    """A data folder with a migrated database; made once, by the first test process that comes here (30 s)."""
    made_of = PINS.read_text() + repr(SETTINGS)
    folder = VENV / f"data-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
    with FileLock(VENV / "data.lock"):
        if not folder.is_dir():
            unfinished = VENV / "data-unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            with LabelStudioServer(unfinished, free_port()):
                pass
            (unfinished / "server.log").unlink()
            unfinished.rename(folder)
    return folder


if __name__ == "__main__":
    import tempfile

    if reason := reason_missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as scratch, LabelStudioServer.make(Path(scratch)) as shown:
        print(f"{shown.url}  user {ADMIN}  password {PASSWORD}  token {TOKEN}\nlog {shown.log}\nCtrl-C stops it")
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("stopping")

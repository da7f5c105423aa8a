"""Which projects a run is synced with, and the servers' addresses and tokens under the ecosystem's own names.

``RUN/sync/SOURCE/target.json`` remembers tool, project, address and how regions are shown; never a token.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from autolabel.connect import Connector, PushOptions, Target
from autolabel.corrections import source_slug
from autolabel.errors import StoreError, UsageError
from autolabel.manifest import write_atomically

ENV_FILE = ".env"
FOLDER = "sync"
_FILE = "target.json"


@dataclass(frozen=True, slots=True)
class Remembered:
    """A project that a run was pushed to, without its token, and the options of that push."""

    target: Target
    options: PushOptions


def target_for(
    connector: Connector,
    tool: str,
    project: str,
    *,
    url: str | None = None,
    token: str | None = None,
    env_file: Path | None = None,
) -> Target:
    """Find a project's server and token: option first, then the environment, then the ``.env`` file.

    Raises UsageError that names the variables to set.
    """
    values = known_variables(env_file)
    found_url = url or _first(values, connector.env_url) or connector.default_url
    found_token = token or _first(values, connector.env_token) or _login(values, getattr(connector, "env_login", ()))
    if not found_url:
        raise UsageError(f"where is {tool}? give --url http://… or set {connector.env_url[0]}")
    if not found_token and not getattr(connector, "finds_token", False):
        names = " or ".join(connector.env_token)
        raise UsageError(f"no token for {tool} at {found_url}: set {names} in the environment or in {ENV_FILE}")
    return Target(tool, project, checked_url(found_url), found_token or "")


def known_variables(env_file: Path | None = None) -> dict[str, str]:
    """Read the ``.env`` file (default: of the working directory) and lay the environment over it."""
    from dotenv import dotenv_values

    if env_file is not None and not env_file.is_file():
        raise UsageError(f"--env-file {env_file}: there is no such file")
    stored = dotenv_values(env_file or ENV_FILE)
    return {**{name: value for name, value in stored.items() if value is not None}, **os.environ}


def checked_url(url: str) -> str:
    """Return a server's address without a trailing slash; raises UsageError where it is none or holds a password."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--url must look like http://localhost:8080, got {_without_password(url)!r}")
    if parts.username or parts.password:
        raise UsageError("--url must not hold a user or password; set the token in the environment instead")
    return url.rstrip("/")


def remember(run: Path, target: Target, options: PushOptions) -> None:
    """Make a project known to later pulls and syncs of this run."""
    folder = run / FOLDER / source_slug(target.source)
    folder.mkdir(parents=True, exist_ok=True)
    values = {"tool": target.tool, "project": target.project, "url": target.url}
    shown = asdict(replace(options, dry_run=False))
    write_atomically(folder / _FILE, (json.dumps({**values, "options": shown}, indent=2) + "\n").encode())


def forget(run: Path, target: Target) -> None:
    """Take back `remember`: the project turned out to be none."""
    (run / FOLDER / source_slug(target.source) / _FILE).unlink(missing_ok=True)


def remembered(run: Path, tool: str | None = None, project: str | None = None) -> list[Remembered]:
    """Projects that a run was pushed to, those of one tool or project alone if asked."""
    found = []
    for path in sorted((run / FOLDER).glob(f"*/{_FILE}")):
        values = _read(path)
        target = Target(values["tool"], values["project"], values["url"])
        if tool in (None, target.tool) and project in (None, target.project):
            known = {field.name for field in fields(PushOptions)}
            options = PushOptions(**{k: v for k, v in values["options"].items() if k in known})
            found.append(Remembered(target, options))
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text("utf-8"))
        return {**values, "options": dict(values["options"]), "tool": str(values["tool"])}
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}); remove it, and push with --to and --project again") from None


def _without_password(url: str) -> str:
    return url.rsplit("@", 1)[-1]


def _login(values: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> str | None:
    """Return ``USER:PASSWORD`` of the first pair of variables that are both set."""
    found = ((values.get(user), values.get(password)) for user, password in pairs)
    return next((f"{user}:{password}" for user, password in found if user and password), None)


def _first(values: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((values[name] for name in names if values.get(name)), None)

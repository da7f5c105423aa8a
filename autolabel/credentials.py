"""Addresses and tokens of servers: from options, the environment or a ``.env`` file, under the ecosystem's own names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from autolabel.connect import Connector, Target
from autolabel.errors import UsageError

ENV_FILE = ".env"


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
    found_token = token or _first(values, connector.env_token)
    if not found_url:
        raise UsageError(f"where is {tool}? give --url http://… or set {connector.env_url[0]}")
    if not found_token:
        names = " or ".join(connector.env_token)
        raise UsageError(f"no token for {tool} at {found_url}: set {names} in the environment or in {ENV_FILE}")
    return Target(tool, project, checked_url(found_url), found_token)


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


def _without_password(url: str) -> str:
    return url.rsplit("@", 1)[-1]


def _first(values: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((values[name] for name in names if values.get(name)), None)

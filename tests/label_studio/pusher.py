"""Pushes in a process of its own, which a test may kill at any moment.

Python and the SDK are loaded once; each push is a fork. One line of JSON in, the child's pid and later its status out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]


class Pusher:
    """The parent's side; use as a context manager."""

    def __enter__(self) -> Pusher:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.label_studio.pusher"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def start(self, run: Path, title: str, url: str, token: str) -> int:
        """Start a push; returns its pid."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([str(Path.cwd()), str(run), title, url, token]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def status(self) -> int:
        """Wait for the push and return its exit status, negative for a signal."""
        assert self._process.stdout
        return int(self._process.stdout.readline())


def main() -> None:
    import label_studio_sdk.label_interface.interface  # noqa: F401, loaded before the fork

    import autolabel
    from autolabel.connect import PushOptions, Target
    from autolabel_connectors.label_studio import LabelStudioConnector
    from autolabel_connectors.label_studio.retrying import Patience

    for line in sys.stdin:
        folder, run, title, url, token = json.loads(line)
        child = os.fork()
        if child == 0:
            os.chdir(folder)
            target = Target("label-studio", title, url, token)
            patient = LabelStudioConnector(Patience(0.01, 0.05, 5.0))
            try:
                patient.push(autolabel.Run.open(run), target, PushOptions(), lambda *_: None)
            except BaseException as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()

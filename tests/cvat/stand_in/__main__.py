"""Run the stand-in as a process: ``python -m tests.cvat.stand_in --port 8090 --state FILE``."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

from .server import StandIn


def main() -> None:
    parser = argparse.ArgumentParser(prog="stand_in")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--share", type=Path)
    parser.add_argument("--version", default="2.54.1")
    options = parser.parse_args()
    with StandIn(port=options.port, state_file=options.state, share=options.share, version=options.version) as server:
        print(f"{server.url} {server.user} {server.password}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()

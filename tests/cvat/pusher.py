"""Pushes and pulls in a process of their own, which a test may kill at any moment; loaded once, forked for each."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    import cvat_sdk.core.client
    import cvat_sdk.core.uploading  # noqa: F401, loaded before the fork

    import autolabel
    from autolabel.connect import PushOptions, Target
    from autolabel_connectors.cvat import CvatConnector, history, images, pull, push, sending  # noqa: F401

    def work(order: dict[str, Any]) -> None:
        os.chdir(order["folder"])
        for name, value in order.get("sizes", {}).items():
            module = next(one for one in (images, sending) if hasattr(one, name))
            setattr(module, name, value)
        target = Target("cvat", order["project"], order["url"], order["token"])
        connector = CvatConnector(5.0, 0.01)
        for deed in order.get("deeds", ["push"]):
            run = autolabel.Run.open(order["run"])
            if deed == "push":
                connector.push(run, target, PushOptions(**order.get("options", {})), lambda *_: None)
            else:
                connector.pull(run, target, lambda *_: None)

    child = 0
    for line in sys.stdin:
        if child:
            os.waitpid(child, 0)  # not before now: while it is waited for, its id is given to no other process
        child = os.fork()
        if child == 0:
            try:
                work(json.loads(line))
            except BaseException as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        print(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status, flush=True)


if __name__ == "__main__":
    main()

"""A push in a process of its own, which a test may kill at any moment; loaded once, forked for each push."""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    import cvat_sdk.core.client
    import cvat_sdk.core.uploading  # noqa: F401, loaded before the fork

    import autolabel
    from autolabel.connect import PushOptions, Target
    from autolabel_connectors.cvat import CvatConnector, push  # noqa: F401

    for line in sys.stdin:
        folder, run, project, url, token = json.loads(line)
        child = os.fork()
        if child == 0:
            os.chdir(folder)
            target = Target("cvat", project, url, token)
            try:
                CvatConnector(5.0, 0.01).push(autolabel.Run.open(run), target, PushOptions(), lambda *_: None)
            except BaseException as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()

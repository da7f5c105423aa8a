"""Two-way sync with CVAT; units of the tool appear in `convert` and `geometry` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autolabel.connect import OnStep, PullReport, PushOptions, PushReport, Target
    from autolabel.dataset import Run


class CvatConnector:
    """Sync with a CVAT server, hosted anywhere, by access token or by ``USER:PASSWORD`` in its place.

    ``patience_s``: how long the waits for one request may add up to; ``pace`` scales the waits between tries.
    """

    env_url = ("CVAT_URL", "FIFTYONE_CVAT_URL")
    env_token = ("CVAT_ACCESS_TOKEN",)
    env_login = (("CVAT_USERNAME", "CVAT_PASSWORD"), ("FIFTYONE_CVAT_USERNAME", "FIFTYONE_CVAT_PASSWORD"))
    finds_token = True
    default_url: str | None = "http://localhost:8080"

    def __init__(self, patience_s: float | None = None, pace: float = 1.0) -> None:
        self._patience_s, self._pace = patience_s, pace

    def push(self, run: Run, target: Target, options: PushOptions, on_step: OnStep) -> PushReport:
        """Bring the project up to date with the run, without touching what people made or changed."""
        from autolabel_connectors.cvat.client import open_server
        from autolabel_connectors.cvat.push import Push
        from autolabel_connectors.cvat.upload import check_media
        from autolabel_connectors.cvat.wire import PATIENCE_SECONDS
        from autolabel_connectors.receipts import open_receipts

        check_media(options)
        patience = self._patience_s if self._patience_s is not None else PATIENCE_SECONDS
        server = open_server(target, writable=not options.dry_run, patience=patience, pace=self._pace)
        with server, open_receipts(run.path, target.source) as receipts:
            return Push(server, run, target, options, receipts, on_step).run_all()

    def pull(self, run: Run, target: Target, on_step: OnStep, *, dry_run: bool = False) -> PullReport:
        """Bring people's decisions into the run as corrections and reviews."""
        from autolabel_connectors.cvat.client import open_server
        from autolabel_connectors.cvat.pull import Pull
        from autolabel_connectors.cvat.wire import PATIENCE_SECONDS
        from autolabel_connectors.receipts import open_receipts

        patience = self._patience_s if self._patience_s is not None else PATIENCE_SECONDS
        server = open_server(target, writable=False, patience=patience, pace=self._pace)
        with server, open_receipts(run.path, target.source) as receipts:
            return Pull(server, run, target, receipts, on_step, dry_run=dry_run).run_all()


def connector() -> CvatConnector:
    """Return the connector; the entry point."""
    return CvatConnector()

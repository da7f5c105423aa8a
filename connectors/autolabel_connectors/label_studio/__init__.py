"""Two-way sync with Label Studio; units of the tool appear in `convert` and `brush` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autolabel.errors import UsageError

if TYPE_CHECKING:
    from autolabel.connect import OnStep, PullReport, PushOptions, PushReport, Target
    from autolabel.dataset import Run
    from autolabel_connectors.label_studio.http import Api
    from autolabel_connectors.label_studio.retrying import Patience


class LabelStudioConnector:
    """Sync with a Label Studio server, hosted anywhere, by legacy or personal access token."""

    env_url = ("LABEL_STUDIO_URL", "LABEL_STUDIO_HOST")
    env_token = ("LABEL_STUDIO_API_KEY", "LABEL_STUDIO_TOKEN")
    default_url: str | None = "http://localhost:8080"

    def __init__(self, patience: Patience | None = None, timeout_s: float | None = None) -> None:
        self._patience, self._timeout_s = patience, timeout_s

    def push(self, run: Run, target: Target, options: PushOptions, on_step: OnStep) -> PushReport:
        """Bring the project up to date with the run, without touching tasks that people worked on."""
        from autolabel_connectors.garbage import rare_collections
        from autolabel_connectors.label_studio.push import Push
        from autolabel_connectors.receipts import open_receipts

        with rare_collections(), self._api(target) as api, open_receipts(run.path, target.source) as receipts:
            return Push(api, run, target, options, receipts, on_step).run_all()

    def pull(self, run: Run, target: Target, on_step: OnStep, *, dry_run: bool = False) -> PullReport:
        """Bring people's annotations into the run as corrections and reviews."""
        from autolabel_connectors.label_studio.pull import Pull
        from autolabel_connectors.receipts import open_receipts

        with self._api(target) as api, open_receipts(run.path, target.source) as receipts:
            return Pull(api, run, target, receipts, on_step, dry_run=dry_run).run_all()

    def _api(self, target: Target) -> Api:
        try:
            import label_studio_sdk  # noqa: F401

            from autolabel_connectors.label_studio.http import Api
        except ImportError as error:
            raise UsageError(
                f'{error.name} is not installed; pip install "autolabel-vision[label-studio]" brings what Label Studio '
                "needs"
            ) from None
        return Api(target.url, target.token, self._patience, self._timeout_s)


def connector() -> LabelStudioConnector:
    """Return the connector; the entry point."""
    return LabelStudioConnector()

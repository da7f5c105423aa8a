"""A tab of the Data Manager that shows a project's tasks in the order that a push gave them.

It is made once, under a title of its own. From then on it is people's: they may change, rename or delete it, and no
push makes it again. Tabs of theirs are never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autolabel_connectors.label_studio.compose import PRIORITY
from autolabel_connectors.label_studio.errors import ServerError, UnsureError
from autolabel_connectors.label_studio.remote import IMAGE_ID
from autolabel_connectors.label_studio.session import Session

TITLE = "autolabel: look here first"
_COLUMN = f"tasks:data.{PRIORITY}"
_NOTED = "tab"
_DATA = {
    "title": TITLE,
    "type": "list",
    "target": "tasks",
    "ordering": [f"-{_COLUMN}"],
    # Without it the server sorts as text, where 1e-06 comes before 0.9.
    "columnsDisplayType": {_COLUMN: "Number"},
    "hiddenColumns": {
        "explore": [
            f"tasks:{name}"
            for name in (
                f"data.{IMAGE_ID}",
                "inner_id",
                "completed_at",
                "annotators",
                "annotations_results",
                "annotations_ids",
                "predictions_score",
                "predictions_model_versions",
                "predictions_results",
                "file_upload",
                "storage_filename",
                "created_at",
                "updated_at",
                "updated_by",
                "avg_lead_time",
                "draft_exists",
            )
        ],
        "labeling": [],
    },
}


def show_order(session: Session) -> None:
    """Make the tab where tasks were put in order and none has been made before."""
    noted = session.receipts.noted(_NOTED) == session.project.identity
    if session.options.order == "path" or (noted and not session.project.made):
        return
    known = _tabs(session) if session.project.id else []
    if not _ours(known):
        session.account.tell("create tab", detail=TITLE)
        if session.dry:
            return
        try:
            _make(session, {int(tab["id"]) for tab in known})
        except ServerError as error:
            if error.status != 403:
                raise
            session.account.warn(f"{error}; until then, sort the tasks by the column {PRIORITY!r} yourself")
            return
    if not session.dry:
        session.receipts.note(_NOTED, session.project.identity)


def _make(session: Session, known: set[int]) -> None:
    """Make the tab once, whatever becomes of the answer, and whether the network delivers the request twice."""
    lost: UnsureError | None = None
    for _ in range(3):
        try:
            session.api.request(
                "POST",
                "/api/dm/views/",
                params={"project": session.project.id},
                body={"project": session.project.id, "data": _DATA},
                doing=f"make the tab {TITLE!r}",
            )
        except UnsureError as error:
            lost = error
        made = [tab for tab in _ours(_tabs(session)) if int(tab["id"]) not in known]
        for twin in made[1:]:
            session.api.request("DELETE", f"/api/dm/views/{twin['id']}/", doing="remove a tab that was made twice")
        if made:
            return
    raise lost or ServerError(f"{session.api.url} made no tab {TITLE!r}; run the same command again")


def _tabs(session: Session) -> Sequence[Mapping[str, Any]]:
    answer = session.api.get("/api/dm/views/", {"project": session.project.id}, doing="read the project's tabs")
    return list(answer)


def _ours(tabs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [tab for tab in tabs if (tab.get("data") or {}).get("title") == TITLE]

"""The event log: who did what and when, written out as a table by a background request."""

from __future__ import annotations

import csv
import io
import json
import uuid

from ..http import ApiError, Request, Response
from ..media import WorkFailedError
from ..routes import route
from ..site import Site
from ..state import Row
from .extras import organization_of
from .requests import enqueue, own

COLUMNS = (
    *("scope", "obj_name", "obj_id", "obj_val", "source", "timestamp", "count", "duration", "project_id", "task_id"),
    *("job_id", "user_id", "user_name", "user_email", "org_id", "org_slug", "payload"),
)


@route("POST", "/api/events/export")
def export_events(site: Site, request: Request) -> Response:
    """Everybody's events for administrators and an organization's owner, one's own for all others."""
    user = request.user
    assert user
    organization_of(site, request)
    rows = [row for row in site.state.events if request.arg("project_id") in (None, str(row["project_id"]))]
    if since := request.arg("from"):
        rows = [row for row in rows if row["timestamp"] >= since]
    if not user["is_superuser"]:
        if request.arg("user_id") not in (None, str(user["id"])):
            raise ApiError(403, {"detail": "You don't have permission to view events with user_id"})
        rows = [row for row in rows if row["user_id"] == user["id"]]

    def work() -> Row:
        if not site.analytics:
            raise WorkFailedError("clickhouse_connect.driver.exceptions.OperationalError: Name or service not known")
        return {"path": "/api/events/download", "result": table(rows), "filename": "logs.csv"}

    rq_id = f"action=export&target=events&id={uuid.uuid4()}&user_id={user['id']}"
    return enqueue(site, request, rq_id, kind="export:events", target="events", ids={}, work=work)


@route("GET", "/api/events/download")
def download_events(site: Site, request: Request) -> Response:
    row = own(site, request, request.arg("rq_id") or "")
    return Response(row["outcome"]["result"], headers={"Content-Type": "text/csv"})


def table(rows: list[Row]) -> bytes:
    """The table as ClickHouse's client gives it: naive UTC moments, payloads as JSON in a text."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS, restval="")
    writer.writeheader()
    for row in rows:
        moment = row["timestamp"].replace("T", " ").rstrip("Z")
        writer.writerow({**row, "timestamp": moment, "payload": json.dumps(row.get("payload", {}))})
    return stream.getvalue().encode()

"""What a client may ask for beside its work: formats, share, cloud storages, organizations, webhooks."""

from __future__ import annotations

import mimetypes
from typing import Any

from ..http import ApiError, Request, Response, not_found
from ..listing import listed
from ..media import WorkFailedError, files_under
from ..routes import route
from ..site import Site
from ..state import Row

BY_ID = {key: (lambda row, key=key: row[key]) for key in ("id",)}


def organization_of(site: Site, request: Request) -> tuple[int | None] | None:
    """The organization a request is about: None for any, ``(None,)`` for the personal space, else ``(id,)``."""
    slug = request.arg("org", request.headers.get("x-organization"))
    number = request.arg("org_id")
    if slug is None and number is None:
        return None
    if number is None and slug == "":
        return (None,)
    for row in site.state.organizations.values():
        if row["slug"] == slug or str(row["id"]) == number:
            return (row["id"],)
    raise not_found("Organization")


@route("GET", "/api/server/health/", public=True)
def health(_site: Site, _request: Request) -> Row:
    return {"Cache backend: default": "working", "DatabaseBackend": "working"}


@route("GET", "/api/server/plugins")
def plugins(site: Site, _request: Request) -> Row:
    return {"ANALYTICS": site.analytics, "MODELS": False, "GIT_INTEGRATION": False, "PREDICT": False}


@route("GET", "/api/server/annotation/formats")
def formats(_site: Site, _request: Request) -> Row:
    names = {"COCO 1.0": "ZIP", "CVAT 1.1": "ZIP"}
    rows = [
        {"name": name, "ext": ext, "version": name.split()[-1], "enabled": True, "dimension": "2d"}
        for name, ext in names.items()
    ]
    return {"importers": rows, "exporters": rows}


@route("GET", "/api/server/share")
def share(site: Site, request: Request) -> list[Row]:
    folder = (request.arg("directory") or "/").strip("/")
    if site.share is None or not (site.share / folder).is_dir():
        raise ApiError(400, [f"{folder} is an invalid directory"])
    return [
        {"name": path.name, "type": "DIR" if path.is_dir() else "REG", "mime_type": mime_type(path)}
        for path in sorted((site.share / folder).iterdir())
    ]


def mime_type(path: Any) -> str:
    return (
        "DIR" if path.is_dir() else "image" if (mimetypes.guess_type(path)[0] or "").startswith("image") else "unknown"
    )


# cloud storages -----------------------------------------------------------------------------------


def storage_out(site: Site, request: Request, row: Row) -> Row:
    outer = {key: value for key, value in row.items() if key != "owner"}
    return {**outer, "owner": site.basic_user(request, row["owner"])}


@route("GET", "/api/cloudstorages")
def list_storages(site: Site, request: Request) -> Row:
    rows = [storage_out(site, request, row) for row in site.state.cloudstorages.values()]
    names = ("id", "resource", "provider_type", "display_name")
    filters: dict[str, Any] = {key: (lambda row, key=key: row[key]) for key in names}
    return listed(request, rows, filters=filters, search=("resource", "display_name"))


@route("POST", "/api/cloudstorages")
def create_storage(site: Site, request: Request) -> Response:
    assert request.user
    body = request.json_object()
    required = ("provider_type", "resource", "display_name", "credentials_type")
    if missing := {key: ["This field is required."] for key in required if not body.get(key)}:
        raise ApiError(400, missing)
    if body["resource"] not in site.buckets:
        raise ApiError(400, [f"The resource {body['resource']} not found. It may have been deleted."])
    number, now = site.state.next_id("cloudstorage"), site.state.now()
    row = {
        "id": number,
        **{key: body[key] for key in required},
        "manifests": body.get("manifests", []),
        "created_date": now,
        "updated_date": now,
        "specific_attributes": body.get("specific_attributes", ""),
        "description": body.get("description", ""),
        "organization": None,
        "owner": request.user["id"],
    }
    site.state.cloudstorages[number] = row
    return Response(storage_out(site, request, row), 201)


def storage(site: Site, number: int) -> Row:
    if number not in site.state.cloudstorages:
        raise not_found("CloudStorage")
    return site.state.cloudstorages[number]


@route("GET", "/api/cloudstorages/{id}")
def one_storage(site: Site, request: Request, id: int) -> Row:
    return storage_out(site, request, storage(site, id))


@route("DELETE", "/api/cloudstorages/{id}")
def delete_storage(site: Site, _request: Request, id: int) -> Response:
    storage(site, id)
    del site.state.cloudstorages[id]
    return Response(None, 204)


@route("GET", "/api/cloudstorages/{id}/status")
def storage_status(site: Site, _request: Request, id: int) -> str:
    return "AVAILABLE" if storage(site, id)["resource"] in site.buckets else "NOT_FOUND"


@route("GET", "/api/cloudstorages/{id}/content-v2")
def storage_content(site: Site, request: Request, id: int) -> Row:
    root = site.buckets[storage(site, id)["resource"]]
    prefix = request.arg("prefix") or ""
    try:
        paths = files_under(root, [prefix or "."])
    except WorkFailedError:
        paths = []
    content = [
        {"name": path.relative_to(root.resolve()).as_posix(), "type": "REG", "mime_type": mime_type(path)}
        for path in paths
    ]
    return {"content": content, "next": None}


# organizations and webhooks -----------------------------------------------------------------------


@route("GET", "/api/organizations")
def list_organizations(site: Site, request: Request) -> Row:
    rows = [storage_out(site, request, row) for row in site.state.organizations.values()]
    filters: dict[str, Any] = {key: (lambda row, key=key: row[key]) for key in ("id", "slug", "name")}
    return listed(request, rows, filters=filters, search=("name",))


@route("POST", "/api/organizations")
def create_organization(site: Site, request: Request) -> Response:
    assert request.user
    body = request.json_object()
    if not body.get("slug"):
        raise ApiError(400, {"slug": ["This field is required."]})
    number, now = site.state.next_id("organization"), site.state.now()
    row = {
        "id": number,
        "slug": body["slug"],
        "name": body.get("name") or body["slug"],
        "description": body.get("description", ""),
        "created_date": now,
        "updated_date": now,
        "contact": body.get("contact", {}),
        "owner": request.user["id"],
    }
    site.state.organizations[number] = row
    return Response(storage_out(site, request, row), 201)


@route("GET", "/api/organizations/{id}")
def one_organization(site: Site, request: Request, id: int) -> Row:
    if id not in site.state.organizations:
        raise not_found("Organization")
    return storage_out(site, request, site.state.organizations[id])


@route("GET", "/api/webhooks")
def list_webhooks(site: Site, request: Request) -> Row:
    return listed(request, list(site.state.webhooks.values()), filters=BY_ID)


@route("GET", "/api/memberships")
@route("GET", "/api/invitations")
@route("GET", "/api/quality/reports")
@route("GET", "/api/quality/settings")
def nothing(_site: Site, request: Request) -> Row:
    return listed(request, [], filters=BY_ID)

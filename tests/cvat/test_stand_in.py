"""The stand-in as the unmodified cvat-sdk sees it: accounts, projects, labels, tasks and their data."""

from __future__ import annotations

import http.server
import io
import json
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.cvat.helpers import LABELS, label_ids, make_task, patch, rectangle, upload_by_tus, write_images
from tests.cvat.stand_in import StandIn

cvat_sdk = pytest.importorskip("cvat_sdk")
from cvat_sdk.api_client import exceptions  # noqa: E402
from cvat_sdk.core.client import AccessTokenCredentials  # noqa: E402
from cvat_sdk.core.exceptions import BackgroundRequestException  # noqa: E402
from cvat_sdk.core.filters import F  # noqa: E402
from cvat_sdk.core.proxies.tasks import ResourceType  # noqa: E402

if TYPE_CHECKING:
    from cvat_sdk import Client


def test_password_login_and_logout(cvat: StandIn):
    with pytest.raises(exceptions.ApiException) as wrong:
        cvat_sdk.make_client(cvat.url, credentials=("admin", "wrong"))
    assert wrong.value.status == 400
    client = cvat_sdk.make_client(cvat.url, credentials=cvat.credentials)
    assert client.users.retrieve_current_user().username == "admin"
    session = dict(client.api_client.cookies)
    client.logout()
    client.api_client.cookies.update(session)
    with pytest.raises(exceptions.UnauthorizedException):
        client.projects.list()


def test_access_tokens(cvat: StandIn):
    writer = cvat_sdk.make_client(cvat.url, access_token=cvat.token())
    reader = cvat_sdk.make_client(cvat.url, access_token=cvat.token(read_only=True))
    writer.projects.create({"name": "p"})
    assert [project.name for project in reader.projects.list()] == ["p"]
    with pytest.raises(exceptions.ForbiddenException):
        reader.projects.create({"name": "q"})
    for token in (cvat.token(expired=True), "made up"):
        reader.login(AccessTokenCredentials(token))
        with pytest.raises(exceptions.UnauthorizedException):
            reader.projects.list()
    anonymous = cvat_sdk.make_client(cvat.url)
    with pytest.raises(exceptions.UnauthorizedException):
        anonymous.projects.list()


def test_another_user_sees_only_what_is_theirs(cvat: StandIn, cvat_client: Client, tmp_path: Path):
    user = cvat.add_user("worker")
    task = make_task(cvat_client, tmp_path, segment_size=1)
    worker = cvat_sdk.make_client(cvat.url, credentials=("worker", "password"))
    assert worker.tasks.list() == worker.jobs.list() == []
    with pytest.raises(exceptions.ForbiddenException):
        worker.tasks.retrieve(task.id)
    task.get_jobs()[0].update({"assignee": user["id"]})
    assert [found.id for found in worker.tasks.list()] == [task.id]
    label = label_ids(task)["dent"]
    [job] = worker.jobs.list(assignee="worker")
    patch(job, "create", rectangle(label))
    job.update({"state": "completed"})
    for forbidden in (
        lambda: patch(worker.tasks.retrieve(task.id), "create", rectangle(label)),
        lambda: job.update({"stage": "acceptance"}),
        worker.tasks.retrieve(task.id).remove,
    ):
        with pytest.raises(exceptions.ForbiddenException):
            forbidden()
    assert len(task.get_annotations().shapes) == 1


def test_projects_are_found_by_name_search_and_filter_over_all_pages(cvat: StandIn, cvat_client: Client):
    for number in range(23):
        cvat_client.projects.create({"name": f"project {number}"})
    assert [p.name for p in cvat_client.projects.list(name="project 2")] == ["project 2"]
    assert len(cvat_client.projects.list(search="Project 2")) == 4
    assert [p.id for p in cvat_client.projects.list(filter=(F.id > 3) & (F.id <= 5))] == [5, 4]
    assert len(cvat_client.projects.list(name__in=["project 1", "project 7", "no"])) == 2
    cvat.log.clear()
    assert [p.id for p in cvat_client.projects.list()] == list(range(23, 0, -1))
    assert len(cvat.log) == 3
    page, _ = cvat_client.api_client.projects_api.list(page=2, page_size=9, sort="id")
    assert [page.count, page.results[0].id, page.previous] == [23, 10, f"{cvat.url}/api/projects?page_size=9&sort=id"]
    with pytest.raises(exceptions.NotFoundException):
        cvat_client.api_client.projects_api.list(page=9)


def test_labels_are_added_renamed_and_deleted_through_the_project(cvat_client: Client):
    project = cvat_client.projects.create({"name": "p", "labels": LABELS})
    scratch, dent = project.get_labels()
    assert [a.name for a in scratch.attributes] == ["score", "noise"]
    assert scratch.attributes[1].values == ["no", "yes"]
    noise = {**LABELS[0]["attributes"][1], "id": scratch.attributes[1].id, "name": "doubt"}
    depth = {"name": "depth", "mutable": False, "input_type": "number", "values": ["0", "9", "1"]}
    changed = {"id": scratch.id, "name": "line", "attributes": [noise, depth]}
    project.update({"labels": [changed, {"id": dent.id, "deleted": True}, {"name": "rust"}]})
    line, rust = project.get_labels()
    assert (line.id, line.name, rust.name) == (scratch.id, "line", "rust")
    assert [a.name for a in line.attributes] == ["score", "doubt", "depth"]
    for labels, status in (([{"name": "line"}], 400), ([{"id": 999, "name": "x"}], 404), ([{"name": "a"}] * 2, 400)):
        with pytest.raises(exceptions.ApiException) as error:
            project.update({"labels": labels})
        assert error.value.status == status
    assert len(project.get_labels()) == 2


def test_a_change_of_labels_gives_the_jobs_a_new_date(cvat_client: Client, tmp_path: Path):
    project = cvat_client.projects.create({"name": "p", "labels": LABELS})
    task = make_task(cvat_client, tmp_path, labels=[], project_id=project.id)
    before = [task.fetch().updated_date, task.get_jobs()[0].updated_date]
    project.update({"labels": [{"name": "rust"}]})
    assert task.fetch().updated_date > before[0]
    assert task.get_jobs()[0].updated_date > before[1]


@pytest.mark.parametrize("tus", [False, True], ids=["multipart", "tus"])
def test_a_task_gets_images_and_gives_them_back(cvat_client: Client, tmp_path: Path, tus: bool):
    paths = write_images(tmp_path)
    task = cvat_client.tasks.create({"name": "t", "labels": LABELS, "subset": "train"})
    assert not hasattr(task._model, "size")
    if tus:
        upload_by_tus(cvat_client, task, paths)
    else:
        task.upload_data(paths)
    assert (task.size, task.mode, task.subset) == (3, "annotation", "train")
    assert [(f.name, f.width, f.height) for f in task.get_frames_info()] == [(p.name, 64, 48) for p in paths]
    assert task.get_frame(2, quality="original").read() == paths[2].read_bytes()
    compressed = Image.open(task.get_frame(2))
    assert (compressed.format, compressed.size) == ("JPEG", (64, 48))
    chunk = io.BytesIO()
    task.download_chunk(0, chunk, quality="original")
    assert chunk.getvalue()[:2] == b"PK"
    with pytest.raises(exceptions.ApiException, match="Adding more data"):
        task.upload_data(paths)


def test_order_of_files_is_as_asked_for(cvat_client: Client, tmp_path: Path):
    paths = write_images(tmp_path, 11)
    names = {
        method: [f.name for f in make_from(cvat_client, paths, sorting_method=method).get_frames_info()]
        for method in ("lexicographical", "natural", "predefined")
    }
    assert names["lexicographical"][:3] == ["img0.png", "img1.png", "img10.png"]
    assert names["natural"] == [path.name for path in paths] == names["predefined"]
    backwards = make_from(cvat_client, paths[::-1], sorting_method="predefined")
    assert [f.name for f in backwards.get_frames_info()] == [path.name for path in paths[::-1]]


def make_from(client: Client, paths: list, **params: object):
    return client.tasks.create_from_data({"name": "t"}, paths, data_params=params)


def test_images_are_upright_and_files_of_one_name_are_one_frame(cvat_client: Client, tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (60, 20)).save(tmp_path / folder / "same.jpg", exif=exif)
    task = make_from(cvat_client, [tmp_path / "a" / "same.jpg", tmp_path / "b" / "same.jpg"])
    assert [(f.width, f.height) for f in task.get_frames_info()] == [(20, 60)]
    assert Image.open(task.get_frame(0, quality="original")).size == (20, 60)


def test_a_file_that_is_no_image_fails_the_request(cvat_client: Client, tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(BackgroundRequestException, match="cannot identify image file"):
        make_from(cvat_client, [tmp_path / "broken.png"])
    [task] = cvat_client.tasks.list()
    assert (task.size, task.jobs.count, task.get_annotations().shapes) == (0, 0, [])
    bare = cvat_client.tasks.create({"name": "bare"})
    assert not hasattr(bare._model, "size")
    with pytest.raises(exceptions.ApiException) as error:
        bare.get_annotations()
    assert error.value.status == 400


def test_requests_are_queued_before_they_start(tmp_path: Path):
    with StandIn(polls=("queued", "started", "started")) as server:
        client = cvat_sdk.make_client(server.url, credentials=server.credentials)
        client.config.status_check_period = 0.01
        make_task(client, tmp_path)
        states = [entry.response.body["status"] for entry in server.log.find(path="/api/requests/*")]
    assert states == ["queued", "started", "started", "finished"]


def test_segments_make_jobs_and_jobs_know_their_frames(cvat_client: Client, tmp_path: Path):
    task = make_task(cvat_client, tmp_path, 5, segment_size=2)
    jobs = sorted(task.get_jobs(), key=lambda job: job.id)
    assert [(job.start_frame, job.stop_frame) for job in jobs] == [(0, 1), (2, 3), (4, 4)]
    assert [f.name for f in jobs[1].get_frames_info()] == ["img2.png", "img3.png"]
    assert jobs[1].get_frame(3, quality="original").read() == task.get_frame(3, quality="original").read()
    jobs[2].update({"stage": "acceptance", "state": "completed"})
    assert (task.fetch().jobs.completed, task.status) == (1, "annotation")
    task.remove_frames_by_ids([1])
    assert task.get_meta().deleted_frames == [1]
    task.remove()
    assert cvat_client.jobs.list() == []


def test_files_of_share_cloud_and_web(tmp_path: Path):
    for name in ("share", "bucket"):
        write_images(tmp_path / name / "sub")
    names = ["sub/img2.png", "sub/img0.png"]
    handler = partial(QuietHandler, directory=str(tmp_path / "bucket"))
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True).start()
    with StandIn(share=tmp_path / "share", buckets={"photos": tmp_path / "bucket"}) as server:
        client = cvat_sdk.make_client(server.url, credentials=server.credentials)
        client.config.status_check_period = 0.01
        storage, _ = client.api_client.cloudstorages_api.create(
            {
                "provider_type": "AWS_S3_BUCKET",
                "resource": "photos",
                "display_name": "photos",
                "credentials_type": "ANONYMOUS_ACCESS",
            }
        )
        for params, kind in (({}, "share"), ({"cloud_storage_id": storage.id}, "cloud_storage")):
            task = client.tasks.create({"name": kind})
            task.upload_data(names, resource_type=ResourceType.SHARE, params={"sorting_method": "predefined", **params})
            assert [f.name for f in task.get_frames_info()] == names
            assert task.get_meta().storage == kind
        task = client.tasks.create({"name": "web"})
        task.upload_data([f"http://127.0.0.1:{web.server_port}/{names[0]}"], resource_type=ResourceType.REMOTE)
        assert [f.name for f in task.get_frames_info()] == ["img2.png"]
        with pytest.raises(BackgroundRequestException, match="No such file"):
            client.tasks.create({"name": "x"}).upload_data(["no.png"], resource_type=ResourceType.SHARE)
    web.shutdown()
    web.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_state_outlives_a_restart_and_the_process(tmp_path: Path):
    command = [sys.executable, "-m", "tests.cvat.stand_in", "--state", str(tmp_path / "state")]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout
        url, user, password = process.stdout.readline().split()
        client = cvat_sdk.make_client(url, credentials=(user, password))
        client.config.status_check_period = 0.01
        task = make_task(client, tmp_path / "images")
        shape = patch(task, "create", rectangle(label_ids(task)["dent"], 1))["shapes"][0]
        process.kill()
    with StandIn(state_file=tmp_path / "state") as server:
        client = cvat_sdk.make_client(server.url, credentials=server.credentials)
        assert [s.id for s in client.tasks.retrieve(task.id).get_annotations().shapes] == [shape["id"]]
        server.human.delete(shape["id"])
        server.restart()
        assert client.tasks.retrieve(task.id).get_annotations().shapes == []


def test_pages_of_the_side_lines_have_the_form_that_the_sdk_reads(cvat: StandIn, cvat_client: Client):
    api = cvat_client.api_client
    assert cvat_client.organizations.list() == []
    for part in (api.webhooks_api, api.cloudstorages_api, api.users_api, api.requests_api, api.issues_api):
        assert part.list()[0].count == len(part.list()[0].results)
    formats, _ = api.server_api.retrieve_annotation_formats()
    assert "COCO 1.0" in [row.name for row in formats.exporters]
    cvat_client.organizations.create({"slug": "lab"})
    with cvat_client.organization_context("lab"):
        cvat_client.projects.create({"name": "theirs"})
        assert [p.name for p in cvat_client.projects.list()] == ["theirs"]
    with cvat_client.organization_context(""):
        assert cvat_client.projects.list() == []
    for path, status in (("/api/nothing", 404), ("/api/projects/77", 404)):
        _, answer = api.call_api(path, "GET", _check_status=False)
        assert answer.status == status
        assert "detail" in json.loads(answer.data)
    assert len(cvat.log.writes()) == 2

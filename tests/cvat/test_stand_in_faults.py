"""Faults on purpose, the request log and snapshots: what robustness tests of a connector rest on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cvat.helpers import label_ids, make_task, patch, rectangle, upload_by_tus, write_images
from tests.cvat.stand_in import Fault, StandIn

cvat_sdk = pytest.importorskip("cvat_sdk")
import urllib3  # noqa: E402
from cvat_sdk.api_client import exceptions  # noqa: E402
from cvat_sdk.core.exceptions import CvatSdkException  # noqa: E402

if TYPE_CHECKING:
    from cvat_sdk import Client
    from cvat_sdk.core.proxies.tasks import Task

ANNOTATIONS = "/api/tasks/*/annotations/"


@pytest.fixture
def task(cvat_client: Client, tmp_path: Path) -> Task:
    return make_task(cvat_client, tmp_path)


def create(task: Task) -> None:
    patch(task, "create", rectangle(label_ids(task)["dent"]))


@pytest.mark.parametrize(
    ("fault", "status", "shapes"),
    [
        (Fault.drop(), None, 0),
        (Fault.drop_after(), None, 1),
        (Fault.cut(), None, 1),
        (Fault.error(500), 500, 0),
        (Fault.error(502), 502, 0),
        (Fault.error(503), 503, 0),
        (Fault.error(413), 413, 0),
        (Fault.error_after(504), 504, 1),
        (Fault.expired(), 401, 0),
        (Fault.error(429, retry_after=7), 429, 0),
        (Fault.twice(), 200, 2),
        (Fault.delay(0.01), 200, 1),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else str(value),
)
def test_each_fault_does_what_it_says(cvat: StandIn, task: Task, fault: Fault, status: int | None, shapes: int):
    rule = cvat.faults.add(fault, method="PATCH", path=ANNOTATIONS)
    if status is None:
        with pytest.raises(urllib3.exceptions.HTTPError):
            create(task)
    elif status != 200:
        with pytest.raises(exceptions.ApiException) as error:
            create(task)
        assert error.value.status == status
        assert error.value.headers.get("Retry-After") == ("7" if status == 429 else None)
    else:
        create(task)
    assert rule.hits == 1
    assert len(task.get_annotations().shapes) == shapes
    assert cvat.log.find("PATCH")[0].fault == fault.kind


def test_a_delay_is_waited_for(cvat: StandIn, task: Task):
    cvat.faults.add(Fault.delay(0.2), method="PATCH")
    begun = time.monotonic()
    create(task)
    assert time.monotonic() - begun >= 0.2


def test_the_nth_request_is_hit_and_those_after_as_often_as_asked(cvat: StandIn, task: Task):
    cvat.faults.add(Fault.error(503), method="PATCH", path=ANNOTATIONS, nth=2, times=2)
    outcomes = []
    for _ in range(4):
        try:
            create(task)
            outcomes.append(200)
        except exceptions.ServiceException as error:
            outcomes.append(error.status)
    assert outcomes == [200, 503, 503, 200]


def test_the_sdk_repeats_a_get_by_itself(cvat: StandIn, task: Task):
    cvat.faults.add(Fault.drop(), method="GET", path=ANNOTATIONS)
    assert task.get_annotations().shapes == []
    assert cvat.log.count("GET", ANNOTATIONS) == 2
    cvat.faults.add(Fault.drop(), method="GET", path=ANNOTATIONS, times=4)
    with pytest.raises(urllib3.exceptions.HTTPError):
        task.get_annotations()


def test_every_request_of_a_push_can_be_hit_in_turn(cvat: StandIn, cvat_client: Client, tmp_path: Path):
    def push() -> None:
        create(make_task(cvat_client, tmp_path))

    hit = []
    for number in cvat.each_request(push):
        assert cvat.state.tasks == {}
        cvat.faults.at(number, Fault.error(500))
        with pytest.raises(exceptions.ServiceException):
            push()
        hit += [entry.number for entry in cvat.log if entry.fault]
    assert hit == list(range(1, 11))


def test_a_person_may_come_before_or_after_a_request(cvat: StandIn, task: Task):
    create(task)
    shape = task.get_annotations().shapes[0].id
    cvat.faults.add(Fault.before(lambda: cvat.human.move(shape, 1, 0)), method="GET", path=ANNOTATIONS)
    assert task.get_annotations().shapes[0].points == [2, 2, 11, 12]
    cvat.faults.add(Fault.after(lambda: cvat.human.delete(shape)), method="GET", path=ANNOTATIONS)
    assert len(task.get_annotations().shapes) == 1
    assert task.get_annotations().shapes == []


def test_bodies_over_the_limit_are_refused(cvat: StandIn, task: Task):
    label = label_ids(task)["dent"]
    cvat.max_body = 1000
    patch(task, "create", *[rectangle(label)] * 5)
    with pytest.raises(exceptions.ApiException) as error:
        patch(task, "create", *[rectangle(label)] * 50)
    assert error.value.status == 413
    assert len(task.get_annotations().shapes) == 5


def test_logins_expire_and_projects_go_in_the_middle(cvat: StandIn, cvat_client: Client):
    first = cvat.human.create_project("first")
    second = cvat_client.projects.create({"name": "second"})
    cvat.faults.add(Fault.before(lambda: cvat.human.delete_project(second.id)), path=f"/api/projects/{second.id}")
    with pytest.raises(exceptions.NotFoundException):
        second.fetch()
    token = cvat_sdk.make_client(cvat.url, access_token=cvat.token())
    cvat.faults.add(Fault.after(cvat.expire_logins), path="/api/projects")
    assert [project.id for project in cvat_client.projects.list()] == [first]
    for client in (cvat_client, token):
        with pytest.raises(exceptions.UnauthorizedException):
            client.projects.list()
    cvat_client.login(cvat.credentials)
    assert len(cvat_client.projects.list()) == 1


def test_what_a_broken_upload_leaves_is_in_the_way(cvat: StandIn, cvat_client: Client, tmp_path: Path):
    paths = write_images(tmp_path, 2)
    task = cvat_client.tasks.create({"name": "t"})
    cvat.faults.add(Fault.error(500), method="PATCH", nth=2, times=3)
    with pytest.raises(CvatSdkException, match="Too many upload errors"):
        upload_by_tus(cvat_client, task, paths)
    with pytest.raises(exceptions.ApiException, match="same name already exists"):
        upload_by_tus(cvat_client, task, paths)
    task.upload_data(paths)
    assert task.size == 2


def test_a_stopped_server_refuses_and_comes_back_on_its_port(cvat: StandIn, task: Task):
    create(task)
    url = cvat.url
    cvat.stop()
    with pytest.raises(urllib3.exceptions.HTTPError):
        create(task)
    cvat.start()
    assert cvat.url == url
    assert len(task.get_annotations().shapes) == 1


def test_the_log_tells_writes_from_reads(cvat: StandIn, task: Task):
    cvat.log.clear()
    create(task)
    [write] = cvat.log.writes()
    assert (write.method, write.query, write.status) == ("PATCH", {"action": "create"}, 200)
    assert write.body["shapes"][0]["type"] == "rectangle"
    assert str(write) == f"2 PATCH /api/tasks/{task.id}/annotations/ {{'action': 'create'}} -> 200"

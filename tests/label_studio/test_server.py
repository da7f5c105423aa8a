"""The fixture itself: the server that other tests rely on does what they assume."""

from __future__ import annotations

import httpx
import pytest
from label_studio_sdk.core.api_error import ApiError

from tests.label_studio.server import LabelStudioServer

BOXES = """
<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image"><Label value="scratch"/><Label value="dent"/></RectangleLabels>
</View>
"""


def test_two_projects_of_one_title_are_told_apart(label_studio: LabelStudioServer):
    first, second = (label_studio.fresh_project(BOXES, "same") for _ in range(2))
    assert first.id != second.id
    assert first.title != second.title


def test_data_and_address_outlive_a_restart(label_studio: LabelStudioServer):
    url, project = label_studio.url, label_studio.fresh_project(BOXES)
    label_studio.restart()
    assert label_studio.url == url
    assert label_studio.client().projects.get(project.id).title == project.title


def test_a_stopped_server_does_not_answer(label_studio: LabelStudioServer):
    label_studio.stop()
    with pytest.raises(httpx.ConnectError), label_studio.http() as http:
        http.get("/health")


def test_the_next_test_finds_it_running(label_studio: LabelStudioServer):
    assert label_studio.running()


def test_a_killed_server_starts_again_with_its_data(label_studio: LabelStudioServer):
    project = label_studio.fresh_project(BOXES)
    label_studio.kill()
    label_studio.start()
    assert label_studio.client().projects.get(project.id).id == project.id


def test_annotators_have_accounts_of_their_own(label_studio: LabelStudioServer):
    anna, ben = (label_studio.add_user(f"{name}@example.com") for name in ("anna", "ben"))
    assert anna.id != ben.id
    assert label_studio.client(anna.token).users.whoami().email == "anna@example.com"
    assert label_studio.client(ben.token).users.whoami().email == "ben@example.com"


def test_both_kinds_of_token_are_accepted_and_others_are_not(label_studio: LabelStudioServer):
    for token in (label_studio.token, label_studio.access_token()):
        assert label_studio.client(token).users.whoami().email == "admin@example.com"
    with pytest.raises(ApiError) as refused:
        label_studio.client("f" * 40).users.whoami()
    assert refused.value.status_code == 401

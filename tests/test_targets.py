"""Where a run is synced with, and how servers and tokens are found."""

from __future__ import annotations

import pytest

from autolabel.connect import PushOptions, Target
from autolabel.errors import StoreError, UsageError
from autolabel.targets import checked_url, remember, remembered, target_for


class Tool:
    env_url = ("TOOL_URL", "TOOL_HOST")
    env_token = ("TOOL_TOKEN",)
    default_url = None


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in (*Tool.env_url, *Tool.env_token):
        monkeypatch.delenv(name, raising=False)


def test_option_over_environment_over_file(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("TOOL_HOST=http://file:1\nTOOL_TOKEN=from-file\n")
    assert target_for(Tool(), "tool", "p") == Target("tool", "p", "http://file:1", "from-file")
    monkeypatch.setenv("TOOL_URL", "http://environment:2/")
    assert target_for(Tool(), "tool", "p").url == "http://environment:2"
    found = target_for(Tool(), "tool", "p", url="https://option", token="typed")
    assert (found.url, found.token) == ("https://option", "typed")
    (tmp_path / "other.env").write_text("TOOL_TOKEN=other\n")
    assert target_for(Tool(), "tool", "p", env_file=tmp_path / "other.env").token == "other"


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UsageError, match="set TOOL_URL"):
        target_for(Tool(), "tool", "p", token="t")
    with pytest.raises(UsageError, match="set TOOL_TOKEN"):
        target_for(Tool(), "tool", "p", url="http://here")
    with pytest.raises(UsageError, match="no such file"):
        target_for(Tool(), "tool", "p", env_file=tmp_path / "none.env")


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://here", "http://", "http://ann:secret@here"])
def test_a_wrong_address_is_refused_without_showing_a_password(url):
    with pytest.raises(UsageError) as caught:
        checked_url(url)
    assert "secret" not in str(caught.value)


def test_a_token_is_never_shown_or_stored(tmp_path):
    target = Target("tool", "My defects", "http://here:8080", "sesame")
    assert "sesame" not in repr(target)
    remember(tmp_path, target, PushOptions(shape="mask", dry_run=True))
    assert "sesame" not in (tmp_path / "sync" / "tool-here-8080-my-defects" / "target.json").read_text()


def test_targets_are_remembered_with_how_regions_were_shown(tmp_path):
    assert remembered(tmp_path) == []
    one, two = Target("tool", "p", "http://here"), Target("other", "q", "http://there")
    remember(tmp_path, one, PushOptions(shape="mask", dry_run=True))
    remember(tmp_path, two, PushOptions())
    assert [(r.target, r.options) for r in remembered(tmp_path, "tool")] == [(one, PushOptions(shape="mask"))]
    assert [r.target for r in remembered(tmp_path)] == [two, one]
    assert remembered(tmp_path, project="none") == []
    (tmp_path / "sync" / "tool-here-p" / "target.json").write_text("{}")
    with pytest.raises(StoreError, match="damaged"):
        remembered(tmp_path)


def test_user_and_password_of_the_environment_stand_in_for_a_token(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class WithLogin(Tool):
        env_login = (("ONE_USER", "ONE_PASSWORD"), ("TOOL_USER", "TOOL_PASSWORD"))

    monkeypatch.setenv("ONE_USER", "half")
    monkeypatch.setenv("TOOL_USER", "ann")
    (tmp_path / ".env").write_text("TOOL_PASSWORD=se:same\n")
    assert target_for(WithLogin(), "tool", "p", url="http://here").token == "ann:se:same"
    assert target_for(WithLogin(), "tool", "p", url="http://here", token="typed").token == "typed"


def test_a_connector_that_looks_for_tokens_itself_is_asked_without_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Finder(Tool):
        finds_token = True

    assert target_for(Finder(), "tool", "p", url="http://here").token == ""

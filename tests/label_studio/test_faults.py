"""Every request of a push and a pull goes wrong, against a real server: nothing is lost, nothing doubled."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

import autolabel
from autolabel.connect import PushOptions
from autolabel.errors import AutolabelError
from autolabel.issues import write_issues
from autolabel.types import LabelIssue
from autolabel_connectors.label_studio import LabelStudioConnector
from autolabel_connectors.label_studio.retrying import Patience
from tests.label_studio.fault_proxy import FAULTS, Fault, FaultProxy, at, first_time
from tests.label_studio.pusher import Pusher
from tests.label_studio.server import LabelStudioServer
from tests.label_studio.sync import Bench, quiet

HASTY = Patience(first_s=0.01, longest_s=0.05, limit_s=8.0)


@pytest.fixture
def proxy(label_studio: LabelStudioServer) -> Iterator[FaultProxy]:
    with FaultProxy(label_studio.url) as proxy:
        yield proxy


def hurt(proxy: FaultProxy, server: LabelStudioServer) -> tuple[Bench, Bench]:
    """A project as seen through the proxy, and directly."""
    direct = Bench.of(server)
    return Bench(server, direct.title, proxy.url), direct


def push(bench: Bench, run: autolabel.Run, timeout_s: float = 30.0, **options):
    hasty = LabelStudioConnector(HASTY, timeout_s)
    return hasty.push(autolabel.Run.open(run.path), bench.target, PushOptions(**options), quiet)


def pull(bench: Bench, run: autolabel.Run):
    return LabelStudioConnector(HASTY, 30.0).pull(autolabel.Run.open(run.path), bench.target, quiet)


def assert_exact(bench: Bench, run: autolabel.Run) -> None:
    """One task for each image, one prediction for each with regions, each region once."""
    tasks = bench.tasks()
    items = list(autolabel.Run.open(run.path).predicted())
    assert sorted(task["data"]["path"] for task in tasks) == [item.image.path for item in items]
    for item in items:
        (task,) = (task for task in tasks if task["data"]["path"] == item.image.path)
        if not task["annotations"]:
            shown = [part["meta"]["autolabel"]["id"] for p in task["predictions"] for part in p["result"]]
            assert sorted(shown) == sorted(a.id for a in item.annotations), item.image.path
            assert len(task["predictions"]) <= 1
    # Seen directly the project is another source, so receipts are found again, and nothing else is to do.
    assert bench.push(run).changes == ()


@pytest.mark.parametrize("fault", FAULTS)
def test_each_request_of_pushes_and_a_pull_goes_wrong_once(proxy, label_studio, make_run, fault: Fault):
    through, direct = hurt(proxy, label_studio)
    proxy.faults = first_time(fault)
    run = make_run(4)
    push(through, run)
    direct.annotate("000.png", [])
    direct.send("DELETE", f"/api/predictions/{direct.task('003.png')['predictions'][0]['id']}/")
    proxy.faults = first_time(fault)
    run = make_run(5, thresholds={"min_score": 0.43})
    push(through, run)
    proxy.faults = first_time(fault)
    pull(through, run)
    assert {c.action for c in autolabel.Run.open(run.path).corrections()} == {"deleted"}
    proxy.faults = lambda *_: None
    push(through, run)
    assert_exact(direct, run)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["drop after", "double", "refuse"])
def test_each_request_of_a_first_push_goes_wrong_in_turn(proxy, label_studio, make_run, fault: Fault):
    run = make_run(2)
    number, count = 0, 1
    while number < count:
        number += 1
        through, direct = hurt(proxy, label_studio)
        proxy.restart()
        proxy.faults = at(number, fault)
        push(through, run)
        count = len(proxy.requests)
        proxy.faults = lambda *_: None
        assert len(direct.tasks()) == 2, proxy.requests[number - 1]
        assert_exact(direct, run)
    assert number >= 6


def test_an_answer_that_comes_too_late_doubles_nothing(proxy, label_studio, make_run):
    through, direct = hurt(proxy, label_studio)
    late = first_time("delay")
    proxy.delay_s = 4.0
    proxy.faults = lambda place, request, body: late(place, request, body) if "/import?" in request else None
    run = make_run(3)
    push(through, run, timeout_s=3.0)
    assert_exact(direct, run)


def test_a_server_that_takes_only_small_requests_gets_small_ones(proxy, label_studio, make_run):
    through, direct = hurt(proxy, label_studio)
    proxy.faults = lambda place, request, body: "too large" if len(body) > 3000 else None
    run = make_run(6)
    push(through, run, shape="box")
    assert len(direct.tasks()) == 6
    posts = [request for request in proxy.requests if "return_task_ids" in request]
    assert 2 <= len(posts) < 14
    assert direct.push(run, shape="box").changes == ()


def test_one_image_that_is_too_large_is_an_error_that_says_so(proxy, label_studio, make_run):
    through, _ = hurt(proxy, label_studio)
    proxy.faults = lambda place, request, body: "too large" if b"PNG" in body else None
    with pytest.raises(AutolabelError, match=r"too large"):
        push(through, make_run(1))


def test_a_server_that_stays_down_is_named_and_the_next_push_goes_on(proxy, label_studio, make_run):
    through, direct = hurt(proxy, label_studio)
    run = make_run(3)
    proxy.faults = lambda place, request, body: "refuse" if place > 4 else None
    quick = LabelStudioConnector(Patience(0.01, 0.02, 0.2), 10.0)
    with pytest.raises(AutolabelError, match="in trouble"):
        quick.push(run, through.target, PushOptions(), quiet)
    proxy.faults = lambda *_: None
    push(through, run)
    assert_exact(direct, run)


def test_a_server_restarted_in_the_middle_is_waited_for(proxy, label_studio, make_run):
    through, direct = hurt(proxy, label_studio)
    run = make_run(4)
    patient = LabelStudioConnector(Patience(0.05, 0.5, 120.0), 60.0)
    reached, back = threading.Event(), threading.Event()

    def hold(place: int) -> None:
        if "return_task_ids" in proxy.requests[place - 1]:
            reached.set()
            back.wait()

    proxy.before = hold
    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(patient.push, run, through.target, PushOptions(), quiet)
        assert reached.wait(60)
        # From this thread, as a server ends with the thread that started it.
        label_studio.kill()
        label_studio.start()
        back.set()
        pushing.result()
    assert_exact(direct, run)


@pytest.mark.parametrize("what", ["annotates", "drafts"])
def test_who_begins_to_work_during_a_push_keeps_what_they_were_shown(proxy, label_studio, make_run, what):
    through, direct = hurt(proxy, label_studio)
    push(through, make_run(4))
    lacking = direct.task("003.png")["predictions"][0]["id"]
    direct.send("DELETE", f"/api/predictions/{lacking}/")
    before = {path: direct.task(path) for path in ("001.png", "003.png")}
    assert len(before["001.png"]["predictions"][0]["result"]) == 2

    worked_on: set[str] = set()

    def work(place: int) -> None:
        request = proxy.requests[place - 1]
        if "PATCH /api/predictions" in request:
            path = "001.png"
        elif "/import/predictions" in request:
            path = "003.png"
        else:
            return
        if path in worked_on:
            return
        worked_on.add(path)
        result = before["001.png"]["predictions"][0]["result"][:1]
        if what == "annotates":
            direct.annotate(path, result)
        else:
            task = before[path]["id"]
            direct.send("POST", f"/api/tasks/{task}/drafts", {"result": result, "lead_time": 3})

    proxy.after = work
    run = make_run(4, thresholds={"min_score": 0.43})
    report = push(through, run)
    proxy.after = lambda place: None
    assert len([warning for warning in report.warnings if "began to work" in warning]) == 2
    for path, task in before.items():
        assert [p["result"] for p in direct.task(path)["predictions"]] == [p["result"] for p in task["predictions"]]
    pull(through, run)
    if what == "annotates":
        found = sorted(c.action for c in autolabel.Run.open(run.path).corrections() if c.path == "001.png")
        assert found == ["accepted", "deleted"]


def doubt(run: autolabel.Run, path: str) -> None:
    item = run[path]
    write_issues(run.path, [LabelIssue("overlooked", path, item.image.id, 0.4, True, "a dent at the left")], {})


def test_what_others_write_into_a_tasks_data_during_a_push_stays(proxy, label_studio, make_run):
    through, direct = hurt(proxy, label_studio)
    run = make_run(3)
    write_issues(run.path, [], {})
    push(through, run, order="noisiest")
    before = direct.task("001.png")
    doubt(run, "001.png")

    def work(place: int) -> None:
        # The pages of the project are read already; what we write follows.
        if proxy.requests[place - 1].startswith(f"GET /api/tasks/{before['id']}/") and "owner" not in before["data"]:
            before["data"]["owner"] = "Anna"
            direct.send("PATCH", f"/api/tasks/{before['id']}/", {"data": before["data"]})

    proxy.before = work
    push(through, run, order="noisiest")
    proxy.before = lambda place: None
    data = direct.task("001.png")["data"]
    assert (data["owner"], data["priority"]) == ("Anna", 0.6)
    assert "a dent at the left" in data["autolabel_notes"]


def test_a_task_deleted_while_it_is_updated_is_left_out(proxy, label_studio, make_run):
    through, direct = hurt(proxy, label_studio)
    push(through, make_run(4))
    lost = direct.task("001.png")

    def work(place: int) -> None:
        if "PATCH /api/predictions" in proxy.requests[place - 1]:
            proxy.before = lambda place: None
            direct.send("DELETE", f"/api/tasks/{lost['id']}/")

    proxy.before = work
    run = make_run(4, thresholds={"min_score": 0.43})
    report = push(through, run)
    assert any("stay deleted" in warning for warning in report.warnings)
    assert [task["data"]["path"] for task in direct.tasks()] == ["000.png", "002.png", "003.png"]
    assert push(through, run).changes == ()


def test_nothing_is_uploaded_while_tasks_are_made(proxy, label_studio, make_run, monkeypatch):
    from autolabel_connectors.label_studio import additions
    from autolabel_connectors.label_studio import push as pushing
    from autolabel_connectors.label_studio.session import Session

    monkeypatch.setattr(pushing, "Session", partial(Session, limit=3))
    for name in ("TOGETHER", "MORE_UPLOADS"):
        monkeypatch.setattr(additions, name, 1)
    through, direct = hurt(proxy, label_studio)
    under_way: set[int] = set()
    met: list[str] = []

    def begin(place: int) -> None:
        request = proxy.requests[place - 1]
        if request.startswith("POST") and "/import" in request:
            under_way.add(place)
            if any("return_task_ids" in proxy.requests[one - 1] for one in under_way) and len(under_way) > 1:
                met.append(request)

    proxy.before, proxy.after = begin, under_way.discard
    run = make_run(9)
    push(through, run)
    assert sum("return_task_ids" in request for request in proxy.requests) == 3
    assert met == []
    assert_exact(direct, run)


@pytest.mark.slow
def test_a_push_killed_after_any_request_is_finished_by_the_next(proxy, label_studio, make_run):
    run = make_run(3)
    with Pusher() as pusher:
        number, status = 0, -signal.SIGKILL
        while status:
            number += 1
            through, direct = hurt(proxy, label_studio)
            proxy.restart()
            pid: Future[int] = Future()

            def kill(place: int, number: int = number, pid: Future[int] = pid) -> None:
                if place == number:
                    os.kill(pid.result(), signal.SIGKILL)

            proxy.after = kill
            pid.set_result(pusher.start(run.path, through.title, through.url, label_studio.token))
            status = pusher.status()
            assert status in (0, -signal.SIGKILL)
            proxy.after = lambda place: None
            push(through, run)
            assert_exact(direct, run)
        assert number >= 6


def test_a_project_deleted_in_the_middle_is_a_clear_error(proxy, label_studio, make_run):
    through, direct = hurt(proxy, label_studio)
    run = make_run(3)
    push(through, run)

    def delete(place: int) -> None:
        if place == len(start) + 3:
            direct.send("DELETE", f"/api/projects/{direct.project['id']}/")

    for act in (push, pull):
        start = list(proxy.requests)
        proxy.before = delete
        with pytest.raises(AutolabelError, match=r"no longer at .*; run push again"):
            act(through, run)
        proxy.before = lambda place: None
        push(through, run)
        assert len(direct.tasks()) == 3


def test_a_wrong_or_expired_token_is_a_clear_error_without_the_token(label_studio, make_run, caplog):
    import base64
    import json

    run = make_run(1)
    claims = base64.urlsafe_b64encode(json.dumps({"token_type": "refresh", "exp": 1}).encode()).decode().rstrip("=")
    for token in ("f" * 40, f"eyJhbGciOiJIUzI1NiJ9.{claims}.c2lnbmF0dXJl"):
        bench = Bench.of(label_studio)
        target = type(bench.target)("label-studio", bench.title, bench.url, token)
        with pytest.raises(AutolabelError, match=r"does not accept the token .*LABEL_STUDIO_API_KEY") as error:
            LabelStudioConnector(HASTY).push(run, target, PushOptions(), quiet)
        assert token not in str(error.value) + caplog.text + repr(target)


def test_a_personal_access_token_is_exchanged_and_renewed(proxy, label_studio, make_run):
    through, direct = hurt(proxy, label_studio)
    target = type(through.target)("label-studio", through.title, through.url, label_studio.access_token())
    LabelStudioConnector(HASTY).push(make_run(2), target, PushOptions(), quiet)
    assert len(direct.tasks()) == 2
    assert sum("/api/token/refresh" in request for request in proxy.requests) == 1


@pytest.mark.parametrize(("address", "message"), [("ftp://x", "http://"), ("http://a:b@c", "user and password")])
def test_odd_addresses_are_refused(label_studio, make_run, address, message):
    target = type(Bench.of(label_studio).target)("label-studio", "title", address, "x" * 40)
    with pytest.raises(AutolabelError, match=message):
        LabelStudioConnector(HASTY).push(make_run(1), target, PushOptions(), quiet)

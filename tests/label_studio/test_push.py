"""Pushing runs to a real server."""

from __future__ import annotations

import httpx
import pytest

import autolabel
from autolabel.errors import AutolabelError, UsageError
from autolabel.issues import write_issues
from autolabel.types import LabelIssue
from tests.label_studio.server import LabelStudioServer
from tests.label_studio.sync import Bench


@pytest.fixture
def bench(label_studio: LabelStudioServer) -> Bench:
    return Bench.of(label_studio)


def test_a_push_makes_project_tasks_images_and_predictions(bench: Bench, make_run):
    run = make_run(6)
    report = bench.push(run)
    assert report.counts["create task"] == 6
    tasks = bench.tasks()
    assert [task["data"]["path"] for task in tasks] == [item.image.path for item in run]
    for item, task in zip(run, tasks, strict=True):
        assert task["data"]["autolabel_image_id"] == item.image.id
        with bench.server.http() as http:
            assert http.get(task["data"]["image"]).content == run.read_bytes(item.image)
        shown = [part for p in task["predictions"] for part in p["result"]]
        assert {part["meta"]["autolabel"]["id"] for part in shown} == {a.id for a in item.annotations}
        assert len(task["predictions"]) == bool(item.annotations)
    assert bench.project["model_version"] == tasks[0]["predictions"][0]["model_version"]
    assert bench.project["total_predictions_number"] == sum(bool(item.annotations) for item in run)


def test_the_same_push_twice_sends_nothing(bench: Bench, make_run, monkeypatch):
    run = make_run(6)
    bench.push(run)
    before = bench.state()
    written = spy_on_writes(monkeypatch)
    report = bench.push(run)
    assert written == []
    assert bench.state() == before
    assert report.changes == ()
    assert report.counts == {"tasks unchanged": 6}


def spy_on_writes(monkeypatch) -> list[str]:
    """Collect every request that is not a GET."""
    written: list[str] = []
    send = httpx.HTTPTransport.handle_request

    def note(self, request):
        if request.method != "GET":
            written.append(f"{request.method} {request.url.path}")
        return send(self, request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", note)
    return written


def test_receipts_cover_every_region_and_are_made_again(bench: Bench, make_run):
    import shutil

    from autolabel_connectors.receipts import open_receipts

    run = make_run(6)
    bench.push(run)
    with open_receipts(run.path, bench.target.source) as receipts:
        first = {r.annotation_id: (r.remote_task, r.digest, r.payload) for r in receipts}
    assert set(first) == {a.id for item in run for a in item.annotations}
    shutil.rmtree(run.path / "sync")
    before = bench.state()
    bench.push(run)
    with open_receipts(run.path, bench.target.source) as receipts:
        assert {r.annotation_id: (r.remote_task, r.digest, r.payload) for r in receipts} == first
    assert bench.state() == before


def test_other_thresholds_change_only_the_predictions_that_differ(bench: Bench, make_run):
    run = make_run(6)
    bench.push(run)
    before = {task["id"]: task for task in bench.tasks()}
    run = make_run(6, thresholds={"min_score": 0.43})
    differing = {
        item.image.path for item in run if len(item.annotations) != len(part_ids(before_task(before, item.image.path)))
    }
    assert 0 < len(differing) < 6
    report = bench.push(run)
    assert {change.path for change in report.changes} == differing
    after = {task["id"]: task for task in bench.tasks()}
    assert after.keys() == before.keys()
    for item in run:
        old, new = before_task(before, item.image.path), before_task(after, item.image.path)
        assert len(part_ids(new)) == len(item.annotations)
        assert (old["predictions"] == new["predictions"]) == (item.image.path not in differing)
        assert [p["id"] for p in old["predictions"]] == [p["id"] for p in new["predictions"]]


def before_task(tasks, path):
    return next(task for task in tasks.values() if task["data"]["path"] == path)


def part_ids(task):
    return {part["id"] for p in task["predictions"] for part in p["result"]}


def test_new_images_become_new_tasks_and_removed_ones_are_left(bench: Bench, make_run, workspace):
    bench.push(make_run(4))
    run = make_run(6)
    report = bench.push(run)
    assert report.counts["create task"] == 2
    (workspace / "images" / "000.png").unlink()
    shorter = autolabel.run(prompt="scratch. dent.", path=workspace / "other", **models())
    report = bench.push(shorter)
    assert len(bench.tasks()) == 6
    assert report.counts["tasks left that the run has no image for"] == 1


def models():
    from tests.conftest import Models

    return Models()


def test_a_task_that_a_person_worked_on_is_left_as_it_is(bench: Bench, make_run):
    run = make_run(6)
    bench.push(run)
    bench.annotate("000.png", [])
    bench.annotate("001.png", was_cancelled=True)
    task = bench.task("003.png")
    bench.send("POST", f"/api/tasks/{task['id']}/drafts", {"result": [], "lead_time": 3})
    before = {path: bench.task(path) for path in ("000.png", "001.png", "003.png")}
    report = bench.push(make_run(6, thresholds={"min_score": 0.43}))
    assert report.counts["tasks left as people have them"] == 3
    for path, task in before.items():
        assert bench.task(path) == {**task, "annotations": bench.task(path)["annotations"]}
        assert bench.task(path)["predictions"] == task["predictions"]


def test_predictions_of_others_stay(bench: Bench, make_run):
    run = make_run(2)
    bench.push(run)
    task = bench.task("000.png")
    theirs = bench.send(
        "POST",
        "/api/predictions/",
        {"task": task["id"], "result": task["predictions"][0]["result"], "score": 0.1, "model_version": "mine"},
    )
    bench.push(make_run(2, thresholds={"min_score": 0.9}))
    kept = bench.task("000.png")["predictions"]
    assert theirs["id"] in {p["id"] for p in kept}
    assert [p["result"] for p in kept if p["model_version"] != "mine"] == [[]]


def test_a_task_deleted_there_stays_deleted_and_a_deleted_prediction_comes_back(bench: Bench, make_run):
    run = make_run(3)
    bench.push(run)
    bench.send("DELETE", f"/api/tasks/{bench.task('000.png')['id']}/")
    bench.send("DELETE", f"/api/predictions/{bench.task('001.png')['predictions'][0]['id']}/")
    report = bench.push(run)
    assert [task["data"]["path"] for task in bench.tasks()] == ["001.png", "002.png"]
    assert report.counts["create prediction"] == 1
    assert any("stay deleted" in warning for warning in report.warnings)
    assert len(bench.task("001.png")["predictions"]) == 1


def test_a_project_deleted_meanwhile_is_made_anew(bench: Bench, make_run):
    run = make_run(3)
    bench.push(run)
    bench.send("DELETE", f"/api/projects/{bench.project['id']}/")
    bench.push(run)
    assert len(bench.tasks()) == 3


def test_a_dry_run_says_what_would_change_and_changes_nothing(bench: Bench, make_run):
    run = make_run(3)
    report = bench.push(run, dry_run=True)
    assert [change.what for change in report.changes] == ["create project", *["create task"] * 3]
    assert not bench.get("/api/projects", title=bench.title)["results"]
    bench.push(run)
    before = bench.state()
    report = bench.push(make_run(4, thresholds={"min_score": 0.43}), dry_run=True)
    assert {(c.what, c.path) for c in report.changes} >= {("create task", "003.png"), ("update prediction", "001.png")}
    assert bench.state() == before


def test_several_projects_of_one_title_are_an_error_that_names_them(bench: Bench, make_run):
    run = make_run(1)
    ids = [bench.send("POST", "/api/projects/", {"title": bench.title})["id"] for _ in range(2)]
    with pytest.raises(UsageError, match="rename all but one") as error:
        bench.push(run)
    assert all(str(uid) in str(error.value) for uid in ids)


def test_a_project_that_does_not_fit_is_not_changed(bench: Bench, make_run):
    config = (
        '<View><Image name="pic" value="$photo"/><RectangleLabels name="r" toName="pic">'
        '<Label value="Scratch"/></RectangleLabels></View>'
    )
    bench.send("POST", "/api/projects/", {"title": bench.title, "label_config": config})
    with pytest.raises(UsageError, match="dent"):
        bench.push(make_run(2), shape="box")
    assert bench.project["label_config"] == config
    assert bench.project["task_number"] == 0


def test_a_project_of_other_names_is_used_as_it_is(bench: Bench, make_run):
    config = (
        '<View><Image name="pic" value="$photo"/><RectangleLabels name="r" toName="pic">'
        '<Label value="Scratch"/><Label value="dent"/></RectangleLabels></View>'
    )
    bench.send("POST", "/api/projects/", {"title": bench.title, "label_config": config})
    run = make_run(2)
    bench.push(run, shape="box")
    shown = bench.task("001.png")["predictions"][0]["result"]
    assert {(part["from_name"], part["to_name"]) for part in shown} == {("r", "pic")}
    assert {part["value"]["rectanglelabels"][0] for part in shown} == {"Scratch", "dent"}
    assert bench.task("001.png")["data"]["photo"].startswith("/data/upload/")
    assert bench.push(run, shape="box").changes == ()


@pytest.mark.parametrize("title", ["ab", "x" * 51])
def test_titles_that_label_studio_refuses_are_refused_before(label_studio, make_run, title):
    with pytest.raises(UsageError, match="3 to 50"):
        Bench(label_studio, title, label_studio.url).push(make_run(1))


def test_doubts_travel_and_the_noisiest_come_first(bench: Bench, make_run):
    run = make_run(4)
    item = run["003.png"]
    doubts = [
        LabelIssue("label", "003.png", item.image.id, 0.1, True, "looks like a dent", item.annotations[0].id, "dent"),
        LabelIssue("overlooked", "001.png", run["001.png"].image.id, 0.4, True, "a dent at the left"),
    ]
    write_issues(run.path, doubts, {})
    bench.push(run, order="noisiest")
    tasks = bench.tasks()
    assert [task["data"]["path"] for task in tasks] == ["003.png", "001.png", "000.png", "002.png"]
    assert [task["data"]["priority"] for task in tasks] == pytest.approx([0.9, 0.6, 0, 0])
    assert "a dent at the left" in tasks[1]["data"]["autolabel_notes"]
    noted = next(
        p for p in tasks[0]["predictions"][0]["result"] if p["meta"]["autolabel"]["id"] == doubts[0].annotation_id
    )
    assert noted["meta"]["autolabel"]["suggested label"] == "dent"
    assert "looks like a dent" in noted["meta"]["text"][0]
    assert bench.push(run, order="noisiest").changes == ()
    write_issues(run.path, doubts[:1], {})
    assert [c.path for c in bench.push(run, order="noisiest").changes] == ["001.png"]


def test_local_files_are_served_through_a_storage(bench: Bench, make_run, workspace):
    run = make_run(3)
    folder = bench.server.files / bench.title.replace(" ", "-")
    (workspace / "images").rename(folder)
    bench.push(run, media="local", media_root=str(folder))
    for item in run:
        with bench.server.http() as http:
            answer = http.get(bench.task(item.image.path)["data"]["image"])
        assert answer.content == (folder / item.image.path).read_bytes()
    storages = bench.get("/api/storages/localfiles", project=bench.project["id"])
    assert [storage["path"] for storage in storages] == [str(folder)]
    assert bench.push(run, media="local", media_root=str(folder)).changes == ()
    assert bench.push(run, media="local", media_root=str(bench.server.files)).changes == ()


def test_local_files_elsewhere_are_refused_with_the_remedy(bench: Bench, make_run):
    with pytest.raises(UsageError, match="LOCAL_FILES_DOCUMENT_ROOT"):
        bench.push(make_run(1), media="local", media_root="/usr")
    with pytest.raises(UsageError, match="media-root"):
        bench.push(make_run(1), media="local")
    (bench.server.files / "empty").mkdir()
    with pytest.raises(UsageError, match="does not find"):
        bench.push(make_run(1), media="local", media_root=str(bench.server.files / "empty"))


def test_cloud_images_keep_their_address(bench: Bench, make_run):
    run = make_run(1)
    report = bench.push(run, media="cloud", media_root="s3://bucket/photos/")
    assert bench.task("000.png")["data"]["image"] == "s3://bucket/photos/000.png"
    assert any("S3" in warning for warning in report.warnings)
    assert bench.push(run, media="cloud", media_root="s3://bucket/photos/").changes == ()
    with pytest.raises(UsageError, match="s3://"):
        bench.push(run, media="cloud", media_root="ftp://x")
    with pytest.raises(UsageError, match="media local"):
        bench.push(run, media="share")


def test_images_of_one_content_share_an_upload_but_not_a_task(bench: Bench, make_run, workspace):
    make_run(1)
    (workspace / "images" / "twin.png").write_bytes((workspace / "images" / "000.png").read_bytes())
    bench.push(autolabel.run(prompt="scratch. dent.", **models()))
    assert len(bench.tasks()) == 2
    assert len({task["data"]["image"] for task in bench.tasks()}) == 1


def test_uploads_come_in_batches_and_odd_formats_as_png(bench: Bench, workspace, monkeypatch):
    from PIL import Image

    from autolabel_connectors.label_studio import uploads
    from tests.conftest import write_pictures

    folder = write_pictures(workspace / "images", 5)
    Image.open(folder / "000.png").save(folder / "a b ü.tiff")
    monkeypatch.setattr(uploads, "MAX_FILES", 2)
    run = autolabel.run(prompt="scratch. dent.", **models())
    bench.push(run)
    urls = {task["data"]["path"]: task["data"]["image"] for task in bench.tasks()}
    assert len(set(urls.values())) == 6
    with bench.server.http() as http:
        for item in run:
            shown = http.get(urls[item.image.path])
            assert shown.status_code == 200
            assert (shown.content == run.read_bytes(item.image)) != item.image.path.endswith(".tiff")
        assert http.get(urls["a b ü.tiff"]).content.startswith(b"\x89PNG")


def test_what_the_server_would_drop_is_not_sent(bench: Bench, make_run, monkeypatch):
    from autolabel_connectors.label_studio import compose

    run = make_run(1)
    real = compose.to_regions

    def broken(*args, **named):
        return [{**part, "from_name": "nobody"} for part in real(*args, **named)]

    monkeypatch.setattr(compose, "to_regions", broken)
    with pytest.raises(AutolabelError, match=r"would not take.*000\.png"):
        bench.push(run)
    assert bench.tasks() == []

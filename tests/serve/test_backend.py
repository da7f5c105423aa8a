"""The ML backend's own rules: who may ask, what a failure costs, and where a token goes."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as Pillow
from starlette.testclient import TestClient

from autolabel.errors import UsageError
from autolabel.serving import ServeOptions
from autolabel.types import Image
from autolabel_connectors.label_studio.convert import from_regions
from autolabel_connectors.serve.label_studio import Service
from autolabel_connectors.serve.pulling import Puller
from tests.fakes import SquareDetector, picture
from tests.serve.helpers import CONFIG, RECIPE, CountingSegmenter, labeler, serving

TOKEN = "f" * 40
SIZE = Image("", "", 64, 48)


def encoded(*squares: tuple[str, int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(picture(*squares)).save(buffer, "PNG")
    return buffer.getvalue()


def inline(*squares: tuple[str, int, int, int]) -> str:
    return "data:image/png;base64," + base64.b64encode(encoded(*squares)).decode()


def ask(url: str, *images: Any, config: str = CONFIG, context: Any = None, project: str = "1.1") -> httpx.Response:
    tasks = [{"id": number, "data": {"image": image}} for number, image in enumerate(images)]
    body = {"tasks": tasks, "project": project, "label_config": config, "params": {"context": context}}
    return httpx.post(f"{url}/predict", json=body, timeout=60)


@contextmanager
def files(answers: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A web server that notes what is asked; it answers with bytes, a status, an address, or with each of a list."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization", "")))
            answer = answers.get(self.path, 404)
            answer = answer.pop(0) if isinstance(answer, list) else answer
            self.send_response(answer if isinstance(answer, int) else 302 if isinstance(answer, str) else 200)
            if isinstance(answer, str):
                self.send_header("Location", answer)
            body = answer if isinstance(answer, bytes) else b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_answers_come_in_the_order_of_tasks_and_a_broken_one_costs_itself_alone() -> None:
    images = [
        inline(("scratch", 2, 3, 10)),
        "data:image/png;base64,AAAA",
        inline(("dent", 20, 10, 9)),
        None,
        "/etc/passwd",
    ]
    with serving(labeler()) as url:
        answer = ask(url, *images).json()
    kinds = [[i["value"]["brushlabels"] for i in r["result"]] if r else None for r in answer["results"]]
    assert kinds == [[["scratch"]], None, [["dent"]], None, None]
    assert [error["task"] for error in answer["errors"]] == [1, 3, 4]
    assert "LABEL_STUDIO_API_KEY" in answer["errors"][2]["error"]


def test_two_tasks_of_one_image_are_both_answered() -> None:
    with serving(labeler()) as url:
        answer = ask(url, *[inline(("scratch", 2, 3, 10))] * 3).json()
    assert [len(result["result"]) for result in answer["results"]] == [1, 1, 1]


def test_an_image_without_objects_has_an_empty_prediction() -> None:
    with serving(labeler()) as url:
        assert ask(url, inline()).json()["results"][0]["result"] == []


def test_the_token_goes_to_its_own_server_alone() -> None:
    image = encoded(("scratch", 2, 3, 10))
    with files({"/b.png": image, "/c.png": image}) as (other, there):
        own = {
            "/data/upload/1/a.png": image,
            "/data/local-files/?d=x/a.png": image,
            "/data/moved.png": f"{other}/c.png",
        }
        with files(own) as (server, here), serving(labeler(), ServeOptions(url=server, token=TOKEN)) as url:
            addresses = ["/data/upload/1/a.png", "/data/local-files/?d=x/a.png", f"{other}/b.png", "/data/moved.png"]
            answer = ask(url, *addresses).json()
    assert [bool(result) for result in answer["results"]] == [True] * 4
    assert {header for _, header in here} == {f"Token {TOKEN}"}
    assert sorted(there) == [("/b.png", ""), ("/c.png", "")]


def test_a_configured_token_never_goes_where_a_setup_points() -> None:
    image = encoded(("scratch", 2, 3, 10))
    own = {"/data/upload/1/a.png": image}
    with (
        files(own) as (server, here),
        files({}) as (evil, there),
        serving(labeler(), ServeOptions(url=server, token=TOKEN)) as url,
    ):
        setup = {"project": "1.1", "schema": CONFIG, "hostname": evil, "access_token": "evil"}
        assert httpx.post(f"{url}/setup", json=setup).status_code == 200
        answer = ask(url, "/data/upload/1/a.png", f"{evil}/data/upload/1/a.png").json()
    assert [bool(result) for result in answer["results"]] == [True, True]
    assert len(here) == 2
    assert there == []


def test_a_setup_tells_address_and_token_where_none_is_configured() -> None:
    with files({"/data/upload/1/a.png": encoded(("dent", 2, 3, 10))}) as (server, here), serving(labeler()) as url:
        setup = {"project": "7.1", "schema": CONFIG, "hostname": server, "access_token": TOKEN}
        assert httpx.post(f"{url}/setup", json=setup).json()["model_version"].startswith("served-autolabel-")
        assert ask(url, "/data/upload/1/a.png", project="7.1").json()["results"][0]["result"]
        assert ask(url, "/data/upload/1/a.png", project="8.1").json()["results"] == [[]]
    assert here == [("/data/upload/1/a.png", f"Token {TOKEN}")]


def test_an_image_over_the_limit_and_a_local_file_are_not_read() -> None:
    big = {"/big.png": encoded(("dent", 2, 3, 10))}
    with files(big) as (server, _), serving(labeler(), ServeOptions(max_bytes=20)) as url:
        answer = ask(url, f"{server}/big.png", inline(), "file:///etc/passwd").json()
    first, second, third = (error["error"] for error in answer["errors"])
    assert "--max-bytes" in first
    assert "--max-bytes" in second
    assert "not read here" in third


@pytest.mark.parametrize(
    "address", ["http://169.254.169.254/latest/a.png", "http://[fe80::1]/a.png", "http://0.0.0.0/a"]
)
def test_addresses_of_this_machines_cloud_are_not_read(address: str) -> None:
    with files({"/a.png": address}) as (server, _), serving(labeler()) as url:
        answer = ask(url, address, f"{server}/a.png").json()
    assert answer["results"] == [[], []]
    assert all("which is not read" in error["error"] for error in answer["errors"])


def test_many_tasks_are_never_in_memory_at_once() -> None:
    read, ahead = [], []

    class Watching(SquareDetector):
        def predict_batch(self, images: Any, *args: Any) -> Any:
            ahead.append(len(read) - sum(self.calls))
            return super().predict_batch(images, *args)

    made = labeler(RECIPE.merged({"batch_size": 2}), detector=Watching())
    service = Service(made, ServeOptions())
    service.load()
    fetch = service.backend._fetcher.read
    service.backend._fetcher.read = lambda *args: (read.append(1), fetch(*args))[1]
    tasks = [{"id": n, "data": {"image": inline(("scratch", 2 + n, 3, 10))}} for n in range(20)]
    answer = service.backend.predict({"tasks": tasks, "label_config": CONFIG})
    service.close()
    assert [len(one["result"]) for one in answer["results"]] == [1] * 20
    assert len(ahead) == 10
    assert max(ahead) <= 2 + 5


def test_a_server_in_trouble_is_asked_again() -> None:
    with files({"/a.png": [503, encoded(("dent", 2, 3, 10))]}) as (server, asked), serving(labeler()) as url:
        assert ask(url, f"{server}/a.png").json()["results"][0]["result"]
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ('<PolygonLabels name="p" toName="image"><Label value="crack"/></PolygonLabels>', "polygonlabels"),
        ('<RectangleLabels name="r" toName="image"><Label value="crack"/></RectangleLabels>', "rectanglelabels"),
        ('<Brush name="b" toName="image"/><Labels name="l" toName="image"><Label value="crack"/></Labels>', "brush"),
    ],
)
def test_a_smart_tool_answers_with_what_the_project_can_draw(tags: str, kind: str) -> None:
    config = f'<View><Image name="image" value="$image"/>{tags}</View>'
    point = {"type": "keypointlabels", "value": {"x": 50, "y": 50, "keypointlabels": ["crack"]}}
    with serving(labeler(segmenter=CountingSegmenter())) as url:
        answer = ask(url, inline(), config=config, context={"result": [point]}).json()
    assert answer["results"][0]["result"][0]["type"] == kind


def test_a_point_beside_the_object_is_heeded() -> None:
    seen = []

    class Watching(CountingSegmenter):
        def segment_prompts(self, embedded: Any, prompts: Any) -> Any:
            seen.extend(prompts)
            return super().segment_prompts(embedded, prompts)

    def point(x: float, *, positive: bool) -> dict[str, Any]:
        value = {"x": x, "y": 50, "keypointlabels": ["crack"]}
        return {"type": "keypointlabels", "is_positive": positive, "value": value}

    context = {"result": [point(50, positive=True), point(25, positive=False)]}
    with serving(labeler(segmenter=Watching())) as url:
        assert ask(url, inline(), context=context).json()["results"][0]["result"]
        refused = ask(url, inline(), context={"result": [point(25, positive=False)]})
    assert [(p.positive, p.negative) for p in seen] == [(((32.0, 24.0),), ((16.0, 24.0),))]
    assert refused.status_code == 422
    assert "no point on an object" in refused.json()["error"]


AROUND = [
    ("rectanglelabels", {"x": 25, "y": 25, "width": 50, "height": 50}),
    ("rectanglelabels", {"x": 75, "y": 75, "width": -50, "height": -50}),
    ("ellipselabels", {"x": 50, "y": 50, "radiusX": 25, "radiusY": 25}),
    ("polygonlabels", {"points": [[25, 25], [75, 25], [75, 75], [25, 75]]}),
]


@pytest.mark.parametrize(("kind", "value"), AROUND)
def test_what_is_drawn_around_an_object_stands_for_its_box(kind: str, value: dict[str, Any]) -> None:
    item = {"type": kind, "value": {**value, kind: ["crack"]}}
    with serving(labeler(segmenter=CountingSegmenter())) as url:
        (result,) = ask(url, inline(), context={"result": [item]}).json()["results"]
    (found,) = from_regions(result["result"], SIZE)
    assert np.allclose(found.box.xyxy, (16, 12, 48, 36), atol=1)


@pytest.mark.parametrize(
    "value", [{"x": "a", "y": 1}, {"x": 1e400, "y": 1}, {"x": 1, "y": 2, "width": "w", "height": 1}]
)
def test_a_prompt_that_is_no_place_is_refused(value: dict[str, Any]) -> None:
    kind = "rectanglelabels" if "width" in value else "keypointlabels"
    item = {"type": kind, "value": {**value, kind: ["crack"]}}
    service = Service(labeler(segmenter=CountingSegmenter()), ServeOptions())
    service.load()
    body = {"tasks": [{"id": 1, "data": {"image": inline()}}], "label_config": CONFIG}
    with pytest.raises(UsageError, match="smart tool"):
        service.backend.predict({**body, "params": {"context": {"result": [item]}}})
    service.close()


def test_predictions_stay_those_of_the_model_where_a_project_lacks_a_label() -> None:
    config = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="r" toName="image"><Label value="Dent"/>'
        "</RectangleLabels></View>"
    )
    with serving(labeler()) as url:
        (result,) = ask(url, inline(("scratch", 2, 3, 10), ("dent", 40, 20, 9)), config=config).json()["results"]
    assert [item["value"]["rectanglelabels"] for item in result["result"]] == [["Dent"]]
    (region,) = from_regions(result["result"], SIZE)
    assert np.allclose(region.box.xyxy, (40, 20, 49, 29), atol=0.01)


def test_a_projects_own_settings_for_models_are_heeded() -> None:
    config = (
        '<View><Image name="image" value="$image"/>{}'
        '<RectangleLabels name="r" toName="image" {}><Label value="Damage" predicted_values="Scratch, dent"/>'
        "</RectangleLabels></View>"
    )
    brush = '<BrushLabels name="b" toName="image" {}><Label value="scratch"/><Label value="dent"/></BrushLabels>'
    # A square scores 0.4 and the share of the image that it covers.
    image = inline(("scratch", 2, 3, 10), ("dent", 40, 10, 20))

    def shown(text: str, **options: Any) -> list[tuple[str, str]]:
        with serving(labeler(), ServeOptions(**options)) as url:
            (result,) = ask(url, image, config=text).json()["results"]
        values = [(item["from_name"], item["value"]) for item in result["result"]]
        assert result["score"] == pytest.approx(min([item["score"] for item in result["result"]], default=0))
        return sorted(
            (name, words) for name, value in values for key in value if "labels" in key for words in value[key]
        )

    box = {"shape": "box"}
    assert shown(config.format("", ""), **box) == [("r", "Damage")] * 2
    assert shown(config.format("", 'model_score_threshold="0.5"'), **box) == [("r", "Damage")]
    assert shown(config.format("", 'score_threshold="0.5"'), **box) == [("r", "Damage")]
    assert shown(config.format("", 'model_score_threshold="0.1" score_threshold="0.5"'), **box) == [("r", "Damage")] * 2
    assert shown(config.format(brush.format(""), ""), shape="mask") == [("b", "dent"), ("b", "scratch")]
    assert shown(config.format(brush.format('model_skip="true"'), ""), shape="mask") == [("r", "Damage")] * 2
    with serving(labeler(), ServeOptions(**box)) as url:
        answer = ask(url, image, config=config.format("", 'model_score_threshold="high"'))
    assert answer.status_code == 422
    assert "must be a number" in answer.json()["error"]


def test_what_does_not_fit_a_project_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    service = Service(labeler(), ServeOptions())
    service.load()
    lacking = CONFIG.replace('<Label value="dent"/>', "")
    for config in (CONFIG, lacking, lacking):
        said = service.backend.setup({"project": "1.1", "schema": config})["warnings"]
        assert bool(said) == (config is lacking)
    service.close()
    assert caplog.text.count("no <Label> for 'dent'") == 1


def test_health_says_when_the_models_are_there() -> None:
    service = Service(labeler(), ServeOptions())
    with TestClient(service.app()) as client:
        assert client.get("/health").status_code == 503
        refused = client.post("/predict", json={"tasks": []})
        assert (refused.status_code, "loaded" in refused.json()["error"]) == (503, True)
        service.load()
        assert client.get("/health").json()["status"] == client.get("/").json()["status"] == "UP"
        assert client.get("/versions").json()["versions"] == [service.backend.version]


def test_who_does_not_sign_in_gets_nothing() -> None:
    service = Service(labeler(), ServeOptions(user="ann", password="sécret"))
    service.load()
    with TestClient(service.app()) as client:
        for path in ("/", "/health", "/versions"):
            assert client.get(path).status_code == 401
        for path in ("/setup", "/predict", "/webhook", "/train"):
            assert client.post(path, json={}).status_code == 401
        code = base64.b64encode("ann:sécret".encode()).decode()
        assert client.get("/health", headers={"Authorization": f"Basic {code}"}).status_code == 200
        assert client.get("/health", headers={"Authorization": "Basic !"}).status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/predict", b"{", 400, "not JSON"),
        ("/predict", b"[]", 400, "JSON object"),
        ("/predict", b'{"tasks": 3}', 422, "list of tasks"),
        ("/predict", b'{"tasks": []}', 422, "label_config"),
        ("/setup", b'{"schema": "<View>"}', 422, "valid XML"),
        ("/setup", b"{\"schema\": \"<View><Text name='t' value='$t'/></View>\"}", 422, "no <Image>"),
        ("/nothing", b"{}", 404, "POST /predict"),
        ("/webhook", b'{"action": "ANNOTATION_CREATED"}', 200, "--run"),
        ("/webhook", b'{"action": "TASKS_CREATED"}', 200, "ignored"),
    ],
)
def test_errors_are_json_with_a_remedy(path: str, body: bytes, status: int, words: str) -> None:
    service = Service(labeler(), ServeOptions())
    service.load()
    with TestClient(service.app()) as client:
        answer = client.post(path, content=body)
    assert answer.status_code == status
    assert words in str(answer.json())


def test_many_changes_are_one_pull_and_a_failed_one_is_tried_again() -> None:
    pulled, twice = [], threading.Event()

    def pull(project: str) -> None:
        pulled.append(project)
        if len(pulled) == 1:
            raise OSError("the server restarts")
        twice.set()

    puller = Puller(pull, 0.2)
    for _ in range(20):
        puller.ask("a")
    assert twice.wait(30)
    puller.close()
    assert pulled == ["a", "a"]


def test_what_waits_is_pulled_before_the_end() -> None:
    pulled: list[str] = []
    service = Service(labeler(), ServeOptions(), Puller(pulled.append, 3600.0))
    with TestClient(service.app()) as client:
        answer = client.post("/webhook", json={"action": "ANNOTATION_CREATED", "project": {"id": 1, "title": "p"}})
        assert answer.status_code == 202
    assert pulled == ["p"]

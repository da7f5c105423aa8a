from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from autolabel.colours import PALETTE, class_colour, luminance, text_colour
from autolabel.errors import ImageError, UsageError
from autolabel.manifest import Pace
from autolabel.ontology import LabelClass, Ontology
from autolabel.report import write_report
from autolabel.report.cards import data_uri, thumbnail_side
from autolabel.report.sample import Sampler
from autolabel.report.statistics import Statistics, disagrees
from autolabel.types import Failure
from tests.fake_run import FakeRun, annotation

ONTOLOGY = Ontology((LabelClass("scratch", ("scratch", "scrape")), LabelClass("dent")), (LabelClass("reflection"),))
EVIL = "<script>alert(1)</script>\"'&.png"


class Page(HTMLParser):
    """Collects start tags with their attributes, and the text of the whole page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag: str, name: str = "") -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and name in ["", *(a.get("class") or "").split()]]


def block(x0, y0, x1, y1):
    mask = np.zeros((48, 64), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def page(run, tmp_path, **options) -> Page:
    return Page(write_report(run, tmp_path / "report.html", **options).read_text(encoding="utf-8"))


@pytest.fixture
def run() -> FakeRun:
    run = FakeRun(ONTOLOGY, name="brackets")
    run.add("a.png", (0, (8, 6, 40, 30), 0.91, block(8, 6, 40, 30)), (1, (50, 10, 60, 20), 0.4))
    run.add("clean.png")
    return run


def test_empty_run(tmp_path):
    found = page(FakeRun(ONTOLOGY), tmp_path)
    assert "This run holds no images yet" in found.text
    assert found.of("article") == []


def test_run_of_failures_only_names_them(tmp_path):
    run = FakeRun(ONTOLOGY, failed=[Failure(EVIL, "read", "ImageError", "truncated <b>file</b>")])
    run.manifest.status = "partial"
    run.manifest.models = {}
    run.manifest.timings = {}
    run.manifest.rejects = {}
    found = page(run, tmp_path)
    assert EVIL in found.text
    assert "truncated <b>file</b>" in found.text
    assert "No image could be labelled" in found.text
    assert found.of("b") == []


def test_boxes_and_masks_are_drawn_in_pixels_of_the_image(run, tmp_path):
    found = page(run, tmp_path)
    boxes = [[float(r[k]) for k in ("x", "y", "width", "height")] for r in found.of("rect", "box")]
    assert boxes == [[8, 6, 32, 24], [50, 10, 10, 10]]
    (mask,) = found.of("path", "mask")
    assert mask["d"] == "M8 6l0 24l32 0l0 -24z"
    assert {s["viewbox"] for s in found.of("svg")} >= {"0 0 64 48"}
    assert found.text.count("scratch 0.91") == 1


def test_page_is_self_contained_and_lets_only_its_own_script_run(run, tmp_path):
    text = write_report(run, tmp_path / "report.html").read_text(encoding="utf-8")
    found = Page(text)
    assert not re.search(r"https?://|@import|url\(", text)
    assert all((a.get("src") or "data:").startswith("data:") for _, a in found.tags)
    (policy,) = [m["content"] for m in found.of("meta") if m.get("http-equiv")]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert not [a for _, a in found.tags if any(key.startswith("on") for key in a)]


def test_text_from_outside_is_escaped_everywhere(tmp_path):
    evil = Ontology((LabelClass(EVIL), LabelClass("dent")))
    run = FakeRun(evil, name=EVIL, failed=[Failure(EVIL, EVIL, EVIL, EVIL)])
    run.add("dir/" + EVIL, (0, (8, 6, 40, 30), 0.91))
    run.manifest.rejects = {EVIL: 2}
    run.manifest.timings = {EVIL: 2.0}
    run.manifest.recipe = {"prompt": EVIL, EVIL: {"x": None}}
    run.manifest.versions = {EVIL: EVIL}
    run.manifest.models = {EVIL: SimpleNamespace(spec=EVIL, licence=EVIL, weights_sha256=None, device=EVIL, dtype=EVIL)}
    found = page(run, tmp_path)
    assert len(found.of("script")) == 2
    assert "<h1>" not in found.text
    data = json.loads(re.search(r'id="data">(.*?)</script>', (tmp_path / "report.html").read_text(), re.S)[1])
    assert data["cards"][0]["path"] == "dir/" + EVIL


def test_same_run_gives_the_same_bytes(run, tmp_path):
    one = write_report(run, tmp_path / "one.html").read_bytes()
    assert one == write_report(run, tmp_path / "two.html").read_bytes()


def test_out_may_be_a_folder_and_nothing_else_is_left_in_it(run, tmp_path):
    assert write_report(run, tmp_path / "new") == tmp_path / "new" / "report.html"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["report.html"]


def test_picture_that_cannot_be_read_costs_only_itself(run, tmp_path):
    read = run.read_image

    def fail(image):
        if image.path == "a.png":
            raise ImageError("a.png is gone")
        return read(image)

    run.read_image = fail
    found = page(run, tmp_path)
    assert "a.png is gone" in found.text
    assert len(found.of("img")) == 1
    assert len(found.of("rect", "box")) == 2


def test_large_run_is_sampled_with_variety_and_says_so(tmp_path):
    run = FakeRun(ONTOLOGY)
    for i in range(60):
        boxes = [] if i % 3 == 0 else [(i % 2, (8, 6, 40, 30), 0.5 + i / 200)] * (1 + i % 4)
        run.add(f"{i:03d}.png", *boxes)
    found = page(run, tmp_path, max_images=20)
    assert len(found.of("article")) == 20
    assert "20 of 60 images" in found.text.replace("\u202f", "")
    assert found.text.count("clean\n") + found.text.count(">clean") + len(re.findall(r"\bclean\b", found.text)) - 2 >= 2
    with pytest.raises(UsageError, match="got -1"):
        write_report(run, tmp_path / "r.html", max_images=-1)


def test_no_pictures_still_give_figures(run, tmp_path):
    found = page(run, tmp_path, max_images=0)
    assert found.of("article") == []
    assert "Classes" in found.text


def test_sample_takes_each_kind_and_is_independent_of_order():
    run = FakeRun(ONTOLOGY)
    apart = (0.1, 0.8, 0.1)
    for i in range(100):
        run.add(f"{i:03d}.png", *([(0, (0, 0, 9, 9), 0.6)] if i % 2 else []))
    run.add("differs.png")
    item = run.items.pop()
    note = annotation("x", item.image.id, ONTOLOGY, 0, (0, 0, 9, 9), 0.6, None, apart)
    run.items.append(type(item)(item.image, (note,)))
    run.add("crowd.png", *[(1, (i, 0, i + 9, 9), 0.7) for i in range(9)])
    run.add("weak.png", (1, (0, 0, 9, 9), 0.1))
    chosen = []
    for items in (run.items, run.items[::-1]):
        sampler = Sampler(20)
        for item in items:
            sampler.add(item)
        chosen.append({shown.item.image.path: shown.reason for shown in sampler.chosen()})
    assert len(chosen[0]) == len(chosen[1]) == 20
    for found in chosen:
        assert found["differs.png"] == "opinions differ"
        assert found["crowd.png"] == "many annotations"
        assert found["weak.png"] == "low scores"
        assert list(found.values()).count("nothing found") == 2
        assert list(found.values()).count("random") >= 8


def test_statistics_count_classes_scores_and_disagreements(run):
    statistics = Statistics.empty(2)
    for item in run:
        statistics.add(item)
    assert (statistics.images, statistics.clean, statistics.annotations, statistics.masks) == (2, 1, 2, 1)
    assert statistics.classes[0].scores[18] == 1
    assert statistics.classes[1].scores[8] == 1
    assert (statistics.judged, statistics.disagreements) == (2, 0)


def test_disagreement_needs_two_opinions():
    assert not disagrees(annotation("x", "i", ONTOLOGY, 0, (0, 0, 9, 9)))
    assert disagrees(annotation("x", "i", ONTOLOGY, 0, (0, 0, 9, 9), probs=(0.1, 0.2, 0.7)))


def test_score_of_one_falls_into_the_last_bin():
    run = FakeRun(ONTOLOGY)
    run.add("a.png", (0, (0, 0, 9, 9), 1.0))
    statistics = Statistics.empty(2)
    statistics.add(run.items[0])
    assert statistics.classes[0].scores[-1] == 1


@pytest.mark.parametrize(("count", "side"), [(0, 1000), (40, 1000), (41, 800), (200, 640)])
def test_many_images_get_smaller_thumbnails(count, side):
    assert thumbnail_side(count) == side


def test_thumbnails_are_never_enlarged_and_survive_extreme_shapes():
    for shape in ((1, 1), (1, 4000), (3000, 2)):
        assert data_uri(np.zeros((*shape, 3), np.uint8), 640).startswith("data:image/webp;base64,")


def test_class_colours_are_stable_distinct_and_carry_readable_text():
    assert len(set(PALETTE)) == len(PALETTE)
    assert class_colour(0) == class_colour(len(PALETTE))
    for colour in PALETTE:
        a, b = sorted((luminance(colour), luminance(text_colour(colour))))
        assert (b + 0.05) / (a + 0.05) >= 4.5, colour


def test_report_export_and_eval_read_a_real_run(make_run, tmp_path):
    from autolabel.evaluate import evaluate
    from autolabel.export import export_run

    run = make_run(6)
    found = page(run, tmp_path)
    annotations = [a for item in run for a in item.annotations]
    assert len(annotations) > 0
    assert len(found.of("article")) == len(run)
    assert len(found.of("rect", "box")) == len(annotations)
    for fmt in ("yolo", "yolo-seg", "voc", "coco"):
        result = export_run(run, fmt, tmp_path / fmt, images="link")
        assert result.annotations == len(annotations)
    assert any(path.is_symlink() for path in (tmp_path / "yolo").rglob("*.png"))
    scores = evaluate(run, tmp_path / "coco" / "annotations.json")
    assert scores.box.ap == scores.mask.ap == 1


def test_the_page_says_where_the_time_went_and_what_it_cost(tmp_path):
    run = FakeRun(ONTOLOGY)
    run.add("a.png", (0, (2, 2, 20, 20)))
    assert "by the clock" not in write_report(run, tmp_path / "before.html").read_text(encoding="utf-8")
    run.manifest.pace = Pace(
        images=90, wall_seconds=50, load_seconds=5, forward_seconds={"detect": 30.0, "segment": 6.0}, cost_per_hour=3.6
    )
    page = " ".join(write_report(run, tmp_path / "page.html").read_text(encoding="utf-8").split())
    assert "took 50.0 s by the clock for 90 images, 5.0 s of it loading; of the rest a forward pass ran 80 %." in page
    assert "At 3.6 an hour 1,000 images cost 0.5." in page

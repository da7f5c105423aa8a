from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from autolabel.errors import UsageError
from autolabel.evaluate import evaluate, print_result
from autolabel.export import export_run
from autolabel.ontology import LabelClass, Ontology
from tests.fake_run import FakeRun

ONTOLOGY = Ontology((LabelClass("scratch", ("scratch", "scrape")), LabelClass("dent")))


def block(x0, y0, x1, y1):
    mask = np.zeros((48, 64), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def coco(tmp_path, images, annotations, categories=((1, "scratch"), (2, "dent"))):
    """Write ground truth: images by name, annotations ``(image index, category, xywh)``."""
    data = {
        "images": [{"id": i, "file_name": n, "width": 64, "height": 48} for i, n in enumerate(images)],
        "categories": [{"id": i, "name": n} for i, n in categories],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": list(xywh), "area": xywh[2] * xywh[3]}
            | {"segmentation": [], "iscrowd": 0}
            for i, (image, category, xywh) in enumerate(annotations)
        ],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(data))
    return path


def test_empty_run_against_empty_truth(tmp_path):
    result = evaluate(FakeRun(ONTOLOGY), coco(tmp_path, [], []))
    assert (result.images, result.box, result.mask) == (0, None, None)
    json.dumps(result.to_json())


def test_own_export_is_perfect(tmp_path):
    run = FakeRun(ONTOLOGY)
    run.add("a.png", (0, (3, 4, 20, 15), 0.9, block(3, 4, 20, 15)), (1, (30, 5, 60, 40), 0.5, block(30, 5, 60, 40)))
    run.add("b/a.png", (1, (10, 8, 33, 40), 0.7, block(10, 8, 33, 40)))
    run.add("clean.png")
    export_run(run, "coco", tmp_path / "out")
    result = evaluate(run, tmp_path / "out" / "annotations.json")
    for figures in (result.box, result.mask, *(row.box for row in result.classes)):
        assert (figures.ap, figures.ap50, figures.ap75, figures.ar) == (1, 1, 1, 1)
    assert (result.images, result.truths, result.annotations, result.clean_images) == (3, 3, 3, 1)
    assert [(row.true_positives, row.misses, row.precision, row.recall) for row in result.classes] == [
        (1, 0, 1, 1),
        (2, 0, 1, 1),
    ]


def test_no_annotations_score_zero(tmp_path):
    run = FakeRun(ONTOLOGY)
    run.add("a.png")
    result = evaluate(run, coco(tmp_path, ["a.png"], [(0, 1, (3, 4, 17, 11))]))
    assert result.box.ap == result.box.ar == 0
    assert result.classes[0].recall == 0
    assert result.classes[0].precision is None
    assert result.classes[1].box is None


def test_shifted_box_counts_at_the_thresholds_its_iou_reaches(tmp_path):
    run = FakeRun(ONTOLOGY)
    # 20×10 px moved by 4 px: 160 of 240 px² in common, so IoU 2/3 reaches 0.50, 0.55, 0.60 and 0.65 of ten thresholds.
    run.add("a.png", (0, (4, 0, 24, 10), 0.9))
    result = evaluate(run, coco(tmp_path, ["a.png"], [(0, 1, (0, 0, 20, 10))]))
    assert result.box.ap == pytest.approx(0.4, abs=1e-6)
    assert (result.box.ap50, result.box.ap75, result.box.ar) == (1, 0, pytest.approx(0.4))


def test_false_positives_on_clean_images_and_beside(tmp_path):
    run = FakeRun(ONTOLOGY)
    run.add("a.png", (0, (0, 0, 20, 10), 0.9), (0, (40, 30, 60, 40), 0.8))
    run.add("clean.png", (1, (0, 0, 9, 9), 0.3), (1, (20, 0, 29, 9), 0.3))
    run.add("clean2.png")
    result = evaluate(run, coco(tmp_path, ["a.png", "clean.png", "clean2.png"], [(0, 1, (0, 0, 20, 10))]))
    assert (result.clean_images, result.clean_images_annotated, result.false_positives_on_clean) == (2, 1, 2)
    assert result.classes[0].precision == 0.5
    assert (result.classes[1].false_positives, result.classes[1].precision) == (2, 0)


def test_wrong_label_is_a_miss_and_a_false_positive(tmp_path):
    run = FakeRun(ONTOLOGY)
    run.add("a.png", (1, (0, 0, 20, 10), 0.9))
    result = evaluate(run, coco(tmp_path, ["a.png"], [(0, 1, (0, 0, 20, 10))]))
    assert [(r.misses, r.false_positives) for r in result.classes] == [(1, 0), (0, 1)]


def test_first_annotation_with_id_zero_still_matches(tmp_path):
    run = FakeRun(ONTOLOGY)
    run.add("a.png", (0, (0, 0, 20, 10), 0.9))
    assert evaluate(run, coco(tmp_path, ["a.png"], [(0, 1, (0, 0, 20, 10))])).box.ap == 1


def test_crowds_neither_count_nor_punish(tmp_path):
    run = FakeRun(ONTOLOGY)
    run.add("a.png", (0, (0, 0, 20, 10), 0.9), (0, (32, 22, 50, 40), 0.8))
    path = coco(tmp_path, ["a.png"], [(0, 1, (0, 0, 20, 10)), (0, 1, (30, 20, 30, 25))])
    data = json.loads(path.read_text())
    data["annotations"][1]["iscrowd"] = 1
    path.write_text(json.dumps(data))
    (row, _) = evaluate(run, path).classes
    assert (row.truths, row.true_positives, row.false_positives) == (1, 1, 0)


def test_masks_are_measured_only_where_both_sides_have_them(tmp_path):
    run = FakeRun(ONTOLOGY)
    run.add("a.png", (0, (0, 0, 20, 10), 0.9, block(0, 0, 10, 10)))
    assert evaluate(run, coco(tmp_path, ["a.png"], [(0, 1, (0, 0, 20, 10))])).mask is None
    path = coco(tmp_path, ["a.png"], [(0, 1, (0, 0, 20, 10))])
    data = json.loads(path.read_text())
    data["annotations"][0]["segmentation"] = [[0, 0, 20, 0, 20, 10, 0, 10]]
    path.write_text(json.dumps(data))
    result = evaluate(run, path)
    assert result.box.ap == 1
    # Half of the mask: IoU 0.5 reaches the first threshold only.
    assert result.mask.ap == pytest.approx(0.1, abs=1e-6)


def test_categories_match_by_normalised_name_or_phrase_and_the_rest_is_listed(tmp_path):
    run = FakeRun(ONTOLOGY)
    run.add("a.png", (0, (0, 0, 20, 10), 0.9), (1, (30, 30, 40, 40), 0.9))
    path = coco(tmp_path, ["a.png"], [(0, 7, (0, 0, 20, 10)), (0, 9, (30, 30, 10, 10))], ((7, " SCRAPE "), (9, "hole")))
    result = evaluate(run, path)
    assert result.categories_only_in_truth == ("hole",)
    assert result.classes_only_in_run == ("dent",)
    assert [row.name for row in result.classes] == ["scratch"]
    assert result.box.ap == 1
    assert result.clean_images == 0


def test_images_match_by_path_then_by_longest_common_end(tmp_path):
    run = FakeRun(ONTOLOGY)
    for path in ("x/a.png", "y/a.png", "z/b.png", "extra.png"):
        run.add(path, (0, (0, 0, 20, 10), 0.9))
    names = ["./x/a.png", "data\\y\\a.png", "b.png", "missing.png"]
    result = evaluate(run, coco(tmp_path, names, [(i, 1, (0, 0, 20, 10)) for i in range(4)]))
    assert (result.images, result.box.ap) == (3, 1)
    assert result.images_only_in_truth == ("missing.png",)
    assert result.images_only_in_run == ("extra.png",)


def test_an_exact_match_is_not_taken_by_a_namesake(tmp_path):
    run = FakeRun(ONTOLOGY)
    run.add("x/a.png")
    run.add("y/a.png")
    result = evaluate(run, coco(tmp_path, ["y/a.png"], []))
    assert result.images_only_in_run == ("x/a.png",)


@pytest.mark.parametrize(
    ("paths", "names"),
    [(["a.png"], ["p/a.png", "q/a.png"]), (["x/a.png", "y/a.png"], ["a.png"]), (["a.png"], ["b.png"] * 2)],
)
def test_ambiguous_images_are_an_error(tmp_path, paths, names):
    run = FakeRun(ONTOLOGY)
    for path in paths:
        run.add(path)
    with pytest.raises(UsageError, match=r"\.png"):
        evaluate(run, coco(tmp_path, names, []))


def test_truth_of_another_size_is_an_error(tmp_path):
    run = FakeRun(ONTOLOGY)
    run.add("a.png", size_wh=(48, 64))
    with pytest.raises(UsageError, match="48×64 px in the run and 64×48"):
        evaluate(run, coco(tmp_path, ["a.png"], []))


@pytest.mark.parametrize("text", ["", "[]", '{"images": []}'])
def test_what_is_not_coco_is_an_error(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"x\.json"):
        evaluate(FakeRun(ONTOLOGY), path)


def test_table_names_classes_and_what_was_left_out(tmp_path):
    run = FakeRun(ONTOLOGY)
    run.add("a[/b].png", (0, (0, 0, 20, 10), 0.9))
    run.add("b.png", (0, (0, 0, 20, 10), 0.9))
    result = evaluate(run, coco(tmp_path, ["b.png"], [(0, 1, (0, 0, 20, 10))]))
    out = io.StringIO()
    print_result(result, Console(file=out, width=80))
    text = out.getvalue()
    assert "scratch" in text
    assert "1.000" in text
    assert "…" not in text
    assert "a[/b].png" in text


def test_what_both_models_stand_behind_ranks_first(tmp_path):
    run = FakeRun(ONTOLOGY)
    right, wrong = (0, 0, 20, 10), (40, 30, 60, 40)
    run.add("a.png", (0, wrong, 0.9, None, (0.5, 0.5)), (0, right, 0.6, None, (0.9, 0.1)))
    truth = coco(tmp_path, ["a.png"], [(0, 1, (0, 0, 20, 10))])
    assert evaluate(run, truth).box.ap50 == 1  # 0.6 × 0.9 before 0.9 × 0.5; by scores alone it would be one half
    run = FakeRun(ONTOLOGY)
    run.add("a.png", (0, wrong, 0.9, None, (0.7, 0.3)), (0, right, 0.6, None, (0.9, 0.1)))
    assert evaluate(run, truth).box.ap50 == pytest.approx(0.5, abs=0.01)


def test_confidence_without_a_classifier_and_of_a_persons_label_is_the_score():
    run = FakeRun(ONTOLOGY)
    run.add("a.png", (0, (0, 0, 20, 10), 0.9, None, (0.5, 0.5)))
    region = run.items[0].annotations[0]
    assert region.confidence == pytest.approx(0.45)
    assert replace(region, class_probs=None).confidence == 0.9
    assert replace(region, origin="human").confidence == 0.9


def test_proposals_rank_what_the_thresholds_cut_off(make_run, tmp_path):
    permissive = make_run(6, thresholds={"min_score": 0.0})
    export_run(permissive, "coco", tmp_path / "all")
    strict = make_run(6, thresholds={"min_score": 1.0})
    truth = tmp_path / "all" / "annotations.json"
    assert evaluate(strict, truth).box.ap == 0
    result = evaluate(strict, truth, ranked="proposals")
    assert (result.box.ap, result.mask.ap) == (1, 1)
    assert (result.ranked, result.annotations, result.classes[0].recall) == ("proposals", 0, 0)
    with pytest.raises(UsageError, match="got 'guesses'"):
        evaluate(strict, truth, ranked="guesses")

"""Resolving many shards at once gives what resolving image by image gives, and packs of annotations read back."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import autolabel
from autolabel import packs, runner, shards
from autolabel.config import Recipe
from autolabel.dataset import Run
from autolabel.resolving import Part, resolve_parts
from autolabel.shards import Detected, Outlined, Resolved, StageNotes
from autolabel.stages.resolve import LEAST_FILLED, LEAST_INSIDE, LEAST_MASK_SCORE
from autolabel.store import RunFolder
from autolabel.types import RGB, Float, Segments
from tests.conftest import Models, write_pictures
from tests.fakes import BoxSegmenter

RUN_ID = "6b1f6f0e-8a52-5d0c-9d61-0b6a3b1f2c77"


def plan(**thresholds: object) -> runner.Plan:
    recipe = Recipe.model_validate(
        {
            "classes": [{"name": "scratch", "min_score": 0.3}, {"name": "dent", "min_area_px": 6.0}],
            "negatives": [{"name": "glare"}],
            "thresholds": {"min_score": 0.4, "min_prob": 0.2, **thresholds},
        }
    )
    return runner.make_plan(recipe, recipe.ontology(), RUN_ID, 0.1)


def one_by_one(part: Part, plan: runner.Plan) -> tuple[list[tuple[int, str, int]], Counter[str]]:
    """Settle a shard as slowly and plainly as it can be said."""
    found, rejects = [], Counter[str]()
    gates, names = plan.gates, plan.ontology.names
    shown = [shown_box(part, place) for place in range(len(part.detected.images))]
    for row, image in enumerate(part.images):
        if image is None:
            continue
        open_to = []
        for place in np.flatnonzero(part.detected.images == row).tolist():
            scores = part.detected.class_scores[place]
            opinion = scores if part.probs is None else part.probs[place]
            label = int(np.argmax(opinion))
            x0, y0, x1, y1 = shown[place] if plan.boxes == "mask" else part.detected.boxes_xyxy[place]
            area = max(x1 - x0, np.float32(0)) * max(y1 - y0, np.float32(0))
            if not scores.max() >= gates.min_score[label]:
                rejects["low_score"] += 1
            elif part.probs is not None and not part.probs[place, label] >= gates.min_prob[label]:
                rejects["low_prob"] += 1
            elif not area >= gates.min_area_px[label]:
                rejects["too_small"] += 1
            else:
                open_to.append((place, label, float(scores.max())))
        kept: list[tuple[int, int]] = []
        for place, label, _ in sorted(open_to, key=lambda one: -one[2]):
            limits = [gates.nms_iou if label == other else gates.cross_class_iou for _, other in kept]
            boxes = part.detected.boxes_xyxy
            if any(iou(boxes[place], boxes[p]) > limit for (p, _), limit in zip(kept, limits, strict=True)):
                rejects["overlap"] += 1
            else:
                kept.append((place, label))
        for place, label in sorted(kept):
            if label >= len(names):
                rejects["negative"] += 1
                continue
            box = " ".join(f"{value:.2f}" for value in part.detected.boxes_xyxy[place])
            uid = uuid.uuid5(uuid.UUID(plan.run_id), f"{image[0]} {image[1]} {box}")
            found.append((place, str(uid), label))
    return found, +rejects


def shown_box(part: Part, place: int) -> np.ndarray:
    """The box around a mask that can be trusted, else the detector's."""
    own = part.detected.boxes_xyxy[place]
    assert part.outlined is not None
    around = part.outlined.boxes_xyxy[place]
    if np.isnan(around[0]) or part.outlined.scores[place] < LEAST_MASK_SCORE:
        return own
    sides = [max(min(own[i + 2], around[i + 2]) - max(own[i], around[i]), 0) for i in (0, 1)]
    inside = sides[0] * sides[1] >= LEAST_INSIDE * (around[2] - around[0]) * (around[3] - around[1])
    filled = sides[0] * sides[1] >= LEAST_FILLED * (own[2] - own[0]) * (own[3] - own[1])
    return around if inside and filled else own


def iou(a: np.ndarray, b: np.ndarray) -> np.float32:
    sides = [max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), np.float32(0)) for i in (0, 1)]
    shared = sides[0] * sides[1]
    whole = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / whole if whole > 0 else np.float32(0)


@st.composite
def parts(draw: st.DrawFn) -> Part:
    """A shard of a few images with boxes on a coarse grid, so that equal scores and equal overlaps are common."""
    rows = draw(st.integers(0, 4))
    count = draw(st.integers(0, 14)) if rows else 0
    images = sorted(draw(st.lists(st.integers(0, max(rows - 1, 0)), min_size=count, max_size=count)))
    grid = st.integers(0, 6).map(lambda v: v / 2)
    sizes = st.integers(1, 4).map(float)
    boxes = []
    for _ in range(count):
        x, y, w, h = draw(st.tuples(grid, grid, sizes, sizes))
        boxes.append([x, y, x + w, y + h])
    tenth = st.integers(0, 10).map(lambda v: v / 10)
    table = st.lists(st.lists(tenth, min_size=3, max_size=3), min_size=count, max_size=count)
    masks = [draw(around_masks()) for _ in range(count)]
    names = [draw(st.one_of(st.none(), st.just((f"{row:064x}", f"line ä/{row}.png")))) for row in range(rows)]
    return Part(
        names,
        Detected(
            np.array(images, np.int32),
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(draw(table), np.float32).reshape(-1, 3),
        ),
        np.array(draw(table), np.float32).reshape(-1, 3),
        Outlined(
            np.array(masks, np.float32).reshape(-1, 4),
            np.array([draw(st.sampled_from([0.3, 0.9])) for _ in masks], np.float32),
        ),
    )


@st.composite
def around_masks(draw: st.DrawFn) -> tuple[float, ...]:
    """The box around a mask, or none now and then."""
    x, y, w, h = draw(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(1, 5), st.integers(1, 5)))
    return draw(st.sampled_from([(x, y, x + w, y + h)] * 4 + [(np.nan,) * 4]))


@settings(max_examples=200, deadline=None)
@given(st.lists(parts(), max_size=4), st.booleans(), st.sampled_from(["detector", "mask"]))
def test_many_shards_at_once_are_what_each_image_is_by_itself(several: list[Part], judged: bool, boxes: str) -> None:
    several = several if judged else [replace(part, probs=None) for part in several]
    how = plan(boxes=boxes)
    for part, (resolved, notes) in zip(several, resolve_parts(several, how), strict=True):
        found, rejects = one_by_one(part, how)
        if boxes == "mask":
            assert resolved.boxes_xyxy is not None
            assert resolved.boxes_xyxy.tolist() == [shown_box(part, p).tolist() for p in resolved.proposals.tolist()]
        else:
            assert resolved.boxes_xyxy is None
        assert list(zip(resolved.proposals.tolist(), resolved.ids, resolved.label_ids.tolist(), strict=True)) == found
        assert notes.dropped == rejects
        assert notes.labels == Counter(resolved.labels)


def test_no_shards_are_no_answers() -> None:
    assert resolve_parts([], plan()) == []


def test_an_image_without_a_place_in_the_run_gets_no_annotations() -> None:
    boxes, scores = np.array([[0, 0, 9, 9]] * 2, np.float32), np.array([[0.9, 0, 0]] * 2, np.float32)
    part = Part([None, ("b" * 64, "b.png")], Detected(np.array([0, 1], np.int32), boxes, scores), None)
    [(resolved, notes)] = resolve_parts([part], plan())
    assert resolved.proposals.tolist() == [1]
    assert notes.labels == {"scratch": 1}


@dataclass
class Told:
    """What a run says, to compare."""

    items: list[object]
    labels: dict[str, int]
    rejects: dict[str, int]

    @classmethod
    def of(cls, run: Run) -> Told:
        return cls(list(run), run.manifest.labels, run.manifest.rejects)


def test_other_thresholds_are_written_in_few_files_and_read_back(make_run: Callable[..., autolabel.Run]) -> None:
    run = make_run(12, batch_size=2)
    before = Told.of(run)
    settled = runner.resolve_run(run, {"thresholds": {"min_score": 0.43}})
    fewer = Told.of(settled)
    assert 0 < sum(fewer.labels.values()) < sum(before.labels.values())
    assert len(list((run.path / "annotations").glob("*/*.parquet"))) == 1
    assert list((run.path / "shards").glob("*/annotations-*")) == []
    again = runner.resolve_run(settled, {"thresholds": {"min_score": 0.35}})
    assert Told.of(again) == before
    assert len(list((run.path / "annotations").iterdir())) == 1, "the packs of other thresholds are gone"


class ForgetfulSegmenter(BoxSegmenter):
    """Answers for one box of an image, which is too few where there are more."""

    def predict_batch(self, images: Sequence[RGB], boxes_xyxy: Sequence[Float]) -> list[Segments]:
        return [Segments(s.masks[:1], s.scores[:1]) for s in super().predict_batch(images, boxes_xyxy)]


def test_what_a_stage_could_not_do_gets_none_by_other_thresholds_either(make_run: Callable[..., autolabel.Run]) -> None:
    forgetful = {**Models(), "segmenter": ForgetfulSegmenter()}
    run = make_run(8, batch_size=3, **forgetful)
    failed = run.failures()
    assert 0 < len(failed) < 8
    settled = runner.resolve_run(run, threshold())
    fresh = autolabel.run(prompt="scratch. dent.", batch_size=3, path="fresh", **threshold(), **forgetful)
    assert Told.of(settled) == Told.of(fresh)
    assert settled.manifest.counts == fresh.manifest.counts
    assert settled.manifest.status == "partial"
    assert settled.failures() == failed
    assert (settled.path / "failures.jsonl").read_text("utf-8") == (fresh.path / "failures.jsonl").read_text("utf-8")


def test_a_shard_that_is_added_later_stands_beside_a_pack(make_run: Callable[..., autolabel.Run]) -> None:
    run = make_run(8, batch_size=2)
    runner.resolve_run(run, {"thresholds": {"min_score": 0.3}})
    write_pictures(Path("images"), 12)
    grown = autolabel.run(prompt="scratch. dent.", batch_size=2, path=run.path, **threshold(), **Models())
    undisturbed = autolabel.run(prompt="scratch. dent.", batch_size=2, path="other", **threshold(), **Models())
    assert Told.of(grown) == Told.of(undisturbed)
    assert len(grown) == 12


def test_an_image_that_changed_leaves_its_pack(make_run: Callable[..., autolabel.Run]) -> None:
    run = make_run(8, batch_size=2)
    runner.resolve_run(run, {"thresholds": {"min_score": 0.3}})
    shutil.copy("images/001.png", "images/000.png")
    changed = autolabel.run(prompt="scratch. dent.", batch_size=2, path=run.path, **threshold(), **Models())
    undisturbed = autolabel.run(prompt="scratch. dent.", batch_size=2, path="other", **threshold(), **Models())
    assert Told.of(changed) == Told.of(undisturbed)


def test_a_pass_that_dies_between_two_packs_is_completed(
    make_run: Callable[..., autolabel.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autolabel.resolving._GROUP_ROWS", 4)
    run = make_run(12, batch_size=2)
    before = Told.of(run)
    written = 0

    def dying(*given: object) -> packs.Pack:
        nonlocal written
        written += 1
        if written == 2:
            raise KeyboardInterrupt
        return write(*given)  # type: ignore[arg-type]

    write = packs.write_pack
    monkeypatch.setattr(packs, "write_pack", dying)
    with pytest.raises(KeyboardInterrupt):
        runner.resolve_run(run, {"thresholds": {"min_score": 0.43}})
    assert Told.of(Run.open(run.path)) == before, "readers see the old thresholds until the new ones are whole"
    settled = runner.resolve_run(Run.open(run.path), {"thresholds": {"min_score": 0.43}})
    whole = runner.resolve_run(make_again(run), {"thresholds": {"min_score": 0.43}})
    assert Told.of(settled) == Told.of(whole)


def test_a_pack_answers_only_for_the_shards_that_are_in_it(tmp_path: Path) -> None:
    resolved = Resolved(np.array([3, 5], np.int32), ("a", "b"), np.array([0, 1], np.int32), ("scratch", "dent"))
    nothing = Resolved(np.zeros(0, np.int32), (), np.zeros(0, np.int32), ())
    noted = StageNotes(0.5, {"overlap": 2}, (), {"scratch": 1, "dent": 1})
    packs.write_pack(tmp_path, "k", {4: (resolved, noted), 5: (nothing, StageNotes()), 6: (resolved, noted)})
    packs.write_pack(tmp_path, "k", {8: (resolved, noted), 9: (resolved, noted)})
    found = packs.list_packs(tmp_path, "k")
    assert [(pack.first, pack.last) for pack in found] == [(4, 6), (8, 9)]
    assert [shard for shard in range(12) if packs.find(found, shard)] == [4, 5, 6, 8, 9]
    assert packs.read_pack_notes(found[0]) == {4: noted, 5: StageNotes(), 6: noted}
    reader = packs.PackReader()
    for pack, shard, ids in ((found[0], 4, ("a", "b")), (found[0], 5, ()), (found[1], 9, ("a", "b"))):
        assert reader.read(pack, shard).ids == ids
        assert reader.read(pack, shard).boxes_xyxy is None
    assert packs.list_packs(tmp_path, "other") == ()


def test_a_pack_keeps_the_boxes_that_were_settled(tmp_path: Path) -> None:
    boxes = np.array([[0, 1, 2, 3], [4, 5, 6.5, 7]], np.float32)
    two = Resolved(np.array([3, 5], np.int32), ("a", "b"), np.array([0, 1], np.int32), ("x", "y"), boxes)
    nothing = Resolved(np.zeros(0, np.int32), (), np.zeros(0, np.int32), (), boxes[:0])
    pack = packs.write_pack(tmp_path, "k", {4: (two, StageNotes()), 5: (nothing, StageNotes()), 6: (two, StageNotes())})
    for shard, wanted in ((4, boxes), (5, boxes[:0]), (6, boxes)):
        read = packs.PackReader().read(pack, shard).boxes_xyxy
        assert read is not None
        assert read.tolist() == wanted.tolist()


def test_a_shard_of_its_own_wins_over_a_pack(tmp_path: Path) -> None:
    old = Resolved(np.array([0], np.int32), ("old",), np.array([0], np.int32), ("scratch",))
    new = Resolved(np.array([1], np.int32), ("new",), np.array([0], np.int32), ("scratch",))
    with RunFolder(tmp_path / "run") as folder:
        for _ in range(2):
            folder.add_shard([], StageNotes(), {})
        folder.put_pack("k", {0: (old, StageNotes()), 1: (old, StageNotes())})
        folder.put(1, "annotations", "k", shards.resolve_table(new), StageNotes(1.0))
        assert [folder.resolved(number, "k").ids for number in (0, 1)] == [("old",), ("new",)]
        assert [noted.seconds for noted in folder.resolve_notes("k")] == [0.0, 1.0]
        assert folder.has(0, "annotations", "k")
        folder.drop_stale_annotations("other")
        assert not folder.has(0, "annotations", "k")
        assert not folder.has(1, "annotations", "k")


def test_a_list_of_packs_from_before_one_was_written_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = Resolved(np.array([0], np.int32), ("a",), np.array([0], np.int32), ("scratch",))
    list_packs = packs.list_packs

    def listing(run: Path, key: str) -> tuple[packs.Pack, ...]:
        before = list_packs(run, key)
        if not writing.is_alive() and not before:
            writing.start()
            writing.join(0.5)  # or until it waits for this very list
        return before

    with RunFolder(tmp_path / "run") as folder:
        for _ in range(2):
            folder.add_shard([], StageNotes(), {})
        answers = dict.fromkeys(range(2), (resolved, StageNotes()))
        writing = threading.Thread(target=folder.put_pack, args=("k", answers))
        monkeypatch.setattr(packs, "list_packs", listing)
        folder.has(0, "annotations", "k")
        writing.join()
        assert folder.has(0, "annotations", "k")


def test_only_packs_are_removed_with_other_thresholds(tmp_path: Path) -> None:
    resolved = Resolved(np.array([0], np.int32), ("a",), np.array([0], np.int32), ("scratch",))
    annotations = tmp_path / "run" / "annotations"
    with RunFolder(tmp_path / "run") as folder:
        for key in ("old", "older"):
            folder.put_pack(key, {0: (resolved, StageNotes())})
        (annotations / "old" / "notes.txt").write_text("mine", "utf-8")
        (annotations / "instances.json").write_text("{}", "utf-8")
        folder.drop_stale_annotations("new")
    assert sorted(path.relative_to(annotations).as_posix() for path in annotations.rglob("*")) == [
        "instances.json",
        "old",
        "old/notes.txt",
    ]


def threshold() -> dict[str, object]:
    return {"thresholds": {"min_score": 0.3}}


def make_again(run: Run) -> Run:
    path = run.path.with_name("whole")
    return autolabel.run(prompt="scratch. dent.", batch_size=2, path=path, **Models())

"""The generator: the same seed gives the same picture, masks fit boxes, splits never meet."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from training.dataset import BUCKETS
from training.generator import CLASS_NAMES, EDITIONS, PUBLISHED, SAMPLES, TRAINED, Edition, box_of, generate
from training.generator.defects import Scenery
from training.generator.imagined import FIELDS, FieldMaker
from training.generator.surfaces import SURFACES
from training.make_hard_files import huge_header_png
from training.make_sample_data import OUT, SPECS, coco_of, names, scene_of
from training.runtime import STARTER
from training.seeds import SPLITS, TEST, TRAIN, VALIDATION, split_of
from training.vocabulary import SPECIAL, SYNONYMS, prompt_for, unknown_words, wordpieces

SIZE = (160, 120)
DUST_ALONE = {"dust": TRAINED.distractors["dust"]}


def test_clean_picture_has_no_instances() -> None:
    scene = generate(TRAIN.start, SIZE, defects=0)
    assert scene.instances == ()
    assert scene.image.shape == (120, 160, 3)
    assert scene.image.dtype == np.uint8


def test_same_seed_same_picture() -> None:
    first, second = (generate(TRAIN.start + 7, SIZE) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert [i.label for i in first.instances] == [i.label for i in second.instances]
    for a, b in zip(first.instances, second.instances, strict=True):
        assert np.array_equal(a.mask, b.mask)


def test_other_seed_other_picture() -> None:
    assert not np.array_equal(generate(TRAIN.start, SIZE).image, generate(TRAIN.start + 1, SIZE).image)


@pytest.mark.parametrize("seed", range(20))
def test_masks_are_full_size_disjoint_and_fill_their_boxes(seed: int) -> None:
    scene = generate(TRAIN.start + seed, SIZE, defects=4)
    total = np.zeros((120, 160), int)
    for instance in scene.instances:
        x0, y0, x1, y1 = instance.box_xyxy()
        assert 0 <= x0 < x1 <= 160
        assert 0 <= y0 < y1 <= 120
        inside = instance.mask[y0:y1, x0:x1]
        assert inside.sum() == instance.mask.sum() > 0
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()
        total += instance.mask
    assert (total > 1).sum() <= 0.02 * (total > 0).sum() + 1


def test_box_of_a_disc() -> None:
    ys, xs = np.mgrid[:40, :60]
    assert box_of((xs - 30) ** 2 + (ys - 20) ** 2 <= 100) == (20, 10, 41, 31)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_every_defect_changes_the_picture_where_its_mask_says(name: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(10):
        canvas = np.full((200, 200, 3), 0.55, np.float32)
        mask = TRAINED.defects[name](rng, canvas, Scenery(0.5, "painted"))
        if mask is not None and mask.sum() > 30:
            changed = np.abs(canvas - 0.55).max(axis=-1)
            assert changed[mask].mean() > 3 * changed[~mask].mean()
            return
    pytest.fail("ten tries drew nothing")


@pytest.mark.parametrize("name", sorted(SURFACES))
def test_every_surface_is_a_sane_picture(name: str) -> None:
    canvas = SURFACES[name](np.random.default_rng(1), 90, 120)
    assert canvas.shape == (90, 120, 3)
    assert canvas.dtype == np.float32
    assert np.isfinite(canvas).all()
    assert 0.0 < float(canvas.mean()) < 1.0


def test_splits_do_not_meet() -> None:
    for first, second in combinations(SPLITS.values(), 2):
        assert first.stop <= second.start or second.stop <= first.start
    assert split_of(VALIDATION.start) == "validation"
    with pytest.raises(ValueError, match="seed must lie in"):
        split_of(-1)


@pytest.mark.parametrize("edition", EDITIONS.values(), ids=tuple(EDITIONS))
def test_held_out_surfaces_never_appear_in_training(edition: Edition) -> None:
    def drawn(seeds: range) -> set[str]:
        return {generate(seeds.start + i, (48, 48), defects=0, edition=edition).surface for i in range(120)}

    assert not (drawn(TRAIN) | drawn(VALIDATION)) & set(edition.held_out)
    assert set(edition.held_out) <= drawn(TEST)
    assert not set(edition.surfaces) & set(edition.held_out)


def test_imagined_surfaces_are_for_training_alone_and_no_two_are_alike() -> None:
    for edition in EDITIONS.values():
        assert not {"imagined"} & (set(edition.surfaces) | set(edition.held_out))
    shown = {bucket.surface for bucket in BUCKETS}
    assert shown == {None, "imagined"}
    pictures = [generate(TRAIN.start + i, (48, 48), surface="imagined", defects=0).image for i in range(12)]
    assert len({picture.mean(axis=(0, 1)).tobytes() for picture in pictures}) == 12
    assert np.array_equal(pictures[0], generate(TRAIN.start, (48, 48), surface="imagined", defects=0).image)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.__name__)
def test_fields_of_imagined_surfaces_vary_at_any_size(field: FieldMaker) -> None:
    for height, width in ((48, 64), (300, 200)):
        for seed in range(6):
            values = field(np.random.default_rng(seed), height, width)
            assert values.shape == (height, width)
            assert values.dtype == np.float32
            assert np.isfinite(values).all()
            assert values.std() > 0


def test_newer_classes_come_last_so_that_indices_stay() -> None:
    for older in (SAMPLES, PUBLISHED):
        assert TRAINED.classes[: len(older.classes)] == older.classes
    assert len(TRAINED.classes) >= 10


def test_thin_scratches_get_as_thin_as_a_pixel() -> None:
    thinnest = 99.0
    for seed in range(40):
        canvas = np.full((1200, 1600, 3), 0.5, np.float32)
        mask = TRAINED.defects["scratch"](np.random.default_rng(seed), canvas, Scenery(0.5, "painted", fine=True))
        assert mask is not None
        across = np.ptp(np.argwhere(mask), axis=0).max()
        thinnest = min(thinnest, float(mask.sum() / across))
    assert 0.5 < thinnest < 1.6


def test_a_picture_at_an_angle_keeps_masks_on_their_defects() -> None:
    edition = replace(TRAINED, perspective=1.0, distractors=dict(DUST_ALONE))
    straight = replace(TRAINED, perspective=0.0, distractors=dict(DUST_ALONE))
    seed = TRAIN.start + 3
    flat = generate(seed, (320, 240), surface="painted", defects=3, edition=straight)
    turned = generate(seed, (320, 240), surface="painted", defects=3, edition=edition)
    assert [i.label for i in turned.instances] == [i.label for i in flat.instances]
    assert any(a.box_xyxy() != b.box_xyxy() for a, b in zip(turned.instances, flat.instances, strict=True))


def test_sample_data_is_what_the_generator_makes() -> None:
    truth = json.loads((OUT / "coco.json").read_text("utf-8"))
    small = [(n, s) for n, s in zip(names(), SPECS, strict=True) if s.size_wh[0] <= 800]
    made = coco_of([(name, scene_of(spec)) for name, spec in small])
    ids = {image["file_name"]: image["id"] for image in truth["images"]}
    for image in made["images"]:
        mine = [a for a in made["annotations"] if a["image_id"] == image["id"]]
        theirs = [a for a in truth["annotations"] if a["image_id"] == ids[image["file_name"]]]
        assert [a["category_id"] for a in mine] == [a["category_id"] for a in theirs]
        # Another version of OpenCV may round a pixel differently.
        boxes = [np.array([a["bbox"] for a in side], float).reshape(-1, 4) for side in (mine, theirs)]
        assert np.allclose(boxes[0], boxes[1], atol=2)


def test_sample_data_folder_is_complete() -> None:
    truth = json.loads((OUT / "coco.json").read_text("utf-8"))
    assert {i["file_name"] for i in truth["images"]} == {p.name for p in (OUT / "images").iterdir()}
    assert [c["name"] for c in truth["categories"]] == list(SAMPLES.classes)
    assert sum(p.stat().st_size for p in Path(OUT).rglob("*") if p.is_file()) < 8_000_000


def test_huge_header_is_small() -> None:
    assert len(huge_header_png()) < 100


def test_vocabulary_has_the_fixed_ids_and_every_synonym() -> None:
    pieces = wordpieces()
    assert len(set(pieces)) == len(pieces)
    for piece, index in SPECIAL.items():
        assert pieces[index] == piece
    assert {w for group in SYNONYMS.values() for phrase in group for w in phrase.split()} <= set(pieces)


def test_prompts_name_each_phrase_once() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        phrases = prompt_for(rng, CLASS_NAMES)
        assert len({text for text, _ in phrases}) == len(phrases) > 0
        assert all(-1 <= index < len(CLASS_NAMES) for _, index in phrases)


def test_word_ids_never_move_and_unknown_words_mean_nothing() -> None:
    published = (STARTER / "detector" / "tokenizer.json").read_text("utf-8")
    ids: dict[str, int] = json.loads(published)["model"]["vocab"]
    pieces = wordpieces()
    assert {piece: pieces[index] for piece, index in ids.items()} == {piece: piece for piece in ids}
    assert not {phrase for name in CLASS_NAMES for phrase in SYNONYMS[name]} & set(unknown_words(CLASS_NAMES))
    assert "chip" in unknown_words(SAMPLES.classes)

from __future__ import annotations

import filecmp
import io
import json
from pathlib import Path
from xml.etree import ElementTree as Tree

import numpy as np
import pytest
import supervision as sv
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from pycocotools.coco import COCO

from autolabel.errors import UsageError
from autolabel.export import FORMATS, export_run
from autolabel.export.names import Names
from autolabel.export.split import check_fractions, split_of
from autolabel.export.voc import inclusive_corners
from autolabel.ontology import Ontology
from autolabel.types import Box
from tests.fake_run import FakeRun

ONTOLOGY = Ontology.from_prompt("scratch. dent. rust")


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((48, 64), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def ring() -> np.ndarray:
    return rectangle(30, 5, 60, 40) & ~rectangle(40, 15, 50, 30)


@pytest.fixture
def run() -> FakeRun:
    run = FakeRun(ONTOLOGY)
    run.add("line 1/a.png", (0, (3, 4, 20, 15), 0.91234, rectangle(3, 4, 20, 15)), (2, (30, 5, 60, 40), 0.5, ring()))
    run.add("line 2/a.png", (1, (10.25, 8.5, 33.125, 40.75), 0.7))
    run.add("öl/ölfleck.png")
    return run


def folders_equal(a: Path, b: Path) -> bool:
    names = sorted(p.relative_to(a).as_posix() for p in a.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(b).as_posix() for p in b.rglob("*") if p.is_file())
    return all(filecmp.cmp(a / name, b / name, shallow=False) for name in names)


@pytest.mark.parametrize("fmt", FORMATS)
def test_empty_run(fmt, tmp_path):
    result = export_run(FakeRun(ONTOLOGY), fmt, tmp_path / "out", split=(0.8, 0.1, 0.1), images="copy")
    assert result.images == {"train": 0, "val": 0, "test": 0}
    assert result.annotations == 0
    if fmt == "coco":
        coco = COCO(tmp_path / "out" / "instances_val.json")
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["scratch", "dent", "rust"]


@pytest.mark.parametrize("fmt", FORMATS)
def test_same_run_gives_the_same_bytes(fmt, run, tmp_path):
    for name in ("one", "two"):
        export_run(run, fmt, tmp_path / name, split=(0.6, 0.4), images="copy")
    assert folders_equal(tmp_path / "one", tmp_path / "two")


def test_coco_loads_and_equals_the_run(run, tmp_path):
    export_run(run, "coco", tmp_path / "out")
    path = tmp_path / "out" / "annotations.json"
    coco = COCO(path)
    assert [i["file_name"] for i in coco.imgs.values()] == ["line 1/a.png", "line 2/a.png", "öl/ölfleck.png"]
    written = coco.loadAnns(coco.getAnnIds())
    originals = [a for item in run for a in item.annotations]
    assert [a["id"] for a in written] == [1, 2, 3]
    for record, original in zip(written, originals, strict=True):
        x, y, w, h = record["bbox"]
        assert (x, y, x + w, y + h) == pytest.approx(original.box.xyxy, abs=0.011)
        assert record["category_id"] == original.label_id + 1
        assert record["score"] == pytest.approx(original.score, abs=5e-5)
        assert record["confidence"] == pytest.approx(original.confidence, abs=5e-5)
        assert record["iscrowd"] == 0
        if original.mask is None:
            assert "segmentation" not in record
        else:
            assert np.array_equal(coco.annToMask(record), original.mask.decode())
            assert record["area"] == original.mask.area
    assert len(coco.loadRes(json.loads(path.read_text())["annotations"]).anns) == 3


def test_coco_polygons_are_exact_without_tolerance_and_holes_stay_run_lengths(run, tmp_path):
    export_run(run, "coco", tmp_path / "out", segmentation="polygon", tolerance_px=0)
    coco = COCO(tmp_path / "out" / "annotations.json")
    solid, holed = coco.anns[1], coco.anns[2]
    assert isinstance(solid["segmentation"], list)
    assert isinstance(holed["segmentation"], dict)
    assert np.array_equal(coco.annToMask(solid), rectangle(3, 4, 20, 15))
    assert np.array_equal(coco.annToMask(holed), ring())


def test_coco_ids_are_unique_across_splits(run, tmp_path):
    export_run(run, "coco", tmp_path / "out", split=(0.4, 0.3, 0.3))
    parts = [json.loads(p.read_text()) for p in sorted((tmp_path / "out").glob("instances_*.json"))]
    assert len(parts) == 3
    for key, count in (("images", 3), ("annotations", 3)):
        ids = [record["id"] for part in parts for record in part[key]]
        assert len(set(ids)) == len(ids) == count


def test_yolo_loads_in_supervision_and_equals_the_run(run, tmp_path):
    result = export_run(run, "yolo", tmp_path / "out", images="copy")
    assert result.images == {"train": 3}
    out = tmp_path / "out"
    data = sv.DetectionDataset.from_yolo(str(out / "images/train"), str(out / "labels/train"), str(out / "data.yaml"))
    assert data.classes == ["scratch", "dent", "rust"]
    by_name = {Path(path).name: found for path, _, found in data}
    for item, name in zip(run, ("line 1__a.png", "line 2__a.png", "öl__ölfleck.png"), strict=True):
        expected = np.array([a.box.xyxy for a in item.annotations]).reshape(-1, 4)
        assert np.allclose(by_name[name].xyxy, expected, atol=1e-3)
        assert by_name[name].class_id.tolist() == [a.label_id for a in item.annotations]
    assert (out / "labels/train/öl__ölfleck.txt").read_text() == ""


def test_yolo_polygons_load_in_supervision(run, tmp_path):
    result = export_run(run, "yolo-seg", tmp_path / "out", images="copy")
    assert any("no mask" in note for note in result.notes)
    out = tmp_path / "out"
    data = sv.DetectionDataset.from_yolo(
        str(out / "images/train"), str(out / "labels/train"), str(out / "data.yaml"), force_masks=True
    )
    found = next(found for path, _, found in data if path.endswith("line 1__a.png"))
    assert np.allclose(found.xyxy, [[3, 4, 20, 15], [30, 5, 60, 40]], atol=1e-3)
    for mask, original in zip(found.mask, (rectangle(3, 4, 20, 15), ring()), strict=True):
        # That reader paints the outline's own pixels too: it may add one to each side, and take none away.
        assert not (original & ~mask).any()
        grown = np.pad(original, 1)
        near = np.logical_or.reduce([np.roll(grown, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
        assert not (mask & ~near[1:-1, 1:-1]).any()


def test_voc_loads_in_supervision_and_equals_the_run(run, tmp_path):
    out = tmp_path / "out"
    export_run(run, "voc", out, images="copy", split=(0.5, 0.5))
    data = sv.DetectionDataset.from_pascal_voc(str(out / "JPEGImages"), str(out / "Annotations"))
    by_name = {Path(path).name: found for path, _, found in data}
    assert np.array_equal(by_name["line 1__a.png"].xyxy, [[3, 4, 20, 15], [30, 5, 60, 40]])
    assert np.abs(by_name["line 2__a.png"].xyxy - [[10.25, 8.5, 33.125, 40.75]]).max() <= 0.5
    stems = [s for split in ("train", "val") for s in (out / f"ImageSets/Main/{split}.txt").read_text().splitlines()]
    assert sorted(stems) == ["line 1__a", "line 2__a", "öl__ölfleck"]
    root = Tree.parse(out / "Annotations/line 1__a.xml").getroot()
    assert [root.findtext(f"object/bndbox/{tag}") for tag in ("xmin", "ymin", "xmax", "ymax")] == ["4", "5", "20", "15"]


@given(
    st.integers(1, 300).flatmap(
        lambda size: st.tuples(st.just(size), st.floats(0, size), st.floats(0, size), st.floats(0, size))
    )
)
def test_voc_corners_are_pixels_of_the_image_within_half_a_pixel(values):
    size, a, b, _ = values
    low, high = min(a, b), max(a, b)
    x_min, y_min, x_max, _ = inclusive_corners(Box(low, 0.0, high, float(size)), (size, size))
    assert 1 <= x_min <= x_max <= size
    assert y_min == 1
    if high - low >= 1:
        assert abs((x_min - 1) - low) <= 0.5
        assert abs(x_max - high) <= 0.5


boxes = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0, 63), st.floats(0, 47), st.floats(0.5, 64), st.floats(0.5, 48)), max_size=6
)


@settings(max_examples=40, deadline=None)
@given(boxes)
def test_any_boxes_survive_yolo_and_coco(tmp_path_factory, values):
    run = FakeRun(ONTOLOGY)
    run.add("a.png", *((c, (x, y, min(x + w, 64), min(y + h, 48)), 0.5) for c, x, y, w, h in values))
    out = tmp_path_factory.mktemp("any")
    export_run(run, "yolo", out / "yolo")
    export_run(run, "coco", out / "coco")
    originals = run.items[0].annotations
    lines = (out / "yolo/labels/train/a.txt").read_text().splitlines()
    records = json.loads((out / "coco/annotations.json").read_text())["annotations"]
    for original, line, record in zip(originals, lines, records, strict=True):
        cx, cy, w, h = (float(v) for v in line.split()[1:])
        back = ((cx - w / 2) * 64, (cy - h / 2) * 48, (cx + w / 2) * 64, (cy + h / 2) * 48)
        assert back == pytest.approx(original.box.xyxy, abs=1e-4)
        x, y, w, h = record["bbox"]
        assert (x, y, x + w, y + h) == pytest.approx(original.box.xyxy, abs=0.011)
        assert x + w <= 64
        assert y + h <= 48


@given(st.text("0123456789abcdef", min_size=8, max_size=64))
def test_split_depends_on_content_alone_and_covers_the_fractions(image_id):
    assert split_of(image_id, None) == "train"
    assert split_of(image_id, (0.0, 1.0, 0.0)) == "val"
    assert split_of(image_id, (0.7, 0.2, 0.1)) == split_of(image_id, (0.7, 0.2, 0.1))


def test_split_fractions_hold_on_many_images_and_growing_train_moves_none_out():
    ids = [str(i) for i in range(4000)]
    sides = [split_of(i, (0.8, 0.1, 0.1)) for i in ids]
    assert sides.count("train") / 4000 == pytest.approx(0.8, abs=0.03)
    wider = [split_of(i, (0.9, 0.05, 0.05)) for i in ids]
    assert all(after == "train" for before, after in zip(sides, wider, strict=True) if before == "train")


def test_equal_content_stays_on_one_side_as_two_files(tmp_path):
    run = FakeRun(ONTOLOGY)
    for i in range(12):
        run.add(f"a/{i}.png", seed=i)
        run.add(f"b/{i}.png", seed=i)
    export_run(run, "yolo", tmp_path / "out", split=(0.5, 0.5), images="copy")
    for i in range(12):
        (a,) = (tmp_path / "out").glob(f"images/*/a__{i}.png")
        (b,) = (tmp_path / "out").glob(f"images/*/b__{i}.png")
        assert a.parent == b.parent


@pytest.mark.parametrize("fractions", [(), (1.0,), (0.5, 0.6), (1.2, -0.2), (0.25,) * 4])
def test_wrong_fractions_are_refused(fractions):
    with pytest.raises(UsageError, match="sum to 1"):
        check_fractions(fractions)


def test_names_are_unique_and_writable():
    names = Names()
    paths = [
        "a/b.jpg",
        "a__b.jpg",
        "a__b.png",
        "A__B.jpg",
        "s3://bucket/a?.jpg",
        "../x.jpg",
        "ü/é.png",
        "x" * 300 + ".jpg",
    ]
    given_names = [names.flat(path) for path in paths]
    assert given_names[0] == "a__b.jpg"
    assert len({Path(n).stem.casefold() for n in given_names}) == len(paths)
    assert all(len(n.encode()) < 255 and not set(n) & set('<>:"|?*\\/') and n[0] != "." for n in given_names)


def test_coco_copies_keep_safe_folders_and_flatten_others(tmp_path):
    run = FakeRun(ONTOLOGY)
    for path in ("a/x.png", "s3://bucket/x.png", "../up.png"):
        run.add(path)
    export_run(run, "coco", tmp_path / "out", images="copy")
    records = json.loads((tmp_path / "out/annotations.json").read_text())["images"]
    assert "a/x.png" in {r["file_name"] for r in records}
    for record in records:
        assert (tmp_path / "out" / "images" / record["file_name"]).is_file()
    assert not (tmp_path / "up.png").exists()


def test_foreign_files_are_never_replaced(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    export_run(run, "yolo", out)
    (out / "labels" / "train.cache").write_text("left by a trainer")
    export_run(run, "coco", out)
    assert not (out / "labels").exists()
    (out / "weights.pt").write_text("mine")
    with pytest.raises(UsageError, match=r"weights\.pt"):
        export_run(run, "coco", out)
    assert (out / "weights.pt").read_text() == "mine"
    assert (out / "annotations.json").exists()
    with pytest.raises(UsageError, match="out is a file"):
        export_run(run, "coco", out / "weights.pt")


def test_a_failed_export_leaves_nothing_behind_and_the_old_one_in_place(run, tmp_path):
    out = tmp_path / "out"
    export_run(run, "voc", out)
    del run.files["öl/ölfleck.png"]
    with pytest.raises(KeyError):
        export_run(run, "yolo", out, images="copy")
    assert (out / "Annotations").is_dir()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_links_point_at_local_originals(run, tmp_path):
    originals = {path: tmp_path / f"{i}.png" for i, path in enumerate(run.files)}
    for path, target in originals.items():
        target.write_bytes(run.files[path])
    run.local_path = lambda image: originals.get(image.path)
    export_run(run, "yolo", tmp_path / "out", images="link")
    link = tmp_path / "out/images/train/line 1__a.png"
    assert link.is_symlink()
    assert link.read_bytes() == run.files["line 1/a.png"]


def test_turned_images_are_mentioned(run, tmp_path):
    buffer, exif = io.BytesIO(), Pillow.Exif()
    exif[0x0112] = 6
    Pillow.new("RGB", (48, 64)).save(buffer, "JPEG", exif=exif)
    run.files["line 1/a.png"] = buffer.getvalue()
    assert "1 images carry an EXIF rotation" in export_run(run, "coco", tmp_path / "out", images="copy").notes[0]


@pytest.mark.parametrize(
    "options", [{"fmt": "tfrecord"}, {"images": "move"}, {"segmentation": "png"}, {"tolerance_px": -1.0}]
)
def test_wrong_options_name_the_value(run, tmp_path, options):
    fmt = options.pop("fmt", "coco")
    with pytest.raises(UsageError, match="got"):
        export_run(run, fmt, tmp_path / "out", **options)


def test_class_names_with_quotes_stay_valid_yaml(tmp_path):
    import yaml

    run = FakeRun(Ontology.from_prompt('paint: "blister". \' #1. 裂纹'))
    export_run(run, "yolo", tmp_path / "out")
    data = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert list(data["names"].values()) == list(run.ontology.names)
    assert data["val"] == "images/train"


@pytest.mark.parametrize("fmt", FORMATS)
def test_odd_bytes_in_names_survive(fmt, tmp_path):
    run = FakeRun(Ontology.from_prompt("bell\x07y"))
    path = b"bad\xff.png".decode("utf-8", "surrogateescape")
    run.add(path, (0, (1, 1, 9, 9), 0.5))
    export_run(run, fmt, tmp_path / "out", images="copy")
    if fmt == "coco":
        (image,) = json.loads((tmp_path / "out/annotations.json").read_text("utf-8"))["images"]
        assert (tmp_path / "out/images" / image["file_name"]).is_file()
        export_run(run, fmt, tmp_path / "bare")
        (image,) = json.loads((tmp_path / "bare/annotations.json").read_text("utf-8"))["images"]
        assert image["file_name"] == path
    if fmt == "voc":
        (xml,) = (tmp_path / "out/Annotations").glob("*.xml")
        assert Tree.parse(xml).findtext("object/name") == "belly"

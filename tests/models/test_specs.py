from __future__ import annotations

from pathlib import Path

import pytest

from autolabel.errors import ModelError
from autolabel.models.specs import Options, folder_defaults, parse_spec
from autolabel.protocols import ModelRef

DETECTORS = ("grounding-dino", "groundingdino-py")


def test_full_spec_round_trips():
    text = "grounding-dino:IDEA-Research/grounding-dino-base@abc123?batch=4&span=mean"
    ref = parse_spec(text, "detector", DETECTORS)
    assert ref == ModelRef(
        "grounding-dino", "IDEA-Research/grounding-dino-base", "abc123", (("batch", "4"), ("span", "mean"))
    )
    assert str(ref) == text


def test_reference_may_hold_colons_and_no_revision():
    ref = parse_spec("open-clip:hf-hub:timm/ViT-B-16-SigLIP2", "classifier", ["open-clip"])
    assert (ref.reference, ref.revision) == ("hf-hub:timm/ViT-B-16-SigLIP2", None)


@pytest.mark.parametrize(
    ("task", "files", "backend"),
    [
        ("detector", ["config.json"], "grounding-dino"),
        ("segmenter", ["config.yaml"], "sam2"),
        ("classifier", ["open_clip_config.json"], "open-clip"),
    ],
)
def test_a_folder_names_its_backend_by_its_files(tmp_path: Path, task, files, backend):
    for name in files:
        (tmp_path / name).write_text("{}")
    assert parse_spec(str(tmp_path), task, [backend]) == ModelRef(backend, str(tmp_path))


@pytest.mark.parametrize(
    ("task", "name", "backend"),
    [("detector", "a.pth", "groundingdino-py"), ("segmenter", "sam2_hiera_t.pt", "sam2")],
)
def test_a_bare_file_names_its_backend_by_its_suffix(tmp_path: Path, task, name, backend):
    (tmp_path / name).touch()
    assert parse_spec(f"{tmp_path / name}?config=x", task, [backend]).backend == backend


def test_a_path_with_an_at_sign_is_no_revision(tmp_path: Path):
    folder = tmp_path / "me@work"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert parse_spec(str(folder), "detector", DETECTORS).revision is None
    assert parse_spec(f"grounding-dino:{folder}", "detector", DETECTORS).reference == str(folder)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("yolo:world", "installed: grounding-dino, groundingdino-py"),
        ("grounding-dino:", "names no model"),
        ("IDEA-Research/grounding-dino-tiny", "write grounding-dino:IDEA-Research/grounding-dino-tiny"),
        ("nowhere", "neither backend:reference nor a file"),
        ("grounding-dino:x?batch", "not written name=value"),
    ],
)
def test_a_wrong_spec_says_what_would_be_right(spec: str, says: str):
    with pytest.raises(ModelError, match=says):
        parse_spec(spec, "detector", DETECTORS)


def test_a_folder_of_something_else_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        parse_spec(str(tmp_path), "detector", DETECTORS)


def test_options_are_read_by_name_and_misspelt_ones_are_errors():
    options = Options(ModelRef("b", "r", None, (("batch", "4"), ("spam", "1"))), {"context": "0.3"})
    assert options.integer("batch", 1) == 4
    assert options.number("context", 0.1) == 0.3
    assert options.flag("multimask") is False
    with pytest.raises(ModelError, match="unknown option spam; known: batch, context, multimask"):
        options.done()


@pytest.mark.parametrize(
    ("read", "value"), [("integer", "-1"), ("integer", "x"), ("number", "-0.5"), ("number", "nan")]
)
def test_an_option_out_of_range_names_option_and_value(read: str, value: str):
    options = Options(ModelRef("b", "r", None, (("n", value),)))
    with pytest.raises(ModelError, match=f"option n must be .*{value!r}"):
        getattr(options, read)("n", 1)


def test_a_folder_states_its_own_defaults(tmp_path: Path):
    config = tmp_path / "config.json"
    assert folder_defaults(config) == {}
    config.write_text('{"autolabel": {"context": 0.25, "square": "pad"}}')
    assert folder_defaults(config) == {"context": "0.25", "square": "pad"}

from __future__ import annotations

import numpy as np
import pytest
import torch

from autolabel.errors import ModelError
from autolabel.models import registry
from autolabel.models.sam2 import _config_file, build
from autolabel.protocols import ModelRef
from tests.models.random_models import picture, segmenter_config

NO_BOXES = np.zeros((0, 4), np.float32)


@pytest.fixture(scope="module")
def segmenter(checkpoint, cpu):
    return registry.load_segmenter(str(checkpoint("segmenter")), cpu)


def test_nothing_in_nothing_out(segmenter):
    assert segmenter.predict_batch([], []) == []


def test_an_image_without_boxes_is_not_even_encoded(segmenter, monkeypatch):
    monkeypatch.setattr(segmenter, "_embed", lambda images: pytest.fail("encoded"))
    (found,) = segmenter.predict_batch([picture(40, 30)], [NO_BOXES])
    assert found.masks == ()
    assert found.scores.shape == (0,)


def test_masks_have_the_images_size_and_a_score_each(segmenter):
    boxes = np.array([[5, 5, 60, 40], [0, 0, 90, 70], [10, 10, 11, 11]], np.float32)
    (found,) = segmenter.predict_batch([picture(90, 70)], [boxes])
    assert [mask.decode().shape for mask in found.masks] == [(70, 90)] * 3
    assert found.scores.dtype == np.float32
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_a_margin_ends_masks_at_their_boxes_and_changes_nothing_inside(checkpoint, cpu):
    folder = checkpoint("segmenter")
    boxes = np.array([[5, 5, 60, 40], [30, 20, 50, 30]], np.float32)
    (free,) = registry.load_segmenter(str(folder), cpu).predict_batch([picture(90, 70)], [boxes])
    (cut,) = registry.load_segmenter(f"{folder}?margin=0.1", cpu).predict_batch([picture(90, 70)], [boxes])
    windows = [(slice(0, 46), slice(0, 66)), (slice(18, 32), slice(28, 52))]
    for whole, part, window in zip(free.masks, cut.masks, windows, strict=True):
        expected = np.zeros((70, 90), np.bool_)
        expected[window] = whole.decode()[window]
        assert (part.decode() == expected).all()
    assert any(whole != part for whole, part in zip(free.masks, cut.masks, strict=True))


def test_a_configuration_may_state_options_of_its_own(checkpoint, cpu):
    folder = checkpoint("segmenter")
    config = folder / "config.yaml"
    text = config.read_text()
    config.write_text(text + '\nautolabel:\n  margin: "0.25"\n')
    try:
        assert registry.load_segmenter(str(folder), cpu)._options.margin == 0.25
        assert registry.load_segmenter(f"{folder}?margin=0.5", cpu)._options.margin == 0.5
    finally:
        config.write_text(text)


def test_weights_say_how_close_their_windows_lie_round_a_box(checkpoint, cpu):
    folder = checkpoint("segmenter")
    usual, close = (registry.load_segmenter(f"{folder}{options}", cpu) for options in ("", "?window=48&zoom=1.5"))
    assert (usual.window_px, usual.window_zoom) == (usual.input_px, None)
    assert (close.window_px, close.window_zoom) == (48, 1.5)
    with pytest.raises(ModelError, match="zoom must be at least 1"):
        registry.load_segmenter(f"{folder}?zoom=0.5", cpu)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_pixel_values_are_those_of_the_packages_transforms(segmenter):
    from sam2.utils.transforms import SAM2Transforms

    transforms = SAM2Transforms(resolution=256, mask_threshold=0.0)
    for image in (picture(300, 200), picture(60, 90)):
        torch.testing.assert_close(segmenter.pixel_values(image), transforms(image), atol=1e-6, rtol=0)


def test_weights_stored_in_half_precision_are_computed_in_full(checkpoint, cpu):
    model = registry.load_segmenter(str(checkpoint("segmenter", half=True)), cpu)
    assert {parameter.dtype for parameter in model._model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("sam2_hiera_tiny.pt", "sam2/sam2_hiera_t.yaml"),
        ("sam2.1_hiera_small.pt", "sam2.1/sam2.1_hiera_s.yaml"),
        ("sam2.1_hiera_base_plus.pt", "sam2.1/sam2.1_hiera_b+.yaml"),
        ("sam2.1_hiera_large_finetuned.pt", "sam2.1/sam2.1_hiera_l.yaml"),
        ("sam2_hiera_b+.pt", "sam2/sam2_hiera_b+.yaml"),
    ],
)
def test_the_checkpoints_name_says_its_configuration(tmp_path, name, config):
    found = _config_file("", tmp_path / name, ModelRef("sam2", name))
    assert found.is_file()
    assert str(found).endswith(config)


def test_a_name_that_says_nothing_asks_for_the_configuration(tmp_path):
    with pytest.raises(ModelError, match=r"add \?config=sam2.1_hiera_t"):
        _config_file("", tmp_path / "mine.pt", ModelRef("sam2", "mine.pt"))
    with pytest.raises(ModelError, match=r"no configuration 'sam3'; give a path or one of sam2.1_hiera_b\+"):
        _config_file("sam3", tmp_path / "mine.pt", ModelRef("sam2", "mine.pt"))
    assert _config_file("sam2.1_hiera_t", tmp_path / "mine.pt", ModelRef("sam2", "x")).name == "sam2.1_hiera_t.yaml"


def test_an_official_checkpoint_loads_with_its_configuration(tmp_path, checkpoint, cpu):
    from safetensors.torch import load_file

    folder = checkpoint("segmenter")
    torch.save({"model": load_file(folder / "model.safetensors")}, tmp_path / "sam2_own.pt")
    spec = f"{tmp_path / 'sam2_own.pt'}?config={folder / 'config.yaml'}"
    boxes = np.array([[5, 5, 60, 40]], np.float32)
    (one,) = registry.load_segmenter(spec, cpu).predict_batch([picture(90, 70)], [boxes])
    (other,) = registry.load_segmenter(str(folder), cpu).predict_batch([picture(90, 70)], [boxes])
    assert one.masks == other.masks


def test_a_checkpoint_of_another_size_is_refused(tmp_path, checkpoint, cpu):
    torch.save({"model": {"no_mem_embed": torch.zeros(1, 1, 8)}}, tmp_path / "sam2_own.pt")
    with pytest.raises(ModelError, match=r"does not fit .* missing .* 1 of another shape \(no_mem_embed"):
        registry.load("segmenter", f"{tmp_path / 'sam2_own.pt'}?config={checkpoint('segmenter') / 'config.yaml'}", cpu)


def test_a_configuration_may_construct_parts_of_sam_only(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(segmenter_config(256).replace("sam2.modeling.memory_encoder.Fuser", "os.system"))
    with pytest.raises(ModelError, match=r"asks to construct 'os.system'; only sam2.modeling"):
        build(path)
    path.write_text("{}")
    with pytest.raises(ModelError, match="has no table 'model'"):
        build(path)

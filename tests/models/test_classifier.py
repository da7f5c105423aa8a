from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PILImage

from autolabel.errors import ModelError
from autolabel.loading import lazily
from autolabel.models import registry
from autolabel.models.crops import CropStyle, crop, crop_window, region_crop
from autolabel.types import Mask
from tests.models.random_models import picture

CLASSES = [["scratch", "long scratch"], ["dent"], ["rust"]]
NO_BOXES = np.zeros((0, 4), np.float32)
STYLE = CropStyle(0.0, "off", "keep", (1, 2, 3))


@pytest.fixture(scope="module")
def classifier(checkpoint, cpu):
    return registry.load_classifier(str(checkpoint("classifier")), cpu)


def test_nothing_in_nothing_out(classifier):
    assert classifier.predict_batch([], [], None, CLASSES) == []
    (found,) = classifier.predict_batch([picture(40, 30)], [NO_BOXES], None, CLASSES)
    assert found.probs.shape == (0, 3)
    assert found.embeddings.shape == (0, 32)


@pytest.mark.parametrize("siglip", [False, True])
def test_rows_sum_to_one_and_embeddings_are_unit_vectors(checkpoint, cpu, siglip):
    model = registry.load_classifier(str(checkpoint("classifier", siglip=siglip)), cpu)
    boxes = np.array([[0, 0, 20, 20], [10, 5, 39, 29], [3, 3, 4, 4]], np.float32)
    (found,) = model.predict_batch([picture(40, 30)], [boxes], None, CLASSES)
    np.testing.assert_allclose(found.probs.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-5)
    assert found.embeddings.dtype == found.probs.dtype == np.float32


def test_a_single_class_is_certain(classifier):
    (found,) = classifier.predict_batch([picture(40, 30)], [np.array([[0, 0, 9, 9]], np.float32)], None, [["dent"]])
    assert found.probs.tolist() == [[1.0]]


def test_the_folder_states_how_its_model_was_trained(checkpoint, cpu, tmp_path):
    from tests.models.random_models import write_classifier

    own = {"autolabel": {"context": 0.5, "square": "pad", "templates": "{} defect", "min_prob": 0.7}}
    write_classifier(tmp_path / "own", extra=own)
    lazy = lazily("classifier", str(tmp_path / "own"), "starter", cpu)
    assert (lazy.min_prob, lazy.loaded) == (0.7, False)  # known before it is loaded, and afterwards
    assert lazy.model.min_prob == 0.7
    assert lazily("classifier", f"open-clip:{tmp_path / 'own'}?min_prob=0.2", "starter", cpu).min_prob == 0.2
    options = registry.load_classifier(str(tmp_path / "own"), cpu)._options
    assert options.templates == ("{} defect",)
    assert (options.style.context, options.style.square) == (0.5, "pad")
    options = registry.load_classifier(f"open-clip:{tmp_path / 'own'}?context=0.1", cpu)._options
    assert options.style.context == 0.1


def test_a_crop_seen_from_two_sides_is_judged_as_its_mirror_image(checkpoint, cpu):
    image, box = picture(30, 30), [np.array([[2, 2, 26, 26]], np.float32)]
    along = np.ascontiguousarray(image.transpose(1, 0, 2))
    for mirrored, alike in (("true", True), ("false", False)):
        model = registry.load_classifier(f"open-clip:{checkpoint('classifier')}?mirrored={mirrored}", cpu)
        one, other = model.predict_batch([image, along], box * 2, None, CLASSES)
        assert np.allclose(one.embeddings, other.embeddings, atol=1e-5) is alike
        np.testing.assert_allclose(np.linalg.norm(one.embeddings, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("templates=a photo", "every template needs exactly one {}"),
        ("square=round", "option square must be one of expand, pad, off, got 'round'"),
        (
            "tilt=1",
            "unknown option tilt; known: background, batch, context, min_prob, mirrored, square, templates, weig",
        ),
        ("min_prob=1.5", "option min_prob must be in"),
    ],
)
def test_wrong_options_are_errors(checkpoint, cpu, options, says):
    with pytest.raises(ModelError, match=says):
        registry.load("classifier", f"open-clip:{checkpoint('classifier')}?{options}", cpu)


def test_unknown_architectures_and_tags_list_what_there_is(cpu):
    with pytest.raises(ModelError, match="no weights 'nope' for ViT-B-32; known: openai, "):
        registry.load("classifier", "open-clip:ViT-B-32/nope", cpu)
    with pytest.raises(ModelError, match="autolabel models pull tiny"):
        registry.load("classifier", "open-clip:ViT-B-32/laion2b_s34b_b79k", cpu)


def test_a_one_px_box_on_the_edge_still_shows_a_pixel():
    image = picture(20, 10)
    for box in ([19, 9, 20, 10], [20, 10, 20, 10], [0, 0, 0, 0]):
        for style in (STYLE, CropStyle(0.15, "expand", "keep", (0, 0, 0)), CropStyle(0.15, "pad", "keep", (0, 0, 0))):
            assert min(crop(image, np.array(box, np.float32), style, None).size) >= 1


def test_a_window_has_its_margin_and_becomes_square_around_its_centre():
    box = np.array([10, 20, 30, 24], np.float32)
    assert crop_window(box, 0.0, False) == (10, 20, 30, 24)
    assert crop_window(box, 0.1, False) == (8, 18, 32, 26)
    assert crop_window(box, 0.0, True) == (10, 12, 30, 32)


def test_what_lies_outside_the_image_is_filled():
    image = np.full((10, 20, 3), 200, np.uint8)
    cut = np.asarray(crop(image, np.array([0, 0, 20, 10], np.float32), CropStyle(0, "expand", "keep", (1, 2, 3)), None))
    assert cut.shape == (20, 20, 3)
    assert (cut[:5] == [1, 2, 3]).all()
    assert (cut[5:15] == 200).all()
    padded = crop(image, np.array([0, 0, 20, 10], np.float32), CropStyle(0, "pad", "keep", (1, 2, 3)), None)
    assert np.array_equal(np.asarray(padded), cut)


def test_the_background_can_be_hidden_by_the_mask():
    image = picture(20, 10)
    shape = np.zeros((10, 20), bool)
    shape[2:5, 3:9] = True
    box = np.array([0, 0, 20, 10], np.float32)
    grey = region_crop(image, box, Mask.encode(shape), CropStyle(0, "off", "grey", (1, 2, 3)))
    assert np.array_equal(np.asarray(grey)[shape], image[shape])
    assert (np.asarray(grey)[~shape] == [1, 2, 3]).all()
    blur = region_crop(image, box, Mask.encode(shape), CropStyle(0, "off", "blur", (1, 2, 3)))
    assert np.array_equal(np.asarray(blur)[shape], image[shape])
    assert not np.array_equal(np.asarray(blur), image)
    keep = region_crop(image, box, Mask.encode(shape), STYLE)
    assert np.array_equal(np.asarray(keep), image)


def test_an_empty_mask_hides_nothing():
    image = picture(20, 10)
    empty = Mask.encode(np.zeros((10, 20), bool))
    cut = region_crop(image, np.array([0, 0, 20, 10], np.float32), empty, CropStyle(0, "off", "grey", (0, 0, 0)))
    assert isinstance(cut, PILImage.Image)
    assert np.array_equal(np.asarray(cut), image)

from __future__ import annotations

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2

from autolabel.models.clip_pixels import ClipPixels
from autolabel.models.crops import CropStyle, region_crop
from autolabel.protocols import Runtime
from autolabel.types import Mask
from tests.models.random_models import picture

CPU = Runtime()
BOXES = np.array([[0, 0, 9, 60], [30, 20, 90, 40], [88, 60, 90, 70], [5, 5, 6, 6], [0, 0, 90, 70]], np.float32)
STYLES = [CropStyle(0.15, square, "keep", (10, 120, 200)) for square in ("expand", "pad", "off")]


def transform_of(**changes):
    return image_transform_v2(PreprocessCfg(**{"size": 32, "mean": (0.5, 0.4, 0.3), **changes}), is_train=False)


@pytest.mark.parametrize("style", [*STYLES, CropStyle(0.1, "expand", "grey", (1, 2, 3))], ids=str)
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_a_batch_on_a_cpu_is_exactly_the_transform_of_each_crop(style, mode):
    transform = transform_of(resize_mode=mode)
    image = picture(90, 70)
    mask = Mask.encode(np.arange(90 * 70).reshape(70, 90) % 7 > 2)
    regions = [(image, box, mask) for box in BOXES]
    pixels = ClipPixels(transform, style, CPU)
    expected = torch.stack([transform(region_crop(*region, style)) for region in regions])
    assert torch.equal(pixels.batch(pixels.prepared(regions, 2)[0:5]), expected)


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.square)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_cut_on_the_device_a_pixel_is_within_two_levels_of_pils(style, interpolation):
    transform = transform_of(interpolation=interpolation)
    image = picture(90, 70)
    pixels = ClipPixels(transform, style, CPU)
    differences = []
    for box in BOXES:
        crop = region_crop(image, box, None, style)
        for step in transform.transforms[:-2]:
            crop = step(crop)
        differences.append(np.abs(pixels.cut(image, box).permute(1, 2, 0).numpy() - np.asarray(crop, np.float32)))
    every = np.stack(differences)
    assert every.max() <= 2
    assert every.mean() <= 0.25
    pixels.release()


def test_only_plain_crops_are_cut_on_a_gpu():
    gpu = Runtime("cuda")
    assert ClipPixels(transform_of(), STYLES[0], gpu).on_device
    assert not ClipPixels(transform_of(), STYLES[0], CPU).on_device
    assert not ClipPixels(transform_of(resize_mode="longest"), STYLES[0], gpu).on_device
    assert not ClipPixels(transform_of(), CropStyle(0.1, "expand", "blur", (0, 0, 0)), gpu).on_device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_shows_the_model_what_a_cpu_does():
    image = picture(90, 70)
    regions = [(image, box, None) for box in BOXES]
    shown = []
    for runtime in (CPU, Runtime("cuda")):
        pixels = ClipPixels(transform_of(), STYLES[0], runtime)
        shown.append(pixels.batch(pixels.prepared(regions, 2)[0:5]).cpu())
    assert (shown[0] - shown[1]).abs().max() <= 2.01 / 255 / 0.26

"""Crops of regions as a classifier's pixel values: through PIL on a CPU, cut and resized on the device on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from autolabel.models.ahead import Ahead
from autolabel.models.crops import CropStyle, plan_cut, region_crop
from autolabel.models.runtime import to_device
from autolabel.protocols import Runtime
from autolabel.types import RGB, Float, Mask

_ON_TENSORS = {"Resize", "CenterCrop"}
Region = tuple[RGB, Float, Mask | None]
"""An image, one box in its px, and the region's mask where there is one."""


class ClipPixels:
    """open_clip's image transform over batches; its tensor steps run once a batch and not once a crop.

    On a GPU crops are resized there, by the same filter as PIL's but rounded once and not after each direction:
    a pixel differs from PIL's by at most 2 of 255 levels, by 0.2 in the mean. A style that hides the background, or a
    transform that is not made of resizing and cropping, goes through PIL everywhere.
    """

    def __init__(self, transform: Any, style: CropStyle, runtime: Runtime) -> None:
        *shape, _, self._normalize = transform.transforms
        self._shape = shape
        self._style = style
        self._runtime = runtime
        # The last of them turns other images into RGB, which crops are.
        self._sizing = [step for step in shape if type(step).__name__ != "MaybeConvertMode"]
        plain = style.background == "keep" and all(type(step).__name__ in _ON_TENSORS for step in self._sizing)
        self.on_device = plain and runtime.device.startswith("cuda")
        self._uploaded: tuple[RGB, torch.Tensor] | None = None

    def prepared(self, regions: Sequence[Region], ahead: int) -> Sequence[Any]:
        """Return what `batch` takes, for each region: crops that other threads make, some ahead, or just the region."""
        return regions if self.on_device else Ahead(self._crop, regions, ahead)

    def batch(self, prepared: Sequence[Any]) -> torch.Tensor:
        """Stack prepared regions to ``(N, 3, S, S)`` normalised pixel values on the device."""
        if self.on_device:
            levels = torch.stack([self.cut(*each) for each in prepared])
        else:
            crops = to_device(torch.from_numpy(np.stack(prepared)), self._runtime)
            levels = crops.permute(0, 3, 1, 2).contiguous()
        pixels: torch.Tensor = self._normalize(levels.to(torch.float32).div(255))
        return pixels

    def _crop(self, region: Region) -> np.ndarray[Any, np.dtype[np.uint8]]:
        image, box, mask = region
        crop = region_crop(image, box, mask, self._style)
        for step in self._shape:
            crop = step(crop)
        return np.asarray(crop)

    def cut(self, image: RGB, box_xyxy: Float, _: Mask | None = None) -> torch.Tensor:
        """Cut and resize one region on the device: ``(3, S, S)`` whole levels 0–255 as floats."""
        cut = plan_cut(box_xyxy, (image.shape[1], image.shape[0]), self._style)
        left, top, right, bottom = cut.inside
        patch = self._upload(image)[top:bottom, left:right].permute(2, 0, 1).to(torch.float32)
        if cut.canvas_wh != (right - left, bottom - top):
            fill = torch.tensor(self._style.fill, dtype=torch.float32).to(patch.device, non_blocking=True)
            canvas = fill[:, None, None].repeat(1, cut.canvas_wh[1], cut.canvas_wh[0])
            x, y = cut.offset
            canvas[:, y : y + bottom - top, x : x + right - left] = patch
            patch = canvas
        for step in self._sizing:
            patch = step(patch)
        return patch.round().clamp(0, 255)

    def _upload(self, image: RGB) -> torch.Tensor:
        """Return the image on the device; regions come image by image, so the last one is kept."""
        last = self._uploaded
        if last is None or last[0] is not image:
            last = self._uploaded = (image, to_device(torch.from_numpy(np.array(image)), self._runtime))
        return last[1]

    def release(self) -> None:
        """Let go of the last image."""
        self._uploaded = None

"""Take a detector between two: ``python -m training.soup OLD NEW OUT --share 0.75``.

``NEW`` was trained on from ``OLD`` (``--from``). Their weighted mean keeps more of what the old one knew.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor
from transformers import MMGroundingDinoForObjectDetection

from training import runtime
from training.detector_model import save_folder


def between(old: dict[str, Tensor], new: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Mean of two states, ``share`` of the new one; rows that only the new one has are taken from it."""
    mixed = {}
    for name, value in new.items():
        mixed[name] = value.clone()
        if not value.is_floating_point():
            continue
        if value.ndim == 0:
            mixed[name] = torch.lerp(old[name], value, share)
            continue
        rows = len(old[name])
        mixed[name][:rows] = torch.lerp(old[name], value[:rows], share)
    return mixed


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write the mean of two detectors.")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.75, help="of the new one, 0 to 1")
    arguments = parser.parse_args()
    old, new = (
        MMGroundingDinoForObjectDetection.from_pretrained(folder, dtype=torch.float32).state_dict()
        for folder in (arguments.old, arguments.new)
    )
    size = json.loads((arguments.new / "preprocessor_config.json").read_text(encoding="utf-8"))["size"]
    edges = (size["shortest_edge"], size["longest_edge"])
    weights = between(old, new, arguments.share)
    runtime.replace_folder(arguments.out, lambda folder: save_folder(weights, folder, edges))


if __name__ == "__main__":
    main()

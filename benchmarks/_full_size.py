"""Models of official size with random weights (Grounding DINO-T, SAM 2.1-T, ViT-B/32), and pictures for them.

Speed does not depend on what the weights are; with these nothing has to be downloaded.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

CLASSES = ("scratch", "dent", "rust", "crack", "hole", "stain")
TEMPLATE = "a photo of a {}."
SIZE_WH = (1066, 800)


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where the three models lie."""

    folder: Path

    @property
    def detector(self) -> Path:
        """Folder of the detector, as transformers saves it."""
        return self.folder / "detector"

    @property
    def segmenter(self) -> Path:
        """Folder of the segmenter: ``config.yaml`` and ``model.safetensors``."""
        return self.folder / "segmenter"

    @property
    def classifier(self) -> Path:
        """Weights of the classifier."""
        return self.folder / "vit.safetensors"

    def specs(self) -> dict[str, str]:
        """Specs that load them; crops are cut as the reference cuts them: the box and nothing else."""
        style = f"context=0&square=off&templates={TEMPLATE}"
        return {
            "detector": str(self.detector),
            "segmenter": f"sam2:{self.segmenter}",
            "classifier": f"open-clip:ViT-B-32?weights={self.classifier}&{style}",
        }


def make_checkpoints(folder: Path) -> Checkpoints:
    """Write the checkpoints (1.5 GB) where they are not there yet."""
    made = Checkpoints(folder)
    if made.classifier.is_file():
        return made
    import open_clip
    import torch
    from safetensors.torch import save_file
    from transformers import GroundingDinoConfig

    from tests.models.random_models import write_detector, write_segmenter

    write_detector(made.detector, edge=800, config=GroundingDinoConfig())
    write_segmenter(made.segmenter, image_size=1024, full=True)
    torch.manual_seed(0)
    save_file(open_clip.create_model("ViT-B-32").state_dict(), made.classifier)  # last: its being there says all are
    return made


def make_pictures(folder: Path, count: int) -> list[Path]:
    """Write ``count`` JPEGs of 1066 x 800 px."""
    from PIL import Image

    from tests.models.random_models import picture

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = [folder / f"{number:03d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(picture(*SIZE_WH, number)).save(path, quality=92)
    return paths

"""Models of official size with random weights (Grounding DINO-T, SAM 2.1-T, ViT-B/32), and pictures for them.

Speed does not depend on what the weights are; with these nothing has to be downloaded.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLASSES = ("scratch", "dent", "rust", "crack", "hole", "stain")
TEMPLATE = "a photo of a {}."
SIZE_WH = (1066, 800)
_BOXES = 30
"""Of its 900 proposals a detector stores about so many; that is, they score `_STORED` and more."""
_STORED = 0.05


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
    _answer_as_if_trained(made.detector)
    write_segmenter(made.segmenter, image_size=1024, full=True)
    torch.manual_seed(0)
    save_file(open_clip.create_model("ViT-B-32").state_dict(), made.classifier)  # last: its being there says all are
    return made


def _answer_as_if_trained(folder: Path) -> None:
    """Let a detector with random weights answer as a trained one does: few boxes, none of them by rounding.

    As they come all 900 proposals score 0.98 and more, and which of 18,000 places they are, and in what order, is a
    matter of rounding. The order says which of 900 queries a place is given, so two programs that add in another order
    differ in boxes. Here all queries are alike, and scores are lowered.
    """
    import numpy as np
    import torch

    from autolabel.models import registry
    from autolabel.models.runtime import forward_pass
    from autolabel.protocols import Runtime
    from tests.models.random_models import picture

    detector: Any = registry.load("detector", str(folder), Runtime(offline=True, cpu="eager"))
    (caption,) = detector._plan(CLASSES)
    model = detector.forward.model
    words: list[torch.Tensor] = []  # as the image's places left them: (1, T, D)
    model.class_embed[-1].register_forward_hook(
        lambda _, args, kwargs, __: words.append([*args, *kwargs.values()][1]), with_kwargs=True
    )
    with torch.no_grad():
        model.model.query_position_embeddings.weight[:] = model.model.query_position_embeddings.weight[0].clone()
    with forward_pass(Runtime()):
        logits, _ = detector._run(detector.pixel_values(picture(*SIZE_WH, 0)), caption)
    best = logits[0].amax(dim=-1).sort(descending=True).values
    shift = float(np.log(_STORED / (1 - _STORED)) - best[_BOXES])
    wanted = torch.full((words[-1].shape[1], 1), shift)
    with torch.no_grad():
        model.model.decoder.layer_norm.bias += torch.linalg.lstsq(words[-1][0].clone(), wanted).solution[:, 0]
    model.save_pretrained(folder)


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

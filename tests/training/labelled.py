"""Pictures of the published edition on disk, with their ground truth."""

from pathlib import Path

import cv2
import numpy as np

from training.generator import PUBLISHED, Scene
from training.natural import Labelled


def saved(folder: Path, scene: Scene) -> Labelled:
    """Write a scene's picture and ids into ``folder`` without loss."""
    path, ids_path = folder / f"{scene.seed}.png", folder / f"{scene.seed}.ids.png"
    ids = np.zeros(scene.image.shape[:2], np.uint8)
    for i, instance in enumerate(scene.instances):
        ids[instance.mask] = i + 1
    cv2.imwrite(str(path), scene.image[..., ::-1])
    cv2.imwrite(str(ids_path), ids)
    boxes = np.asarray([i.box_xyxy() for i in scene.instances], np.float32).reshape(-1, 4)
    labels = np.asarray([PUBLISHED.classes.index(i.label) for i in scene.instances], np.int64)
    return Labelled(path, scene.surface, boxes, labels, ids_path)

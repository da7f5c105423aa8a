"""Procedural inspection photographs with exact masks: ``generate(seed, size_wh)`` makes a ``Scene``."""

from training.generator.defects import CLASS_NAMES
from training.generator.scene import Instance, Scene, box_of, generate

__all__ = ["CLASS_NAMES", "Instance", "Scene", "box_of", "generate"]

"""Procedural inspection photographs with exact masks: ``generate(seed, size_wh)`` makes a ``Scene``."""

from training.generator.editions import EDITIONS, PUBLISHED, SAMPLES, TRAINED, Edition
from training.generator.scene import Instance, Scene, box_of, generate

CLASS_NAMES = TRAINED.classes

__all__ = [
    "CLASS_NAMES",
    "EDITIONS",
    "PUBLISHED",
    "SAMPLES",
    "TRAINED",
    "Edition",
    "Instance",
    "Scene",
    "box_of",
    "generate",
]

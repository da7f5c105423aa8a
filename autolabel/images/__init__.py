"""Images in: which files an input names, their bytes, and their pixels."""

from __future__ import annotations

from autolabel.images.decode import DEFAULT_MAX_PIXELS, Admit, decode, image_id, image_size
from autolabel.images.found import IMAGE_EXTENSIONS
from autolabel.images.sources import MISSING, Source, list_sources, read_bytes
from autolabel.images.uris import redact

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_EXTENSIONS",
    "MISSING",
    "Admit",
    "Source",
    "decode",
    "image_id",
    "image_size",
    "list_sources",
    "read_bytes",
    "redact",
]

"""``manifest.json``: what a run was made of and how far it got; small, human-readable, replaced atomically."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autolabel.errors import StoreError
from autolabel.ontology import LabelClass, Ontology
from autolabel.types import ModelInfo

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
Status = Literal["running", "done", "partial"]
_RECORDED_PACKAGES = (
    "autolabel-vision",
    "torch",
    "torchvision",
    "transformers",
    "sam2",
    "open-clip-torch",
    "numpy",
    "pillow",
    "pyarrow",
)


class StageKeys(BaseModel):
    """Fingerprints of what determined each stage's stored output; equal keys mean nothing has to be computed again."""

    model_config = ConfigDict(frozen=True)
    detect: str
    segment: str
    classify: str
    resolve: str

    @property
    def model_version(self) -> str:
        """Name of what these keys stand for in an annotation tool: another one whenever an annotation could differ."""
        return f"autolabel-{self.resolve}"


class Pace(BaseModel):
    """How fast the last pass was that called a model, and where its time went.

    ``busy_seconds`` are by stage and overlap, so that together they may exceed ``wall_seconds``; waiting is not in
    them. ``forward_seconds`` are those in forward passes ({}: not known, as on a GPU). The cost is in the currency of
    ``cost_per_hour``, without the time that loading the models took, as that is paid once.
    """

    model_config = ConfigDict(frozen=True)
    images: int
    wall_seconds: float
    load_seconds: float = 0.0
    busy_seconds: dict[str, float] = Field(default_factory=dict)
    forward_seconds: dict[str, float] = Field(default_factory=dict)
    engine: str = "auto"
    processes: int = 1
    cost_per_hour: float | None = None

    @property
    def labeling_seconds(self) -> float:
        """Seconds without loading; stages may load while others work, so a tenth of the time is left at least."""
        return max(self.wall_seconds - self.load_seconds, self.wall_seconds / 10, 1e-9)

    @property
    def images_per_second(self) -> float:
        """Images a second, loading left out."""
        return self.images / self.labeling_seconds

    @property
    def forward_share(self) -> float | None:
        """Share of the time, loading left out, in which a forward pass ran; 1 is as fast as the models are."""
        if not self.forward_seconds:
            return None
        return min(1.0, sum(self.forward_seconds.values()) / self.processes / self.labeling_seconds)

    @property
    def cost_per_1000_images(self) -> float | None:
        """What 1,000 images cost at ``cost_per_hour``."""
        return None if self.cost_per_hour is None else self.cost_per_hour / 3.6 / self.images_per_second


class RunManifest(BaseModel):
    """Everything needed to know, and repeat, what a run did."""

    model_config = ConfigDict(frozen=True)
    format_version: int = FORMAT_VERSION
    run_id: str
    created: str
    updated: str
    status: Status = "running"
    inputs: tuple[str, ...] = ()
    recipe: dict[str, Any] = Field(default_factory=dict, description="as given, defaults left out")
    resolved: dict[str, Any] = Field(default_factory=dict, description="with every default filled in")
    ontology: Ontology
    assign: str
    models: dict[str, ModelInfo] = Field(default_factory=dict)
    keys: StageKeys
    counts: dict[str, int] = Field(default_factory=dict, description="images and annotations by status")
    labels: dict[str, int] = Field(default_factory=dict, description="annotations by class")
    rejects: dict[str, int] = Field(default_factory=dict, description="dropped boxes by reason")
    timings: dict[str, float] = Field(
        default_factory=dict, description="seconds by stage over all batches stored, and of the last loading"
    )
    pace: Pace | None = None
    versions: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> RunManifest:
        """Read a run folder's manifest; raises StoreError when there is none or it is from another version."""
        path = folder / MANIFEST_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StoreError(f"{folder} is not a run folder: it has no {MANIFEST_NAME}") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise StoreError(f"{path} is damaged: {error}; restore it from a copy, or start a new run") from None
        found = values.get("format_version") if isinstance(values, dict) else None
        if found != FORMAT_VERSION:
            raise StoreError(f"{path} has format_version {found!r}; this autolabel reads {FORMAT_VERSION}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise StoreError(f"{path} is damaged: {error}") from None

    def write(self, folder: Path) -> None:
        """Replace the folder's manifest atomically."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
        write_atomically(folder / MANIFEST_NAME, text.encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` so that a reader, or a crash at any moment, sees the old file or the new one, whole."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def fingerprint(value: object) -> str:
    """Return a short stable digest of a JSON-able value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def ontology_values(ontology: Ontology) -> Mapping[str, Any]:
    """Return the parts of an ontology that a detector sees: classes and negatives with their phrases."""

    def rows(labels: tuple[LabelClass, ...]) -> list[list[object]]:
        return [[label.name, list(label.prompts)] for label in labels]

    return {"classes": rows(ontology.classes), "negatives": rows(ontology.negatives)}


def recorded_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    versions = {"python": platform.python_version()}
    for name in _RECORDED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def now() -> str:
    """Return the present moment, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")

"""The recipe: every setting of a labeling pass, from TOML, flags or code; unknown keys are errors.

Precedence is flag over file over default. A recipe holds values only; loading models and images is the runner's job.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from autolabel.errors import ConfigError
from autolabel.ontology import LabelClass, Ontology

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Assign = Literal["classifier", "detector", "fused"]
BoxSource = Literal["detector", "mask"]
TileMode = Literal["auto", "off", "on"]
EngineName = Literal["auto", "ray", "sequential"]
DEFAULT_RECIPE_NAME = "autolabel.toml"
RECIPE_ENTRY_POINTS = "autolabel.recipes"


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassSettings(_Settings):
    """One ``[[classes]]`` or ``[[negatives]]`` table."""

    name: str
    prompts: tuple[str, ...] = Field((), description="phrases that mean this class; default: its name")
    min_score: Unit | None = None
    min_prob: Unit | None = None
    min_area_px: Annotated[float, Field(ge=0)] | None = None

    def to_class(self) -> LabelClass:
        """Return the domain object; its own checks name class and field."""
        return LabelClass(self.name, self.prompts, self.min_score, self.min_prob, self.min_area_px)


class Proposals(_Settings):
    """What is kept of the detector's output before any threshold: the store's low-floor proposals."""

    floor: Unit = Field(
        0.1, description="lowest detector score that is stored; lower thresholds need the detector again"
    )
    iou: Unit = Field(0.8, description="of two proposals that overlap more than this IoU the better one is stored")
    limit: Annotated[int, Field(ge=1)] = Field(100, description="most proposals stored for one image")


class Thresholds(_Settings):
    """How proposals become annotations; a change here costs no model call."""

    min_score: Unit = Field(0.35, description="default of the classes' min_score (detector score)")
    min_prob: Unit | None = Field(
        None,
        description="default of the classes' min_prob (classifier probability); default: what the classifier asks for, "
        "else 0",
    )
    min_area_px: Annotated[float, Field(ge=0)] = Field(0.0, description="default of the classes' min_area_px (px²)")
    nms_iou: Unit = Field(0.5, description="boxes of one class that overlap more than this IoU are one object")
    cross_class_iou: Unit = Field(0.8, description="boxes of any class that overlap more than this IoU are one object")
    boxes: BoxSource | None = Field(
        None,
        description='where a box comes from: "detector", or "mask" where that can be trusted; '
        "default: what the run has, and the mask for a new one",
    )


class TileSettings(_Settings):
    """Large images in pieces: a model shrinks what it is shown, and thin things disappear."""

    mode: TileMode = Field("auto", description='"auto": images far larger than the detector\'s input')
    size: Annotated[int, Field(ge=64)] | None = Field(None, description="side of a tile, px; default: by the detector")
    overlap: Annotated[float, Field(ge=0.0, le=0.5)] = Field(0.2, description="share of a tile its neighbour shows too")


class Recipe(_Settings):
    """All settings of a labeling pass."""

    prompt: str | None = Field(None, description='short form of the ontology, for example "scratch. dent."')
    classes: tuple[ClassSettings, ...] = ()
    negatives: tuple[ClassSettings, ...] = Field((), description="detected, then dropped: reflections, shadows …")
    images: tuple[str, ...] = Field((), description="files, folders, globs, manifests or URIs")
    models: str = Field("starter", description="named set: starter, tiny, base or large")
    detector: str | None = Field(None, description="spec of the detector; default: the set's")
    segmenter: str | None = Field(None, description='spec of the segmenter, or "none" for boxes only')
    classifier: str | None = Field(None, description='spec of the classifier, or "none" for the detector\'s labels')
    assign: Assign | None = Field(None, description="who assigns the label; default: the classifier where there is one")
    proposals: Proposals = Proposals()
    thresholds: Thresholds = Thresholds()
    tiles: TileSettings = TileSettings()
    device: str | None = Field(None, description="torch device; default: the best there is")
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    cpu: Literal["auto", "eager", "openvino"] = Field(
        "auto", description='forward passes on a CPU; "auto": OpenVINO where it is quicker and answers the same'
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description='torch\'s compiler on CUDA; "auto": in long runs, where it is quicker and the labels stay'
    )
    batch_size: Annotated[int, Field(ge=1, le=4096)] = Field(16, description="images of one batch and of one commit")
    engine: EngineName = Field(
        "auto", description='"auto": this machine; "ray": a Ray cluster; "sequential": no overlap, to compare with'
    )
    workers: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="processes with a model set each; default: one for each GPU, else one"
    )
    cost_per_hour: Annotated[float, Field(ge=0)] | None = Field(
        None, description="price of an hour of the machine, for the cost of 1,000 images; any currency"
    )

    @field_validator("engine", mode="before")
    @classmethod
    def _engine_by_its_present_name(cls, value: object) -> object:
        # Runs and recipes from before there was one word for it.
        return "auto" if value == "local" else value

    def ontology(self) -> Ontology:
        """Build the ontology from ``classes`` or from ``prompt``.

        Raises ConfigError when both or neither are given, or when two classes collide.
        """
        negatives = tuple(negative.to_class() for negative in self.negatives)
        if self.classes and self.prompt:
            raise ConfigError(
                "both prompt and [[classes]] are given; the prompt is the short form of classes: keep one"
            )
        if self.classes:
            return Ontology(tuple(label.to_class() for label in self.classes), negatives)
        if self.prompt is None:
            raise ConfigError('nothing to look for: give --prompt "scratch. dent." or [[classes]] in a recipe')
        return Ontology(Ontology.from_prompt(self.prompt).classes, negatives)

    def assigner(self) -> Assign:
        """Who assigns the label: as asked for, else the classifier, else the detector."""
        if self.classifier == "none":
            if self.assign in ("classifier", "fused"):
                raise ConfigError(f'assign = "{self.assign}" needs a classifier, but classifier = "none"')
            return "detector"
        return self.assign or "classifier"

    def box_source(self, resolved: Mapping[str, Any] | None = None) -> BoxSource:
        """Say where boxes come from: as asked for, else as in the run whose manifest says ``resolved``, else the mask.

        A run from before there was a choice has the detector's.
        """
        if self.thresholds.boxes is not None:
            return self.thresholds.boxes
        if resolved is None:
            return "mask"
        return "mask" if resolved.get("thresholds", {}).get("boxes") == "mask" else "detector"

    def floor(self) -> float:
        """Lowest score worth storing: the proposals' floor, or a class's own threshold where that is lower."""
        own = [c.min_score for c in (*self.classes, *self.negatives) if c.min_score is not None]
        return min(self.proposals.floor, self.thresholds.min_score, *own)

    def merged(self, changes: Mapping[str, Any]) -> Recipe:
        """Return a copy with ``changes`` laid over it; ``None`` changes nothing, nested tables merge key by key."""
        values = self.model_dump(exclude_defaults=True)
        for key, value in changes.items():
            if value is None:
                continue
            if isinstance(value, Mapping):
                nested = {k: v for k, v in value.items() if v is not None}
                values[key] = {**values.get(key, {}), **nested}
            else:
                values[key] = value
        if changes.get("prompt") is not None and changes.get("classes") is None:
            values.pop("classes", None)
        if changes.get("classes") is not None and changes.get("prompt") is None:
            values.pop("prompt", None)
        return parse_recipe(values, "flags")


def parse_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """Validate ``values``; raises ConfigError that names each wrong field, its value, and ``where`` it stands."""
    try:
        return Recipe.model_validate(dict(values))
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            field = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                lines.append(f"{field}: unknown key; known keys are {', '.join(_known_keys(problem['loc']))}")
            else:
                lines.append(f"{field}: {problem['msg']}, got {problem['input']!r}")
        raise ConfigError(f"recipe ({where}) is wrong:\n  " + "\n  ".join(lines)) from None


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    tables: dict[str, type[BaseModel]] = {
        "classes": ClassSettings,
        "negatives": ClassSettings,
        "proposals": Proposals,
        "thresholds": Thresholds,
        "tiles": TileSettings,
    }
    table = tables.get(str(location[0]), Recipe) if len(location) > 1 else Recipe
    return list(table.model_fields)


def load_recipe(reference: str | Path | None = None, folder: Path | None = None) -> tuple[Recipe, Path | None]:
    """Load a recipe file, a named recipe, or ``autolabel.toml`` of ``folder`` (default: the working directory).

    Returns the recipe and the file it came from (``None``: no file, all defaults).
    """
    if reference is None:
        default = (folder or Path.cwd()) / DEFAULT_RECIPE_NAME
        if not default.is_file():
            return Recipe(), None
        path = default
    else:
        path = _named_recipe(str(reference)) or Path(reference)
        if not path.is_file():
            known = ", ".join(sorted(point.name for point in entry_points(group=RECIPE_ENTRY_POINTS))) or "none"
            raise ConfigError(f"no recipe {str(reference)!r}: neither a file nor one of the named recipes ({known})")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} is not valid TOML: {error}") from None
    recipe = parse_recipe(values, str(path))
    if path.parent != Path() and path.parent.resolve() != Path.cwd():
        recipe = recipe.model_copy(update={"images": tuple(_beside(path, image) for image in recipe.images)})
    return recipe, path


def _beside(recipe: Path, image: str) -> str:
    """Read a relative input of a recipe as lying beside the recipe."""
    return image if "://" in image or Path(image).is_absolute() else str(recipe.parent / image)


def _named_recipe(name: str) -> Path | None:
    for point in entry_points(group=RECIPE_ENTRY_POINTS):
        if point.name == name:
            return Path(point.load()())
    return None

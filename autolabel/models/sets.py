"""Named sets of models: which repository, revision, files, size and licence stand behind ``--models base``."""

from __future__ import annotations

from dataclasses import dataclass

from autolabel.errors import ModelError
from autolabel.protocols import ModelRef, Task

SET_NAMES = ("starter", "tiny", "base", "large")


@dataclass(frozen=True, slots=True)
class Part:
    """One model of a set; ``megabytes`` is the size on disk (10⁶ bytes) of what ``pull`` fetches."""

    task: Task
    ref: ModelRef
    megabytes: int
    licence: str
    note: str


@dataclass(frozen=True, slots=True)
class ModelSet:
    """A detector, a segmenter and a classifier that go together."""

    name: str
    summary: str
    parts: tuple[Part, Part, Part]

    def part(self, task: Task) -> Part:
        """Return the part for ``task``."""
        return next(part for part in self.parts if part.task == task)


def _detector(reference: str, megabytes: int, note: str, backend: str = "grounding-dino") -> Part:
    return Part("detector", ModelRef(backend, reference), megabytes, "Apache-2.0", note)


def _segmenter(reference: str, megabytes: int, note: str) -> Part:
    return Part("segmenter", ModelRef("sam2", reference), megabytes, "Apache-2.0", note)


def _classifier(reference: str, megabytes: int, licence: str, note: str) -> Part:
    return Part("classifier", ModelRef("open-clip", reference), megabytes, licence, note)


SETS: dict[str, ModelSet] = {
    "starter": ModelSet(
        "starter",
        "bundled with the package: six surface defects, small images, no download",
        (
            _detector("starter", 0, "small Grounding DINO trained on generated surface defects"),
            _segmenter("starter", 0, "small SAM 2 trained on generated surface defects"),
            _classifier("starter", 0, "Apache-2.0", "small CLIP trained on generated surface defects"),
        ),
    ),
    "tiny": ModelSet(
        "tiny",
        "open vocabulary on a laptop or a small GPU",
        (
            _detector("IDEA-Research/grounding-dino-tiny", 690, "Grounding DINO, Swin-T"),
            _segmenter("facebook/sam2.1-hiera-tiny", 156, "SAM 2.1, Hiera-T"),
            _classifier("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", 605, "MIT", "CLIP ViT-B/32, LAION-2B"),
        ),
    ),
    "base": ModelSet(
        "base",
        "the one to start with on a GPU",
        (
            _detector("IDEA-Research/grounding-dino-base", 933, "Grounding DINO, Swin-B"),
            _segmenter("facebook/sam2.1-hiera-base-plus", 324, "SAM 2.1, Hiera-B+"),
            _classifier("timm/ViT-B-16-SigLIP2", 1500, "Apache-2.0", "SigLIP 2, ViT-B/16, 224 px"),
        ),
    ),
    "large": ModelSet(
        "large",
        "the best labels; wants a GPU of 16 GB or more",
        (
            _detector("iSEE-Laboratory/llmdet_large", 1280, "LLMDet (MM Grounding DINO), Swin-L"),
            _segmenter("facebook/sam2.1-hiera-large", 898, "SAM 2.1, Hiera-L"),
            _classifier("timm/ViT-SO400M-16-SigLIP2-384", 4540, "Apache-2.0", "SigLIP 2, So400m/16, 384 px"),
        ),
    ),
}


def named_set(name: str) -> ModelSet:
    """Return the set of that name; raises ModelError that lists the names there are."""
    if name not in SETS:
        raise ModelError(f"no model set {name!r}; sets: {', '.join(SET_NAMES)}")
    return SETS[name]


def licence_of(ref: ModelRef) -> str | None:
    """Licence of a model that is part of a set; None for any other, whose licence we cannot know."""
    for each in SETS.values():
        for part in each.parts:
            if (part.ref.backend, part.ref.reference) == (ref.backend, ref.reference):
                return part.licence
    return None

"""Named sets of models: which repository, revision, files, size and licence stand behind ``--models base``."""

from __future__ import annotations

from dataclasses import dataclass

from autolabel.errors import ModelError
from autolabel.protocols import ModelRef, Task

SET_NAMES = ("starter", "tiny", "base", "large")


@dataclass(frozen=True, slots=True)
class Part:
    """One model of a set; ``megabytes`` is the size on disk (10⁶ bytes) of what ``pull`` fetches.

    ``weights_sha256`` is the hash of the weight file at the pinned revision, where more than one public source
    states the same; for the others the hub's own statement is checked, and the lock pins what arrived.
    """

    task: Task
    ref: ModelRef
    megabytes: int
    licence: str
    note: str
    weights_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ModelSet:
    """A detector, a segmenter and a classifier that go together."""

    name: str
    summary: str
    parts: tuple[Part, Part, Part]

    def part(self, task: Task) -> Part:
        """Return the part for ``task``."""
        return next(part for part in self.parts if part.task == task)


def _starter(task: Task, backend: str, note: str) -> Part:
    return Part(task, ModelRef(backend, "starter"), 0, "Apache-2.0", f"{note}, trained on generated surface defects")


SETS: dict[str, ModelSet] = {
    "starter": ModelSet(
        "starter",
        "bundled with the package: ten kinds of surface defects, small images, no download",
        (
            _starter("detector", "grounding-dino", "small Grounding DINO"),
            _starter("segmenter", "sam2", "small SAM 2"),
            _starter("classifier", "open-clip", "small CLIP"),
        ),
    ),
    "tiny": ModelSet(
        "tiny",
        "open vocabulary on a laptop or a small GPU",
        (
            Part(
                "detector",
                ModelRef(
                    "grounding-dino", "IDEA-Research/grounding-dino-tiny", "a2bb814dd30d776dcf7e30523b00659f4f141c71"
                ),
                690,
                "Apache-2.0",
                "Grounding DINO, Swin-T",
                "1a2412ef99bd74bcd3c2a246fa1e48581f8889a1300c9051974741314fc042f3",
            ),
            Part(
                "segmenter",
                ModelRef("sam2", "facebook/sam2.1-hiera-tiny", "de431c4043854a71d8101e17995dfe596bf101a5"),
                156,
                "Apache-2.0",
                "SAM 2.1, Hiera-T",
                "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
            ),
            Part(
                "classifier",
                ModelRef(
                    "open-clip", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "1a25a446712ba5ee05982a381eed697ef9b435cf"
                ),
                609,
                "MIT",
                "CLIP ViT-B/32, LAION-2B",
                "ac4f8c4b88af6d963118cbf40ad93176d092abbedfcb752601ae1866352656e6",
            ),
        ),
    ),
    "base": ModelSet(
        "base",
        "the one to start with on a GPU",
        (
            Part(
                "detector",
                ModelRef(
                    "grounding-dino", "IDEA-Research/grounding-dino-base", "12bdfa3120f3e7ec7b434d90674b3396eccf88eb"
                ),
                934,
                "Apache-2.0",
                "Grounding DINO, Swin-B",
                "5548f844c928c4b6f411fa8cbcc2bfa8dbbba437cb1d513975519f93c2a9ed21",
            ),
            Part(
                "segmenter",
                ModelRef("sam2", "facebook/sam2.1-hiera-base-plus", "b7320756a13354e7530a63935656d35b2f91a290"),
                324,
                "Apache-2.0",
                "SAM 2.1, Hiera-B+",
                "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
            ),
            Part(
                "classifier",
                ModelRef("open-clip", "timm/ViT-B-16-SigLIP2", "eee10eff6dd8cabae2d7f379d4e8cfcd352030aa"),
                1535,
                "Apache-2.0",
                "SigLIP 2, ViT-B/16, 224 px",
            ),
        ),
    ),
    "large": ModelSet(
        "large",
        "the best labels; wants a GPU of 16 GB or more",
        (
            Part(
                "detector",
                ModelRef("grounding-dino", "iSEE-Laboratory/llmdet_large", "bec37f296f05b22f6c6b39bc05a6c611239f4e31"),
                1280,
                "Apache-2.0",
                "LLMDet (MM Grounding DINO), Swin-L",
            ),
            Part(
                "segmenter",
                ModelRef("sam2", "facebook/sam2.1-hiera-large", "665f8e2ad61cf5f53d65644ff27c8ee525124610"),
                898,
                "Apache-2.0",
                "SAM 2.1, Hiera-L",
                "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
            ),
            Part(
                "classifier",
                ModelRef("open-clip", "timm/ViT-SO400M-16-SigLIP2-384", "fec784dabb3081a5f101fc74eefaf9d1ed08237b"),
                4575,
                "Apache-2.0",
                "SigLIP 2, So400m/16, 384 px",
            ),
        ),
    ),
}


def named_set(name: str) -> ModelSet:
    """Return the set of that name; raises ModelError that lists the names there are."""
    if name not in SETS:
        raise ModelError(f"no model set {name!r}; sets: {', '.join(SET_NAMES)}")
    return SETS[name]


def part_of(ref: ModelRef) -> Part | None:
    """Return the part of a set that loads the same model, whatever its options; None for any other."""
    parts = [part for each in SETS.values() for part in each.parts]
    return next((p for p in parts if (p.ref.backend, p.ref.reference) == (ref.backend, ref.reference)), None)


def licence_of(ref: ModelRef) -> str | None:
    """Licence of a model that is part of a set; None for any other, whose licence we cannot know."""
    part = part_of(ref)
    return part.licence if part else None

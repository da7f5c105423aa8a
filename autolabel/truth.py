"""Ground truth in COCO format: read it, and find out which image and which category is which in a run."""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from autolabel.errors import UsageError
from autolabel.ontology import Ontology, normalise


def read_coco(path: Path) -> dict[str, Any]:
    """Read COCO instances; raises UsageError if the file is not that."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read ground truth {path}: {error}") from error
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(data, dict) or key not in data]
    if missing:
        raise UsageError(f"{path} is not COCO instances: it has no {', '.join(missing)}")
    return dict(data)


def match_categories(
    categories: Iterable[dict[str, Any]], ontology: Ontology
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Map category ids to label ids by normalised name, or by a class's own phrases; also list the unmatched."""
    label_of = {phrase: i for i, label in enumerate(ontology.classes) for phrase in label.prompts}
    label_of |= {normalise(name): i for i, name in enumerate(ontology.names)}
    matched: dict[int, int] = {}
    unmatched = []
    for category in categories:
        label = label_of.get(normalise(str(category["name"])))
        if label is None:
            unmatched.append(str(category["name"]))
        else:
            matched[int(category["id"])] = label
    return matched, tuple(unmatched)


def match_images(paths: list[str], truth_names: dict[int, str]) -> dict[str, int]:
    """Map run paths to ground-truth image ids: equal paths first, then the longest common end of the path.

    Raises UsageError where two images fit equally well.
    """
    parts_of = {key: PurePosixPath(_plain(name)).parts for key, name in truth_names.items()}
    whole = {}
    by_file: dict[str, list[int]] = defaultdict(list)
    for key, parts in parts_of.items():
        if parts in whole:
            raise UsageError(f"ground truth lists {truth_names[key]!r} twice; give each image one entry")
        whole[parts] = key
        by_file[parts[-1]].append(key)
    matched: dict[str, int] = {}
    taken: dict[int, str] = {}
    exact = {whole[parts] for path in paths if (parts := PurePosixPath(_plain(path)).parts) in whole}
    for path in sorted(paths, key=lambda p: PurePosixPath(_plain(p)).parts not in whole):
        parts = PurePosixPath(_plain(path)).parts
        if parts in whole:
            matched[path] = whole[parts]
            taken[whole[parts]] = path
            continue
        candidates = [key for key in by_file.get(parts[-1], ()) if key not in exact]
        ranked = sorted(((_common_end(parts, parts_of[key]), key) for key in candidates), reverse=True)
        if not ranked:
            continue
        best = [key for length, key in ranked if length == ranked[0][0]]
        if len(best) > 1:
            rivals = ", ".join(repr(truth_names[key]) for key in best[:3])
            raise UsageError(f"{path!r} could be any of {rivals} in the ground truth; use the same relative paths")
        if best[0] in taken:
            raise UsageError(
                f"{path!r} and {taken[best[0]]!r} both fit {truth_names[best[0]]!r} in the ground truth; "
                "use the same relative paths"
            )
        matched[path] = best[0]
        taken[best[0]] = path
    return matched


def _plain(path: str) -> str:
    return unicodedata.normalize("NFC", path.replace("\\", "/")).removeprefix("./")


def _common_end(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    length = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y:
            break
        length += 1
    return length

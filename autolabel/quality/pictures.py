"""Problems of whole images: blank, blurry, dark, light, odd size or shape (cleanvision), and duplicates (imagehash).

Pictures are read one at a time and made small first, JPEGs while they are decoded.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from autolabel.errors import AutolabelError
from autolabel.quality.material import Pictures

_EDGE = 256
_WORKERS = 2
_NEAR_BITS = 3
"""Perceptual hashes of 64 bits that differ in no more than these are near duplicates."""
_KINDS = {
    "dark": "dark",
    "light": "light",
    "blurry": "blurry",
    "low_information": "blank",
    "odd_aspect_ratio": "odd-shape",
    "odd_size": "odd-size",
}
_REASONS = {
    "dark": "the image is dark",
    "light": "the image is overexposed",
    "blurry": "the image is blurred",
    "blank": "the image is blank or nearly so",
    "odd-shape": "an unusual shape: {w}×{h} px",
    "odd-size": "an unusual size for this set: {w}×{h} px",
}


@dataclass(frozen=True, slots=True)
class PictureIssue:
    """A doubt about image number ``place``; ``related`` are the paths it is a duplicate of."""

    kind: str
    place: int
    quality: float
    flagged: bool
    reason: str
    related: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Look:
    raw: dict[str, Any]
    hashed: int


def find_picture_issues(
    pictures: Pictures, read: Callable[[int], bytes], on_progress: Callable[[int], None] | None = None
) -> tuple[list[PictureIssue], int]:
    """Judge all images that can be read by ``read(place)``; also return how many could not.

    Raises ImportError where cleanvision is not installed.
    """
    import cleanvision  # noqa: F401  # before hours of decoding

    looks: dict[int, _Look] = {}
    for place, look in _looked(range(len(pictures)), read):
        if look is not None:
            looks[place] = look
        if on_progress is not None:
            on_progress(place + 1)
    issues = [*_properties(looks, pictures), *_exact(pictures), *_near(looks, pictures)]
    return issues, len(pictures) - len(looks)


def _looked(places: Iterable[int], read: Callable[[int], bytes]) -> Iterator[tuple[int, _Look | None]]:
    """Decode a few images ahead, in order, so that memory does not depend on their number."""

    def one(place: int) -> _Look | None:
        try:
            return _look(read(place))
        except (AutolabelError, OSError, ValueError):
            return None

    remaining = iter(places)
    with ThreadPoolExecutor(_WORKERS) as pool:
        while ahead := list(islice(remaining, 64)):
            yield from zip(ahead, pool.map(one, ahead), strict=True)


def _look(data: bytes) -> _Look:
    import imagehash
    from cleanvision.issue_managers.image_property import BlurrinessProperty, BrightnessProperty, EntropyProperty
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (_EDGE, _EDGE))
        small = image.convert("RGB")
        small.thumbnail((_EDGE, _EDGE))
    raw = {**BrightnessProperty("dark").calculate(small), **BlurrinessProperty().calculate(small)}
    raw |= EntropyProperty().calculate(small)
    hashed = int("".join("1" if bit else "0" for bit in imagehash.phash(small).hash.ravel()), 2)
    return _Look(raw, hashed)


def _properties(looks: dict[int, _Look], pictures: Pictures) -> Iterator[PictureIssue]:
    """Apply cleanvision's scores and thresholds, on what was measured."""
    import pandas as pd
    from cleanvision.issue_managers.image_property import AspectRatioProperty, SizeProperty
    from cleanvision.issue_managers.image_property import BlurrinessProperty as Blurriness
    from cleanvision.issue_managers.image_property import BrightnessProperty as Brightness
    from cleanvision.issue_managers.image_property import EntropyProperty as Entropy
    from cleanvision.issue_managers.image_property_issue_manager import ImagePropertyIssueManager

    if not looks:
        return
    places = list(looks)
    raw = pd.DataFrame([looks[place].raw for place in places], index=places)
    sizes = pictures.sizes_wh[places]
    raw["aspect_ratio"] = np.minimum(sizes[:, 0] / sizes[:, 1], sizes[:, 1] / sizes[:, 0])
    raw["size"] = np.sqrt(sizes[:, 0] * sizes[:, 1])
    properties = {
        "dark": Brightness("dark"),
        "light": Brightness("light"),
        "blurry": Blurriness(),
        "low_information": Entropy(),
        "odd_aspect_ratio": AspectRatioProperty(),
        "odd_size": SizeProperty(),
    }
    defaults = ImagePropertyIssueManager().get_default_params()
    flagged_as_blank: set[int] = set()
    for name in ("low_information", "dark", "light", "blurry", "odd_aspect_ratio", "odd_size"):
        settings = dict(defaults[name])
        threshold = settings.pop("threshold", None)
        scores = properties[name].get_scores(raw_scores=raw, issue_type=name, **settings)
        marks = properties[name].mark_issue(scores, name, threshold)
        kind = _KINDS[name]
        for place, score, mark in zip(places, scores.iloc[:, 0], marks.iloc[:, 0], strict=True):
            if not mark or (kind == "blurry" and place in flagged_as_blank):
                continue  # a blank image has no edges either
            if kind == "blank":
                flagged_as_blank.add(place)
            width, height = (int(value) for value in pictures.sizes_wh[place])
            reason = _REASONS[kind].format(w=width, h=height)
            yield PictureIssue(kind, place, float(np.clip(score, 0, 1)), True, reason)


def _exact(pictures: Pictures) -> Iterator[PictureIssue]:
    """Images of one content: the same sha256."""
    groups: dict[str, list[int]] = {}
    for place, key in enumerate(pictures.ids):
        if key:
            groups.setdefault(key, []).append(place)
    for places in groups.values():
        yield from _group("duplicate", places, pictures, 0.0, "the same file")


def _near(looks: dict[int, _Look], pictures: Pictures) -> Iterator[PictureIssue]:
    """Images of nearly one look: equal in at least one of four bands of the hash, then compared bit by bit."""
    parent = {place: place for place in looks}
    distance: dict[int, int] = {}

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    # A hash of few or many ones is that of a flat image; all flat images look alike to it.
    telling = {place: look.hashed for place, look in looks.items() if 12 <= look.hashed.bit_count() <= 52}
    for band in range(_NEAR_BITS + 1):
        buckets: dict[int, list[int]] = {}
        for place, value in telling.items():
            buckets.setdefault((value >> (16 * band)) & 0xFFFF, []).append(place)
        for bucket in buckets.values():
            for number, a in enumerate(bucket):
                for b in bucket[number + 1 : number + 1 + _MOST_COMPARED]:
                    bits = (telling[a] ^ telling[b]).bit_count()
                    if bits <= _NEAR_BITS and not (pictures.ids[a] and pictures.ids[a] == pictures.ids[b]):
                        parent[root(a)] = root(b)
                        for place in (a, b):
                            distance[place] = min(distance.get(place, 64), bits)
    groups: dict[int, list[int]] = {}
    for place in distance:
        groups.setdefault(root(place), []).append(place)
    for places in groups.values():
        worst = max(distance[place] for place in places)
        yield from _group("near-duplicate", sorted(places), pictures, 0.1 + 0.1 * worst, "nearly the same picture")


_MOST_COMPARED = 200


def _group(kind: str, places: list[int], pictures: Pictures, quality: float, what: str) -> Iterator[PictureIssue]:
    if len(places) < 2:
        return
    for place in places:
        others = tuple(pictures.paths[other] for other in places if other != place)
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        yield PictureIssue(kind, place, quality, place != places[0], f"{what} as {others[0]}{more}", others[:20])

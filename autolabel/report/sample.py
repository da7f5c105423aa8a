"""Which images a report shows: all of a small run, and of a large one a deterministic sample with variety."""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass

from autolabel.report.statistics import disagrees
from autolabel.types import AnnotatedImage

# What each kind of interest may take of the sample; the rest is drawn by hash, as a fair picture of the run.
_SHARES = {"opinions differ": 0.2, "low scores": 0.15, "many annotations": 0.15, "nothing found": 0.1}
FAIR = "random"


@dataclass(frozen=True, slots=True)
class Shown:
    """An image to show, and why it is among them (None where all are shown)."""

    item: AnnotatedImage
    reason: str | None


class Sampler:
    """Takes every image once and keeps a bounded number: the strongest of each kind, and a draw by path hash."""

    def __init__(self, max_images: int) -> None:
        self._max = max_images
        self._count = 0
        self._heaps: dict[str, list[tuple[float, int, AnnotatedImage]]] = {reason: [] for reason in (*_SHARES, FAIR)}

    def add(self, item: AnnotatedImage) -> None:
        """Offer one image to every kind it belongs to."""
        self._count += 1
        for reason, strength in _strengths(item).items():
            heap, entry = self._heaps[reason], (strength, -self._count, item)
            if len(heap) < self._max:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)

    def chosen(self) -> list[Shown]:
        """Return at most ``max_images`` images in path order."""
        if self._count <= self._max:
            items = [item for _, _, item in self._heaps[FAIR]]
            return sorted((Shown(item, None) for item in items), key=_path)
        found: dict[str, Shown] = {}
        for reason, share in _SHARES.items():
            self._take(found, reason, int(share * self._max))
        self._take(found, FAIR, self._max - len(found))
        return sorted(found.values(), key=_path)

    def _take(self, found: dict[str, Shown], reason: str, count: int) -> None:
        for _, _, item in sorted(self._heaps[reason], key=lambda entry: entry[:2], reverse=True):
            if count == 0:
                return
            if item.image.path not in found:
                found[item.image.path] = Shown(item, reason)
                count -= 1


def _strengths(item: AnnotatedImage) -> dict[str, float]:
    digest = hashlib.sha256(item.image.path.encode("utf-8", "surrogateescape")).digest()
    draw = int.from_bytes(digest[:6], "big") / 2**48
    if not item.annotations:
        return {FAIR: draw, "nothing found": draw}
    strengths = {
        FAIR: draw,
        "low scores": -min(a.score for a in item.annotations),
        "many annotations": float(len(item.annotations)),
    }
    if apart := sum(disagrees(a) for a in item.annotations):
        strengths["opinions differ"] = float(apart)
    return strengths


def _path(shown: Shown) -> str:
    return shown.item.image.path

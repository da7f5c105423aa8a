"""Draw what the starter pack finds on test pictures, good cases and bad ones, chosen by rule and not by hand.

``python -m training.make_pictures`` needs the run that ``training.evaluate`` leaves in the work folder.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from autolabel.dataset import Run
from autolabel.evaluate import Compared, compare
from training.generator import EDITIONS, PUBLISHED, Edition
from training.metrics import box_iou
from training.runtime import WORK

OUT: Final = Path(__file__).parent.parent / "docs" / "pictures"
TILE_WH: Final = (440, 330)
COLUMNS: Final = 3
EACH: Final = 6
MATCH_IOU: Final = 0.5
QUALITY: Final = 82
TRUTH: Final = (255, 255, 255)
FOUND: Final = (60, 220, 90)
FALSE: Final = (255, 90, 60)
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Case:
    """One picture: its defects, what was found (label, score, right or not), and how many are wrong or missed."""

    path: Path
    truths: list[dict[str, Any]]
    found: list[tuple[dict[str, Any], bool]]
    missed: int

    @property
    def mistakes(self) -> int:
        """Defects not found and annotations that are wrong."""
        return self.missed + sum(not right for _, right in self.found)


def cases(run: Run, truth: Path, images: Path) -> list[Case]:
    """Match every picture's annotations with its defects, best score first, label and IoU 0.5 wanted."""
    both = compare(run, truth)
    return [_case(both, number, images / Path(path).name) for number, path in enumerate(both.paths, 1)]


def _case(both: Compared, number: int, path: Path) -> Case:
    truths = [record for record in both.truths if record["image_id"] == number]
    found = sorted((r for r in both.annotations if r["image_id"] == number), key=lambda record: -record["score"])
    free = list(range(len(truths)))
    judged = []
    for record in found:
        fits = [
            k
            for k in free
            if truths[k]["category_id"] == record["category_id"]
            and float(box_iou(_xyxy(record)[None], _xyxy(truths[k])[None])[0, 0]) >= MATCH_IOU
        ]
        judged.append((record, bool(fits)))
        if fits:
            free.remove(fits[0])
    return Case(path, truths, judged, len(free))


def choose(found: Sequence[Case], surfaces: dict[str, str], count: int = EACH) -> tuple[list[Case], list[Case]]:
    """First pictures of different surfaces where two defects or more are all found, and those with most mistakes."""
    good: list[Case] = []
    for case in found:
        if case.mistakes == 0 and len(case.truths) >= 2:
            taken = {surfaces[other.path.name] for other in good}
            if surfaces[case.path.name] not in taken and len(good) < count:
                good.append(case)
    return good, sorted(found, key=lambda case: -case.mistakes)[:count]


def draw(case: Case, names: Sequence[str]) -> Pixels:
    """Draw true boxes white and thin, masks and boxes that are right green, wrong ones red, on a tile."""
    image = np.ascontiguousarray(cv2.imread(str(case.path))[..., ::-1])
    height, width = image.shape[:2]
    scale = min(TILE_WH[0] / width, TILE_WH[1] / height)
    small = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    for record, right in case.found:
        colour = FOUND if right else FALSE
        if "segmentation" in record:
            mask = cv2.resize(
                coco_mask.decode(record["segmentation"]), small.shape[1::-1], interpolation=cv2.INTER_AREA
            )
            small[mask > 0] = (0.55 * small[mask > 0] + 0.45 * np.array(colour)).astype(np.uint8)
    for record in case.truths:
        _box(small, record, scale, TRUTH)
    for record, right in case.found:
        colour = FOUND if right else FALSE
        x0, y0 = _box(small, record, scale, colour)
        text = f"{names[record['category_id']]} {record['score']:.2f}"
        (wide, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
        x0, y0 = min(max(0, x0), max(0, small.shape[1] - wide - 4)), max(tall + 5, y0)
        cv2.rectangle(small, (x0, y0 - tall - 5), (x0 + wide + 4, y0), colour, -1)
        cv2.putText(small, text, (x0 + 2, y0 - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    tile = np.full((TILE_WH[1], TILE_WH[0], 3), 32, np.uint8)
    top, left = (TILE_WH[1] - small.shape[0]) // 2, (TILE_WH[0] - small.shape[1]) // 2
    tile[top : top + small.shape[0], left : left + small.shape[1]] = small
    return tile


def sheet(tiles: Sequence[Pixels]) -> Pixels:
    """Put tiles in rows of ``COLUMNS``, a gap between them."""
    rows = []
    for start in range(0, len(tiles), COLUMNS):
        row = list(tiles[start : start + COLUMNS])
        row += [np.full_like(tiles[0], 32)] * (COLUMNS - len(row))
        rows.append(np.concatenate([np.pad(tile, ((3, 3), (3, 3), (0, 0))) for tile in row], axis=1))
    return np.concatenate(rows)


def _box(image: Pixels, record: dict[str, Any], scale: float, colour: tuple[int, int, int]) -> tuple[int, int]:
    x0, y0, x1, y1 = (round(float(v) * scale) for v in _xyxy(record))
    cv2.rectangle(image, (x0, y0), (x1, y1), colour, 1 if colour == TRUTH else 2)
    return x0, y0


def _xyxy(record: dict[str, Any]) -> NDArray[np.float32]:
    x, y, width, height = record["bbox"]
    return np.asarray([x, y, x + width, y + height], np.float32)


def _surfaces(edition: Edition, split: str) -> dict[str, str]:
    folder = WORK / f"natural-{edition.name}" / split
    found: dict[str, str] = defaultdict(str)
    for path in folder.glob("*.json"):
        found[f"{path.stem}.jpg"] = json.loads(path.read_text())["surface"]
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Draw good and bad cases into docs/pictures/.")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--edition", choices=tuple(EDITIONS), default=PUBLISHED.name)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    edition = EDITIONS[arguments.edition]
    folder = WORK / f"evaluation-{arguments.split}-{edition.name}"
    run = Run.open(folder / "names")
    good, bad = choose(cases(run, folder / "truth.json", folder / "images"), _surfaces(edition, arguments.split))
    for name, chosen in (("starter-good", good), ("starter-bad", bad)):
        picture = sheet([draw(case, edition.classes) for case in chosen])
        cv2.imwrite(str(arguments.out / f"{name}.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        print(name, [(case.path.name, case.mistakes) for case in chosen])


if __name__ == "__main__":
    main()

"""The pipeline against the loop that other tools run: ``python -m benchmarks.reference_loop --device cuda``.

Both sides have the same random weights of official size, the same pictures, and as many boxes on each. The loop takes
one image, one pass and one crop at a time (see ``_reference``); a second form makes one pass for each class, as
autodistill's plug-in does. The sides run in turn in processes of their own; what they answer is compared.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _measure
from benchmarks._comparison import options, run_and_keep
from benchmarks._full_size import CLASSES, SIZE_WH
from benchmarks._worker import Worker

BOX_PX, SCORE = 2.0, 0.005
"""Two proposals are the same when their boxes (px of the image) and scores are no further apart."""


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Let both sides take turns over the same pictures."""
    cuda = arguments.device.startswith("cuda")
    code = arguments.code or ("transformers" if cuda else "official")  # the official kernel needs a compiler on a GPU
    told: dict[str, Any] = {"folder": folder, "device": arguments.device, "boxes": arguments.boxes}
    details: dict[str, Any] = {}

    def side(worker: Worker, **values: object) -> float:
        details[worker.side] = worker.ask("run", **values)
        return float(details[worker.side]["seconds"])

    ours = Worker("ours", **told, cpu=arguments.cpu)
    ours.ask("answers", out=str(folder / "ours.pickle"))
    seconds: dict[str, list[float]] = {}
    if arguments.apart:
        seconds |= _measure.rounds({"ours": lambda: side(ours)}, arguments.rounds)
        ours.close()
    theirs = Worker("theirs", **told, code=code)
    theirs.ask("prepare", boxes=str(folder / "ours.pickle"))
    sides = (
        {"theirs": lambda: side(theirs)}
        if arguments.apart
        else {"ours": lambda: side(ours), "theirs": lambda: side(theirs)}
    )
    seconds |= _measure.rounds(sides, arguments.rounds)
    theirs.ask("answers", out=str(folder / "theirs.pickle"))
    agreement = compare(*(pickle.loads((folder / f"{s}.pickle").read_bytes()) for s in ("ours", "theirs")))
    steps = details["theirs"]["steps"]
    per_class = side(theirs, per_class=True) if arguments.per_class else None
    images = arguments.images
    result: dict[str, Any] = {
        "detector_code": code,
        "in_turn": not arguments.apart,
        "rounds_s": seconds,
        "ours_images_per_s": images / _measure.median(seconds["ours"]),
        "theirs_images_per_s": images / _measure.median(seconds["theirs"]),
        "times_faster": _measure.ratio(seconds["theirs"], seconds["ours"]),
        "their_steps": {name: value / sum(steps.values()) for name, value in steps.items()},
        "agreement": agreement,
        "passes_through_graphs": details["ours"]["graphs"],
        "peak_mb": {name: details[name]["peak_mb"] for name in details},
    }
    if per_class is not None:
        result["pass_for_each_class"] = {
            "classes": len(CLASSES),
            "images_per_s": images / per_class,
            "times_faster": per_class / _measure.median(seconds["ours"]),
        }
    if not arguments.apart:
        ours.close()
    theirs.close()
    return result


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """Say how far both sides agree on masks, opinions and boxes."""
    from pycocotools import mask as coco_mask

    ious, probs, pairs = list[float](), list[float](), list[np.ndarray]()
    for name, one in ours.items():
        other = theirs[name]
        for mine, their in zip(one["masks"], other["masks"], strict=True):
            both = mine is not None and coco_mask.area(mine) + coco_mask.area(their)
            ious.append(float(coco_mask.iou([mine], [their], [0])[0, 0]) if both else 1.0)
        probs.append(float(np.abs(one["probs"] - other["probs"]).max()))
        pairs.append(paired(one["proposals"], other["proposals"]))
    px, score = np.concatenate(pairs, axis=1)
    return {
        "mask_iou_median": float(np.median(ious)),
        "mask_iou_lowest": min(ious),
        "masks_at_0.99": float(np.mean(np.array(ious) > 0.99)),
        "probability_differs_at_most": max(probs),
        "proposals": len(px),
        "proposals_of_both": float(np.mean((px < BOX_PX) & (score < SCORE))),
        "box_differs_px_median": float(np.median(px)),
        "score_differs_median": float(np.median(score)),
    }


def paired(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Match the ``(N, 4)`` relative boxes and ``(N,)`` scores of both sides one to one, as near as they come.

    Returns how far each pair's boxes are apart, in px, and its scores. In what order a side lists them does not matter.
    """
    from scipy.optimize import linear_sum_assignment

    px = np.abs(ours[0][:, None] - theirs[0][None]).max(axis=2) * max(SIZE_WH)
    score = np.abs(ours[1][:, None] - theirs[1][None])
    # What is no pair is no pair at any distance: bounded, so that a hopeless one does not spoil others.
    rows, columns = linear_sum_assignment(np.minimum(px / BOX_PX + score / SCORE, 100.0))
    return px[rows, columns], score[rows, columns]


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = options(__doc__)
    parser.add_argument("--code", choices=["official", "transformers"], help="whose detector code the loop uses")
    parser.add_argument(
        "--no-per-class", dest="per_class", action="store_false", help="leave out a pass for each class"
    )
    parser.add_argument("--apart", action="store_true", help="one side after the other: half the memory, no turns")
    run_and_keep("reference_loop", measure, parser, given)


if __name__ == "__main__":
    main()

"""Move trained weights into the package where they are better: ``python -m training.publish``.

Old and new weights are measured on the same validation pictures. A model is moved when its mean is better and no class
loses more than ``SLACK``; ``--anyway`` moves it whatever it measures. Test pictures are never looked at here.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from training import evaluate_models, runtime
from training.generator import EDITIONS, PUBLISHED, Edition
from training.natural import Labelled, natural_set

SLACK: Final = 0.02
Measure = Callable[[list[Labelled], Edition, Path], dict[str, Any]]
REPORTS: Final[dict[str, tuple[Measure, Callable[[dict[str, Any]], Mapping[str, float]]]]] = {
    "detector": (evaluate_models.detector_report, lambda report: report["ap50"]),
    "segmenter": (
        evaluate_models.segmenter_report,
        lambda report: {k: v for k, v in report["miou"].items() if k != "mean"},
    ),
    "classifier": (evaluate_models.classifier_report, lambda report: report["top1_per_class"]),
}


def is_better(new: Mapping[str, float], old: Mapping[str, float]) -> bool:
    """Tell whether the mean over the classes both know is better and no class loses more than ``SLACK``."""
    shared = [name for name in old if name in new]
    gains = [new[name] - old[name] for name in shared]
    return bool(gains) and sum(gains) > 0 and min(gains) >= -SLACK


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Move trained weights into the package where they are better.")
    parser.add_argument("--trained", type=Path, default=runtime.WORK / "trained")
    parser.add_argument("--only", choices=tuple(REPORTS), action="append")
    parser.add_argument("--edition", choices=tuple(EDITIONS), default=PUBLISHED.name, help="pictures to compare on")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--anyway", action="store_true")
    arguments = parser.parse_args()
    edition = EDITIONS[arguments.edition]
    pictures = natural_set("validation", arguments.pictures, edition=edition)
    for name in arguments.only or REPORTS:
        fresh = arguments.trained / name
        if not fresh.is_dir():
            print(json.dumps({"model": name, "moved": False, "reason": f"no folder {fresh}"}))
            continue
        report, classes = REPORTS[name]
        old, new = (
            dict(classes(report(pictures, edition, folder.parent))) for folder in (runtime.STARTER / name, fresh)
        )
        moved = arguments.anyway or is_better(new, old)
        print(json.dumps({"model": name, "moved": moved, "old": old, "new": new}))
        if moved:
            runtime.replace_folder(
                runtime.STARTER / name,
                lambda target, source=fresh: shutil.copytree(source, target, dirs_exist_ok=True),  # type: ignore[misc]
            )


if __name__ == "__main__":
    main()

"""Measure the starter pack through the product: ``python -m training.evaluate --split test --write``.

Each part can be measured alone and is kept as soon as it is known; the same command with ``--only`` adds to the file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from training import evaluate_parts, evaluate_photos, evaluate_run, evaluate_speed, evaluate_words
from training.generator import EDITIONS, PUBLISHED
from training.intervals import ROUNDS
from training.natural import natural_set
from training.runtime import STARTER, WORK

METRICS: Final = Path(__file__).parent / "metrics.json"
FOR_WORDS: Final = 200
"""Pictures for other phrasings and unknown words: each costs a run of its own."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the starter pack on unseen seeds, with 95 % intervals.")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--edition", choices=tuple(EDITIONS), default=PUBLISHED.name)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--words", type=int, default=FOR_WORDS, help="pictures for other phrasings and unknown words")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="samples of the bootstrap")
    parser.add_argument("--weights", type=Path, help="folder of detector/, segmenter/, classifier/ [the bundled ones]")
    parser.add_argument("--photos", type=Path, help="folder of real photographs with instances.json")
    parser.add_argument("--workers", type=int, default=2, help="processes that generate missing pictures")
    parser.add_argument("--only", action="append", help="a part of the figures; may be given again")
    parser.add_argument("--out", type=Path, help="where the figures go [printed alone]")
    parser.add_argument("--write", action="store_true", help="write training/metrics.json")
    arguments = parser.parse_args()
    edition = EDITIONS[arguments.edition]
    weights = arguments.weights or STARTER
    pictures = natural_set(arguments.split, arguments.pictures, arguments.workers, edition)
    product = evaluate_run.Product(WORK / f"evaluation-{arguments.split}-{edition.name}", arguments.weights)
    product.folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[], Any]] = {
        "weights_mb": lambda: evaluate_speed.size_mb(weights),
        "end_to_end": lambda: evaluate_run.end_to_end(product, pictures, edition, arguments.rounds),
        "segmenter": lambda: evaluate_parts.masks(pictures, edition, weights),
        "classifier": lambda: evaluate_parts.crops(pictures, edition, weights),
        "phrasings": lambda: evaluate_words.other_phrasings(product, pictures[: arguments.words], edition),
        "unknown_words": lambda: evaluate_words.unknown_words(product, pictures[: arguments.words], edition),
        "seconds": lambda: evaluate_speed.seconds(product, edition),
    }
    if arguments.photos:
        parts["photos"] = lambda: evaluate_photos.photos(product, arguments.photos)
    out = METRICS if arguments.write else arguments.out
    kept = {"split": arguments.split, "edition": edition.name, "pictures": len(pictures)}
    result = {**(_read(out) if arguments.only else {}), **kept}
    for name in arguments.only or parts:
        result[name] = parts[name]()
        text = json.dumps(_rounded(result), indent=2)
        if out:
            out.write_text(text + "\n", encoding="utf-8")
    print(text)


def _read(path: Path | None) -> dict[str, Any]:
    if path is None or not path.exists():
        return {}
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()

"""Draw the loss curves of ``.work/*/log.jsonl`` to PNG files (needs matplotlib)."""

from __future__ import annotations

import json
from pathlib import Path

from training.dataset import WORK


def plot(log: Path) -> Path:
    """Write ``loss.png`` beside a log and return its path."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rows = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    points = [(row["step"], row["loss"]) for row in rows if "loss" in row and "step" in row]
    figure, axes = pyplot.subplots(figsize=(7, 4))
    axes.plot(*zip(*points, strict=True), linewidth=0.8)
    axes.set(xlabel="step", ylabel="loss", title=log.parent.name)
    target = log.with_name("loss.png")
    figure.savefig(target, dpi=110)
    pyplot.close(figure)
    return target


def main() -> None:
    """Command line."""
    for log in sorted(WORK.glob("*/log.jsonl")):
        print(plot(log))


if __name__ == "__main__":
    main()

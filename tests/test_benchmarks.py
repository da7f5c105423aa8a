"""The benchmarks run at their smallest size, and their page can be written from what they keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autolabel.dataset import Run
from benchmarks import _measure, cheap, growth, reference_loop, speed_page
from benchmarks.__main__ import QUICK
from benchmarks._stored import stored_run

GROWN = {"label_s": 1.0, "label_cpu_s": 0.5, "peak_mb": 90.0}
GROWTH = {"cpu_ms_per_further_image": [1.0], "time_of_an_image_ratio": 1.0, "peak_ratio": 1.0, "boxes": {}}


def test_each_benchmark_of_the_list_is_a_module() -> None:
    folder = Path(cheap.__file__).parent
    assert [name for name in QUICK if not (folder / f"{name}.py").is_file()] == []


def test_a_ratio_is_taken_round_by_round() -> None:
    assert _measure.ratio([4.0, 9.0, 2.0], [2.0, 3.0, 2.0]) == {"median": 2.0, "lowest": 1.0, "highest": 3.0}


def test_sides_take_turns() -> None:
    order: list[str] = []
    sides = {name: (lambda name=name: order.append(name) or 1.0) for name in ("a", "b")}  # type: ignore[func-returns-value]
    assert _measure.rounds(sides, 3) == {"a": [1.0] * 3, "b": [1.0] * 3}
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_starting_up_is_no_part_of_what_a_further_image_takes() -> None:
    assert growth.marginal({100: 5.1, 1_000: 6.0, 10_000: 15.0}) == pytest.approx([1.0, 1.0])


def test_proposals_are_paired_in_whatever_order_they_stand() -> None:
    rng = np.random.default_rng(0)
    boxes, scores = rng.uniform(0.2, 0.6, (50, 4)), rng.uniform(0, 1, 50)
    order = rng.permutation(50)
    px, score = reference_loop.paired((boxes, scores), (boxes[order], scores[order]))
    assert px.max() == score.max() == 0.0
    moved = boxes[order].copy()
    moved[7, 0] += 0.1
    px, score = reference_loop.paired((boxes, scores), (moved, scores[order]))
    assert np.count_nonzero((px > reference_loop.BOX_PX) | (score > reference_loop.SCORE)) == 1


def test_a_stored_run_can_be_read_and_every_cheap_task_works_on_it(tmp_path: Path) -> None:
    path = stored_run(tmp_path, 20, boxes=6, shard=4)
    run = Run.open(path)
    assert len(run) == 20
    assert run.read_image(next(iter(run)).image).shape == (480, 640, 3)
    for name, task in cheap.tasks(path, tmp_path).items():
        if name != "noise":  # it has tests of its own
            task()
    assert sum(len(item.annotations) for item in Run.open(path)) == Run.open(path).manifest.counts["annotations"]


def test_kept_results_fill_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    page = tmp_path / "speed.md"
    page.write_text("before\n<!-- startup -->\nold\n<!-- /startup -->\n<!-- growth -->\n<!-- /growth -->\nafter\n")
    monkeypatch.setattr(speed_page, "PAGE", page)
    monkeypatch.setattr(speed_page, "PLOT", tmp_path / "pictures" / "speed.svg")
    monkeypatch.setattr(_measure, "RESULTS", tmp_path / "results")
    task = {"seconds": 0.25, "best_s": 0.2, "times_of_python": 5.0, "limit_s": 0.3}
    _measure.keep("startup", {"tasks": {"autolabel --help": task}}, _measure.machine())
    _measure.keep("growth", {"images": {"10": GROWN, "20": GROWN}, **GROWTH}, _measure.machine())
    speed_page.main()
    speed_page.main()
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert text.count("| autolabel --help | 0.25 | 0.2 | 0.3 |") == 1
    assert "old" not in text
    assert "| 20 | 1 | 0.5 | 90 |" in text
    assert (tmp_path / "pictures" / "speed.svg").is_file()

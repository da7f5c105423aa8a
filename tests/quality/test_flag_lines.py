"""What people read at the end of a run: how many, how sure, what next."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from autolabel.cli import cli
from autolabel.commands.flags import flag_lines
from autolabel.issues import read_issues
from autolabel.quality import NoiseOptions, NoiseResult, find_noise
from tests.quality.sets import grid, write_coco, write_results


def result(flagged: dict[str, int], **values: object) -> NoiseResult:
    return NoiseResult(Path("x"), 43, 28, flagged, 90, (), 1.0, **values)  # type: ignore[arg-type]


def test_nothing_flagged_is_nothing_said():
    assert flag_lines(result({})) == []


def test_labels_gaps_and_images_are_told_apart():
    found = result(
        {"near-duplicate": 2, "overlooked": 27, "spurious": 1, "swap": 3},
        label_kinds=("spurious", "swap"),
        labels_flagged=3,
        overlooked_expected=17.6,
    )
    assert flag_lines(found) == [
        "worth a look, the most doubtful first in [bold]autolabel review[/bold]:",
        "  27 places where a label is probably missing (in about 18 of them it is)",
        "  3 of 43 labels that are probably wrong: 1 spurious, 3 swap",
        "  images: 2 near-duplicate",
    ]
    assert flag_lines(result({"overlooked": 1}, overlooked_expected=0.9))[1:] == [
        "  1 place where a label is probably missing"
    ]


def test_a_pass_counts_what_it_says(tmp_path):
    labels, evidence, images = grid(80)
    cut = labels.with_boxes(labels.image[3:], labels.boxes_xyxy[3:], labels.label[3:])
    cut = type(labels)(cut.image, cut.boxes_xyxy, cut.label, [str(n) for n in range(len(cut))], cut.human, cut.crowd)
    coco = write_coco(tmp_path / "labels.json", cut, len(images))
    results = write_results(tmp_path / "results.json", evidence)
    found = find_noise(None, coco, [results], options=NoiseOptions(images=False))
    flags = [issue for issue in read_issues(found.folder) if issue.flagged]
    overlooked = [issue for issue in flags if issue.kind == "overlooked"]
    assert overlooked
    assert found.overlooked_expected == pytest.approx(sum(1 - issue.quality for issue in overlooked), abs=1e-3)
    assert found.labels_flagged == len({issue.annotation_id for issue in flags if issue.annotation_id})
    assert set(found.label_kinds) == {issue.kind for issue in flags if issue.annotation_id}
    said = CliRunner().invoke(cli, ["noise", "--labels", str(coco), "-e", str(results), "--skip-images"]).output
    assert f"{len(overlooked)} place" in said
    assert f"{len(labels) - 3} labels of 80 images were judged" in said

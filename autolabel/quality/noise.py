"""The noise pass: read labels and evidence, judge, and write issues beside them."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from autolabel.corrections import FOLDER as DECISIONS
from autolabel.errors import UsageError
from autolabel.issues import read_notes, write_issues
from autolabel.manifest import fingerprint, now, write_atomically
from autolabel.quality.coco_files import Audit, read_labels, read_results
from autolabel.quality.from_run import (
    RunEvidence,
    evidence_of_run,
    labels_of_run,
    listed,
    reviewed_images,
)
from autolabel.quality.judge import judge
from autolabel.quality.material import Evidence, Labels, Pictures, joined
from autolabel.quality.prior import strangers
from autolabel.quality.ragged import Flags
from autolabel.quality.second_look import read_second_look
from autolabel.quality.table import IssueRows, Judged, quality_table

if TYPE_CHECKING:
    from autolabel.dataset import Run
    from autolabel.types import Image

QUALITY_FILE = "quality.parquet"
OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NoiseOptions:
    """What to judge: ``people`` their decisions too, ``images`` the pictures themselves, ``masks`` the masks."""

    people: bool = False
    images: bool = True
    masks: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True)
class NoiseResult:
    """What a pass found: the folder of its files, counts of labels, of flags by kind, and notes about the method.

    ``labels_flagged`` labels have a flag of one of the ``label_kinds``; of the flagged places where something was
    overlooked, ``overlooked_expected`` are real if the stated probabilities hold.
    """

    folder: Path
    labels: int
    images: int
    flagged: dict[str, int]
    doubts: int
    notes: tuple[str, ...]
    seconds: float
    label_kinds: tuple[str, ...] = ()
    labels_flagged: int = 0
    overlooked_expected: float = 0.0


@dataclass(frozen=True, slots=True)
class Material:
    """Everything a pass judges and judges by.

    ``evidence`` did not make the labels; ``own`` are the proposals that did, None for labels from elsewhere. ``closed``
    ``(I,)`` are images that a person declared complete. ``again`` says that all evidence is a second look by the
    detector that made the labels; ``threshold`` divided its proposals. ``strangers`` are the run's models that the
    comparisons of `prior` were not fitted with.
    """

    pictures: Pictures
    names: tuple[str, ...]
    labels: Labels
    evidence: Evidence
    own: RunEvidence | None = None
    assign: str = "classifier"
    closed: Flags = field(default_factory=lambda: np.zeros(0, np.bool_))
    read: Callable[[int], bytes] | None = None
    notes: tuple[str, ...] = ()
    again: bool = False
    strangers: tuple[str, ...] = ()
    threshold: float = 0.35


def find_noise(
    run: Run | None = None,
    labels: Path | None = None,
    evidence: Sequence[Path] = (),
    *,
    out: Path | None = None,
    images: Path | None = None,
    options: NoiseOptions | None = None,
    on_step: OnStep = lambda _: None,
) -> NoiseResult:
    """Judge a run's labels, or those of a COCO file, and write ``issues.parquet`` and ``quality.parquet``.

    ``out`` is the folder to write to: the run's own, or one beside the labels where there is no run. ``images`` is
    where the pictures of a COCO file lie, when there is no run. Raises UsageError for files that do not fit.
    """
    started = time.perf_counter()
    options = options or NoiseOptions()
    on_step("reading")
    if run is None and labels is None:
        raise UsageError("nothing to judge: name a run, or pass --labels coco.json")
    if labels is None:
        assert run is not None
        material = _of_run(run, evidence, options)
    else:
        material = _of_file(labels, run, evidence, images, options)
    folder = out or (run.path if run is not None else labels.with_suffix(".noise"))  # type: ignore[union-attr]
    folder.mkdir(parents=True, exist_ok=True)
    judged = judge(material, options, on_step)
    on_step("writing")
    notes = _notes(material, judged, labels, evidence, time.perf_counter() - started)
    if run is not None:
        notes["state"] = _state(run)
    table = judged.issues.table()
    qualities = quality_table(material.labels, material.pictures, material.names, judged.qualities)
    write_tables(folder, table, qualities, notes)
    flags = table.filter(table.column("flagged"))
    flagged = Counter(flags.column("kind").to_pylist())
    of_labels = flags.filter(pc.is_valid(flags.column("annotation_id")))
    overlooked = flags.filter(pc.equal(flags.column("kind").cast(pa.string()), "overlooked")).column("quality")
    return NoiseResult(
        folder,
        int((~material.labels.crowd).sum()),
        len(material.pictures),
        dict(sorted(flagged.items())),
        len(table),
        tuple(notes["notes"]),
        time.perf_counter() - started,
        tuple(sorted(set(of_labels.column("kind").to_pylist()))),
        len(of_labels.column("annotation_id").unique()),
        len(overlooked) - float(pc.sum(overlooked).as_py() or 0.0),
    )


def up_to_date(run: Run) -> bool:
    """Tell whether a run's issues speak of it as it is now; those of an audit of other labels are never replaced."""
    notes = read_notes(run.path)
    return notes is not None and (notes.get("labels") != "run" or notes.get("state") == _state(run))


def _state(run: Run) -> str:
    """Fingerprint of what was labelled and decided: a changed image has a newer shard, a decision another file."""
    shards = sum(1 for _ in (run.path / "shards").iterdir())
    decided = [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((run.path / DECISIONS).glob("*.parquet"))
    ]
    return fingerprint([run.manifest.keys.model_dump(), dict(run.manifest.counts), shards, decided])


def write_tables(folder: Path, issues: pa.Table, qualities: pa.Table, notes: dict[str, Any]) -> None:
    """Write both tables, each whole or not at all; the issues last, as their notes describe the pass."""
    sink = pa.BufferOutputStream()
    pq.write_table(qualities, sink, compression="zstd")
    write_atomically(folder / QUALITY_FILE, sink.getvalue().to_pybytes())
    write_issues(folder, issues, notes)


def read_quality(folder: Path) -> pa.Table:
    """Read the quality of every label: a row each with ``annotation_id``, a column for each kind (null: not judged)."""
    path = folder / QUALITY_FILE
    if not path.is_file():
        raise UsageError(f"{folder} has no {QUALITY_FILE}; make it with: autolabel noise")
    return pq.read_table(path)


def _of_run(run: Run, evidence: Sequence[Path], options: NoiseOptions) -> Material:
    images, classes = list(run.images()), run.labels
    pictures = listed(images)
    files = [read_results(path, pictures, ontology=classes) for path in evidence]
    second = read_second_look(run, pictures, len(classes.classes))
    return Material(
        pictures,
        classes.names,
        labels_of_run(run),
        joined([*files, second], len(classes.classes)),
        evidence_of_run(run, pictures, masks=False),
        str(run.manifest.assign),
        reviewed_images(run, pictures),
        _reader(run, images),
        again=len(second) > 0 and not files,
        strangers=strangers(run.manifest.models),
        threshold=float(run.manifest.resolved.get("thresholds", {}).get("min_score", 0.35)),
    )


def _of_file(
    labels: Path, run: Run | None, evidence: Sequence[Path], images: Path | None, options: NoiseOptions
) -> Material:
    seen = list(run.images()) if run is not None else []
    pictures = listed(seen) if run is not None else None
    audit = read_labels(labels, pictures, run.labels if run is not None else None)
    found: list[Evidence] = []
    if run is not None:
        shapes = options.masks and audit.labels.shapes is not None
        found.append(evidence_of_run(run, audit.pictures, masks=shapes, boxes="mask").evidence)
        found.append(read_second_look(run, audit.pictures, len(audit.classes)))
    found += [read_results(path, audit.pictures, audit.image_of, audit.class_of) for path in evidence]
    if not found:
        raise UsageError(
            "labels alone cannot be judged: name a RUN over the same images, or pass --evidence results.json"
        )
    read = _reader(run, seen) if run is not None else _folder_reader(audit, images)
    # What the labels could not know of, they did not overlook.
    joint = joined(found, len(audit.classes))
    in_file = np.isin(np.arange(len(audit.pictures)), list(audit.image_of.values()))
    joint = joint.take(in_file[joint.image] & np.isin(joint.label, list(audit.class_of.values())))
    return Material(audit.pictures, audit.classes, audit.labels, joint, closed=~in_file, read=read, notes=audit.notes)


def _reader(run: Run, images: Sequence[Image]) -> Callable[[int], bytes]:
    return lambda place: run.read_bytes(images[place])


def _folder_reader(audit: Audit, images: Path | None) -> Callable[[int], bytes] | None:
    return None if images is None else lambda place: (images / audit.pictures.paths[place]).read_bytes()


def _notes(
    material: Material, judged: Judged, labels: Path | None, evidence: Sequence[Path], seconds: float
) -> dict[str, Any]:
    return {
        "at": now(),
        "labels": str(labels) if labels is not None else "run",
        "evidence": [*material.evidence.names] if labels is not None else [str(path) for path in evidence],
        "assign": material.assign if material.own is not None else None,
        "judged": int((~material.labels.crowd).sum()),
        "notes": [*material.notes, *judged.notes],
        "reliability": {name: asdict(curve) for name, curve in judged.curves.items()},
        "shares": judged.shares,
        "seconds": round(seconds, 3),
    }


__all__ = ["IssueRows", "Material", "NoiseOptions", "NoiseResult", "find_noise", "read_quality", "write_tables"]

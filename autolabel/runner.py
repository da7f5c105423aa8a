"""A labeling pass from inputs to a run folder: what is left to do, in batches, resumable at any moment."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autolabel import labeling, shards
from autolabel.config import Recipe, load_recipe
from autolabel.dataset import Run, latest_run, remember_latest
from autolabel.errors import ConfigError, ImageError
from autolabel.images import Source, image_id, list_sources, read_bytes
from autolabel.labeling import Plan, ReadImage
from autolabel.loading import Models, models_for
from autolabel.manifest import (
    MANIFEST_NAME,
    RunManifest,
    StageKeys,
    fingerprint,
    now,
    ontology_values,
    recorded_versions,
    write_atomically,
)
from autolabel.ontology import Ontology
from autolabel.shards import ImageRow
from autolabel.stages.resolve import Gates
from autolabel.store import Place, RunFolder, grouped, totals

_log = logging.getLogger(__name__)
_NAMESPACE = uuid.UUID("6b1f6f0e-8a52-5d0c-9d61-0b6a3b1f2c77")
_READERS = 4


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: images done of ``total`` that had to be done, and those that were there already."""

    done: int
    total: int
    already: int
    failed: int
    annotations: int


OnProgress = Callable[[Progress], None]


def run(
    images: str | Path | Sequence[str | Path] | None = None,
    prompt: str | None = None,
    *,
    recipe: Recipe | str | Path | None = None,
    path: str | Path | None = None,
    ontology: Ontology | None = None,
    detector: object | str | None = None,
    segmenter: object | str | None = None,
    classifier: object | str | None = None,
    offline: bool = False,
    retry_failed: bool = False,
    on_progress: OnProgress | None = None,
    **settings: Any,
) -> Run:
    """Label images and return the run; the same call again resumes it and repeats nothing.

    ``images`` are files, folders, globs, manifests or URIs; ``recipe`` a `Recipe`, a TOML file or a recipe's name;
    ``settings`` any key of a recipe. Models are specs, or loaded objects with a ``predict_batch``.

    >>> run("images/", prompt="scratch. dent.")                   # doctest: +SKIP
    Run('runs/scratch-dent-1f0c2a', 24 images, 61 annotations)
    """
    base = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)[0]
    loaded = {"detector": detector, "segmenter": segmenter, "classifier": classifier}
    specs = {task: model for task, model in loaded.items() if isinstance(model, str)}
    if ontology is not None:
        settings |= _ontology_settings(ontology)
    chosen = base.merged({"prompt": prompt, **specs, **settings})
    models = models_for(chosen, offline=offline, given={t: m for t, m in loaded.items() if not isinstance(m, str)})
    inputs = default_inputs(chosen, images)
    folder = label(chosen, models, inputs, path=path, retry_failed=retry_failed, on_progress=on_progress)
    return Run(folder)


def default_inputs(recipe: Recipe, images: str | Path | Sequence[str | Path] | None = None) -> tuple[str, ...]:
    """Which images: the argument, else the recipe's, else ``./images``, else the working directory."""
    if images is not None and not isinstance(images, (str, Path)) and not images:
        images = None
    if images is not None:
        return (str(images),) if isinstance(images, (str, Path)) else tuple(str(image) for image in images)
    if recipe.images:
        return recipe.images
    return ("images",) if Path("images").is_dir() else (".",)


def label(
    recipe: Recipe,
    models: Models,
    inputs: Sequence[str],
    *,
    path: str | Path | None = None,
    retry_failed: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """Bring a run folder up to date with ``inputs`` under ``recipe``; returns the folder."""
    ontology = recipe.ontology()
    folder_path = Path(path) if path is not None else Path("runs") / run_name(recipe, inputs, models)
    sources = list_sources(inputs)
    previous = RunManifest.read(folder_path) if (folder_path / MANIFEST_NAME).is_file() else None
    run_id = previous.run_id if previous else str(uuid.uuid5(_NAMESPACE, json.dumps(ontology_values(ontology))))
    plan = make_plan(recipe, ontology, run_id)
    keys = stage_keys(recipe, ontology, models)
    with RunFolder(folder_path) as folder:
        manifest = RunManifest(
            run_id=run_id,
            created=previous.created if previous else now(),
            updated=now(),
            inputs=tuple(inputs),
            recipe=recipe.model_dump(mode="json", exclude_defaults=True),
            resolved=_resolved(recipe, models, plan),
            ontology=ontology,
            assign=plan.assign,
            models=previous.models if previous else {},
            keys=keys,
            versions=recorded_versions(),
        )
        (previous.model_copy(update={"status": "running"}) if previous else manifest).write(folder_path)
        remember_latest(folder_path)
        _Pass(folder, manifest, plan, models, on_progress or (lambda _: None)).execute(sources, retry_failed)
    return folder_path


def resolve_run(run: Run, changes: Mapping[str, Any]) -> Run:
    """Apply changed thresholds to a finished run from its stored proposals, without a model call.

    Raises ConfigError when a threshold lies below the score that was stored.
    """
    recipe = Recipe.model_validate(run.manifest.recipe).merged(changes)
    stored = float(run.manifest.resolved["floor"])
    if recipe.floor() < stored:
        raise ConfigError(
            f"min_score {recipe.floor():g} is below {stored:g}, the lowest score this run has stored; "
            "give the same option to 'autolabel run', which calls the detector again"
        )
    ontology = recipe.ontology()
    if ontology_values(ontology) != ontology_values(run.ontology):
        raise ConfigError("classes or phrases differ from the run's; 'autolabel run' looks for new ones")
    plan = replace(make_plan(recipe, ontology, run.manifest.run_id), floor=stored)
    keys = run.manifest.keys.model_copy(update={"resolve": _resolve_key(run.manifest.keys, plan)})
    with RunFolder(run.path) as folder:
        manifest = run.manifest.model_copy(
            update={
                "updated": now(),
                "keys": keys,
                "ontology": ontology,
                "assign": plan.assign,
                "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
                "resolved": {**run.manifest.resolved, **recipe.model_dump(mode="json", exclude={"images"})},
            }
        )
        _Pass(folder, manifest, plan, None, lambda _: None).resolve_only()
    return Run(run.path)


def make_plan(recipe: Recipe, ontology: Ontology, run_id: str) -> Plan:
    """Collect what decides a batch's results."""
    thresholds = recipe.thresholds
    return Plan(
        ontology=ontology,
        assign=recipe.assigner(),
        gates=Gates.of(ontology, **thresholds.model_dump()),
        floor=recipe.floor(),
        proposal_iou=recipe.proposals.iou,
        proposal_limit=recipe.proposals.limit,
        run_id=run_id,
    )


def stage_keys(recipe: Recipe, ontology: Ontology, models: Models) -> StageKeys:
    """Fingerprint what determines each stage's output."""
    detect = fingerprint(
        [
            models.detector.identity,
            ontology_values(ontology),
            recipe.floor(),
            recipe.proposals.iou,
            recipe.proposals.limit,
        ]
    )
    segment = fingerprint([detect, models.segmenter.identity if models.segmenter else None])
    classify = fingerprint([segment, models.classifier.identity if models.classifier else None])
    keys = StageKeys(detect=detect, segment=segment, classify=classify, resolve="")
    return keys.model_copy(update={"resolve": _resolve_key(keys, make_plan(recipe, ontology, str(_NAMESPACE)))})


def _resolve_key(keys: StageKeys, plan: Plan) -> str:
    gates = {name: getattr(value, "tolist", lambda v=value: v)() for name, value in asdict(plan.gates).items()}
    return fingerprint([keys.detect, keys.segment, keys.classify, plan.assign, gates])


def run_name(recipe: Recipe, inputs: Sequence[str], models: Models) -> str:
    """Name a run folder after what makes it a different run: classes, inputs and models, but not thresholds."""
    ontology = recipe.ontology()
    slug = re.sub(r"[^a-z0-9]+", "-", "-".join(ontology.names).lower()).strip("-")[:40].strip("-") or "run"
    identity = [list(inputs), ontology_values(ontology), [m.identity for m in models.parts().values()]]
    return f"{slug}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:6]}"


def _resolved(recipe: Recipe, models: Models, plan: Plan) -> dict[str, Any]:
    values = recipe.model_dump(mode="json", exclude={"images"})
    values |= {task: model.spec for task, model in models.parts().items()}
    return {**values, "assign": plan.assign, "floor": plan.floor}


def _ontology_settings(ontology: Ontology) -> dict[str, Any]:
    def rows(labels: Sequence[object]) -> list[dict[str, Any]]:
        return [{k: v for k, v in asdict(label).items() if v is not None} for label in labels]  # type: ignore[call-overload]

    return {"classes": rows(ontology.classes), "negatives": rows(ontology.negatives)}


class _Pass:
    """One pass over a locked run folder: first complete the shards there are, then add shards for new images."""

    def __init__(
        self, folder: RunFolder, manifest: RunManifest, plan: Plan, models: Models | None, report: OnProgress
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.keys = manifest.keys
        self.plan = plan
        self._models = models
        self._report = report
        self._sources: dict[str, Source] = {}
        self._state = Progress(0, 0, 0, 0, 0)

    @property
    def models(self) -> Models:
        if self._models is None:
            raise RuntimeError("this pass was made without models")
        return self._models

    def execute(self, sources: Sequence[Source], retry_failed: bool) -> None:
        """Do what is left to do, then write the manifest and the failure ledger."""
        self._sources = {source.path: source for source in sources}
        places = self.folder.index(self.keys)
        with ThreadPoolExecutor(_READERS) as pool:
            decisions = pool.map(lambda s: _is_pending(places.get(s.path), s, retry_failed), sources)
            pending = [source for source, decision in zip(sources, decisions, strict=True) if decision]
        waiting = {source.path for source in pending}
        live = _live_rows(places, waiting)
        incomplete = [n for n in self.folder.numbers() if self._missing_stages(n)]
        again = sum(len(live.get(number, ())) for number in incomplete)
        self._state = replace(
            self._state, total=again + len(pending), already=len(places) - again - len(waiting & places.keys())
        )
        self._report(self._state)
        with ThreadPoolExecutor(_READERS) as pool:
            for number in incomplete:
                self._complete(number, live.get(number, frozenset()), pool)
            self._switch()
            batches = grouped(pending, int(self.manifest.resolved["batch_size"]))
            for batch in _read_ahead(batches, pool):
                self._add(batch, places)
        self._finish()

    def resolve_only(self) -> None:
        """Remake the annotations from the stored proposals."""
        live = _live_rows(self.folder.index(self.keys), set())
        for number in self.folder.numbers():
            if not self.folder.has(number, "annotations", self.keys.resolve):
                self._resolve(number, live.get(number, frozenset()))
        self._switch()
        self._finish()

    def _source(self, row: ImageRow) -> Source:
        """Where to read a stored image: as the inputs say (a URI may hold credentials), else as it was stored."""
        return self._sources.get(row.path) or Source(row.path, row.uri, row.fingerprint)

    def _missing_stages(self, number: int) -> list[str]:
        wanted = {"detect": self.keys.detect, "segment": self.keys.segment, "classify": self.keys.classify}
        return [
            stage
            for stage, key in {**wanted, "annotations": self.keys.resolve}.items()
            if not self.folder.has(number, stage, key)
        ]

    def _complete(self, number: int, live: frozenset[int], pool: ThreadPoolExecutor) -> None:
        """Run the stages that a shard lacks under the present keys."""
        missing = self._missing_stages(number)
        folder, keys = self.folder, self.keys
        if missing != ["annotations"]:
            rows = shards.read_images(folder.images_file(number))
            sources = [self._source(row) if place in live else None for place, row in enumerate(rows)]
            batch = list(pool.map(labeling.reread, rows, sources))
            class_count = len(self.plan.ontology.all_classes)
            brought = None
            if "detect" in missing:
                detected, notes, brought = labeling.detect(batch, self.models, self.plan)
                folder.put(number, "detect", keys.detect, shards.detect_table(detected), notes)
            detected = shards.read_detect(folder.file(number, "detect", keys.detect), class_count)
            if "segment" in missing:
                if brought is None:
                    segmented, notes = labeling.segment(batch, detected, self.models)
                else:
                    segmented, notes = brought, shards.StageNotes()
                folder.put(number, "segment", keys.segment, shards.segment_table(segmented), notes)
            segmented = shards.read_segment(folder.file(number, "segment", keys.segment))
            if "classify" in missing:
                classified, notes = labeling.classify(batch, detected, segmented, self.models, self.plan.ontology)
                table = shards.classify_table(classified, len(detected.images))
                folder.put(number, "classify", keys.classify, table, notes)
        notes = self._resolve(number, live)
        self._advance(len(live), 0, sum(notes.labels.values()))

    def _resolve(self, number: int, live: frozenset[int]) -> shards.StageNotes:
        folder, keys = self.folder, self.keys
        class_count = len(self.plan.ontology.all_classes)
        rows = shards.read_images(folder.images_file(number))
        gone = {row.path for place, row in enumerate(rows) if place not in live}
        failed = {failure.path for failure in folder.stage_failures(number, keys)}
        resolved, notes = labeling.resolve_shard(
            rows,
            shards.read_detect(folder.file(number, "detect", keys.detect), class_count),
            shards.read_classify(folder.file(number, "classify", keys.classify), class_count),
            frozenset(gone | failed),
            self.plan,
        )
        folder.put(number, "annotations", keys.resolve, shards.resolve_table(resolved), notes)
        return notes

    def _add(self, batch: Sequence[ReadImage], places: Mapping[str, Place]) -> None:
        """Label a batch of new images and commit it as a shard."""
        started = time.perf_counter()
        keys, plan = self.keys, self.plan
        if all(_known_failure(image.row, places.get(image.row.path)) for image in batch):
            self._advance(len(batch), len(batch), 0)
            return
        detected, detect_notes, brought = labeling.detect(batch, self.models, plan)
        if brought is None:
            segmented, segment_notes = labeling.segment(batch, detected, self.models)
        else:
            segmented, segment_notes = brought, shards.StageNotes()
        classified, classify_notes = labeling.classify(batch, detected, segmented, self.models, plan.ontology)
        rows = [image.row for image in batch]
        failures = (*detect_notes.failures, *segment_notes.failures, *classify_notes.failures)
        failed = frozenset(failure.path for failure in failures)
        resolved, resolve_notes = labeling.resolve_shard(rows, detected, classified, failed, plan)
        self.folder.add_shard(
            rows,
            {
                f"detect-{keys.detect}": (shards.detect_table(detected), detect_notes),
                f"segment-{keys.segment}": (shards.segment_table(segmented), segment_notes),
                f"classify-{keys.classify}": (shards.classify_table(classified, len(detected.images)), classify_notes),
                f"annotations-{keys.resolve}": (shards.resolve_table(resolved), resolve_notes),
            },
        )
        unread = sum(row.failure is not None for row in rows)
        _log.debug("batch of %d in %.2f s", len(batch), time.perf_counter() - started)
        self._advance(len(batch), unread + len(failed), sum(resolve_notes.labels.values()))

    def _advance(self, images: int, failed: int, annotations: int) -> None:
        state = self._state
        self._state = replace(
            state,
            done=state.done + images,
            failed=state.failed + failed,
            annotations=state.annotations + annotations,
        )
        self._report(self._state)

    def _switch(self) -> None:
        """From here on readers see the present keys: every shard there is has them."""
        self.manifest.write(self.folder.path)
        self.folder.drop_stale_annotations(self.keys.resolve)

    def _finish(self) -> None:
        self._refresh_replaced()
        counts, rejects, labels, timings = totals(self.folder, self.keys)
        loaded = self._models.parts().items() if self._models else ()
        infos = {task: model.info for task, model in loaded if model.loaded}
        self.manifest = self.manifest.model_copy(
            update={
                "updated": now(),
                "status": "partial" if counts["failed"] else "done",
                "models": {**self.manifest.models, **infos},
                "counts": dict(counts),
                "labels": dict(labels),
                "rejects": dict(rejects),
                "timings": {stage: round(seconds, 3) for stage, seconds in timings.items()},
            }
        )
        self.manifest.write(self.folder.path)
        ledger = Run(self.folder.path).failures()
        lines = [json.dumps(asdict(failure), ensure_ascii=False) + "\n" for failure in ledger]
        write_atomically(self.folder.path / "failures.jsonl", "".join(lines).encode())

    def _refresh_replaced(self) -> None:
        """Annotations of an image that a newer shard replaced must not be counted: remake those shards' tables."""
        live = _live_rows(self.folder.index(self.keys), set())
        for number in self.folder.numbers():
            rows = shards.read_images(self.folder.images_file(number))
            mine = live.get(number, frozenset())
            if len(mine) < len(rows):
                self._resolve(number, mine)


def _is_pending(place: Place | None, source: Source, retry_failed: bool) -> bool:
    """Tell whether an image has to be labelled; a file that was touched or copied, but not changed, has not."""
    if place is None:
        return True
    if place.failure is not None and (retry_failed or place.failure.stage == "read"):
        return True
    if place.fingerprint == source.fingerprint:
        return False
    try:
        return image_id(read_bytes(source)) != place.image_id
    except ImageError:
        return True


def _known_failure(row: ImageRow, place: Place | None) -> bool:
    """Tell whether a retried image failed exactly as the ledger already says."""
    return (
        row.failure is not None
        and place is not None
        and place.failure == row.failure
        and place.fingerprint == row.fingerprint
    )


def _live_rows(places: Mapping[str, Place], replaced: set[str]) -> dict[int, frozenset[int]]:
    """Rows of each shard that are the newest word on their image, less those about to be replaced."""
    live: dict[int, set[int]] = {}
    for path, place in places.items():
        if path not in replaced:
            live.setdefault(place.shard, set()).add(place.row)
    return {shard: frozenset(rows) for shard, rows in live.items()}


def _read_ahead(batches: Iterator[tuple[Source, ...]], pool: ThreadPoolExecutor) -> Iterator[list[ReadImage]]:
    """Read the next batch while the present one is being labelled."""
    waiting: list[Future[ReadImage]] | None = None
    for batch in batches:
        coming = [pool.submit(labeling.read, source) for source in batch]
        if waiting is not None:
            yield [future.result() for future in waiting]
        waiting = coming
    if waiting is not None:
        yield [future.result() for future in waiting]


__all__ = ["Progress", "default_inputs", "label", "latest_run", "resolve_run", "run"]

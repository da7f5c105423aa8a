"""A labeling pass from inputs to a run folder: what is left to do, in batches, resumable at any moment."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autolabel.config import BoxSource, Recipe, load_recipe
from autolabel.dataset import Run, remember_latest
from autolabel.engine import Setup, choose
from autolabel.errors import ConfigError
from autolabel.execute import OnProgress, Pass
from autolabel.images import list_sources
from autolabel.labeling import Plan
from autolabel.loading import Models, models_for
from autolabel.manifest import (
    MANIFEST_NAME,
    RunManifest,
    StageKeys,
    fingerprint,
    now,
    ontology_values,
    recorded_versions,
)
from autolabel.ontology import Ontology
from autolabel.protocols import ENTRY_POINT_GROUPS
from autolabel.stages.resolve import LEAST_FILLED, LEAST_INSIDE, LEAST_MASK_SCORE, Gates
from autolabel.stages.tiles import Tiles
from autolabel.stages.windows import THIN
from autolabel.store import RunFolder

_NAMESPACE = uuid.UUID("6b1f6f0e-8a52-5d0c-9d61-0b6a3b1f2c77")


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
    folder = label(
        chosen, models, inputs, path=path, offline=offline, retry_failed=retry_failed, on_progress=on_progress
    )
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
    offline: bool = False,
    retry_failed: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """Bring a run folder up to date with ``inputs`` under ``recipe``; returns the folder."""
    ontology = recipe.ontology()
    folder_path = Path(path) if path is not None else Path("runs") / run_name(recipe, inputs, models)
    sources = list_sources(inputs)
    with RunFolder(folder_path) as folder:
        previous = RunManifest.read(folder_path) if (folder_path / MANIFEST_NAME).is_file() else None
        run_id = previous.run_id if previous else new_run_id(ontology)
        # What was stored under a lower floor holds all that a higher one asks for.
        floor = min(recipe.floor(), float(previous.resolved["floor"]) if previous else 1.0)
        boxes = recipe.box_source(previous.resolved if previous else None)
        plan = make_plan(recipe, ontology, run_id, floor, boxes=boxes, min_prob=models.min_prob)
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
            timings=previous.timings if previous else {},
            pace=previous.pace if previous else None,
            keys=stage_keys(plan, models),
            versions=recorded_versions(),
        )
        (previous.model_copy(update={"status": "running"}) if previous else manifest).write(folder_path)
        remember_latest(folder_path)
        engine = choose(Setup(recipe, plan, offline, {t: m.identity for t, m in models.parts().items()}), models)
        Pass(folder, manifest, plan, engine, on_progress or (lambda _: None)).execute(sources, retry_failed)
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
    settled = run.manifest.resolved
    min_prob = float(settled["thresholds"]["min_prob"] or 0.0)
    plan = make_plan(recipe, ontology, run.manifest.run_id, stored, boxes=recipe.box_source(settled), min_prob=min_prob)
    keys = run.manifest.keys.model_copy(update={"resolve": _resolve_key(run.manifest.keys, plan)})
    with RunFolder(run.path) as folder:
        manifest = run.manifest.model_copy(
            update={
                "updated": now(),
                "keys": keys,
                "ontology": ontology,
                "assign": plan.assign,
                "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
                # The models stay those that made the proposals: a recipe that names none would blot them out.
                "resolved": {**run.manifest.resolved, **_values(recipe, plan, *ENTRY_POINT_GROUPS)},
            }
        )
        Pass(folder, manifest, plan, None, lambda _: None).resolve_only()
    return Run(run.path)


def new_run_id(ontology: Ontology) -> str:
    """Name a new run by its classes and phrases, so that equal regions have equal ids wherever it is made."""
    return str(uuid.uuid5(_NAMESPACE, json.dumps(ontology_values(ontology))))


def make_plan(
    recipe: Recipe,
    ontology: Ontology,
    run_id: str,
    floor: float,
    *,
    boxes: BoxSource | None = None,
    min_prob: float = 0.0,
) -> Plan:
    """Collect what decides a batch's results.

    ``floor`` is the lowest detector score that is stored, ``boxes`` where boxes come from; None: as in a new run.
    ``min_prob`` is what the classifier asks for; it counts where the recipe names none and the classifier has a say.
    """
    assign = recipe.assigner()
    gate = 0.0 if assign == "detector" else min_prob
    if recipe.thresholds.min_prob is not None:
        gate = min_prob = recipe.thresholds.min_prob
    return Plan(
        ontology=ontology,
        assign=assign,
        boxes=boxes or recipe.box_source(),
        gates=Gates.of(ontology, **recipe.thresholds.model_dump(exclude={"boxes", "min_prob"}), min_prob=gate),
        min_prob=min_prob,
        floor=floor,
        proposal_iou=recipe.proposals.iou,
        proposal_limit=recipe.proposals.limit,
        run_id=run_id,
        tiles=Tiles(**recipe.tiles.model_dump()),
    )


def stage_keys(plan: Plan, models: Models) -> StageKeys:
    """Fingerprint what determines each stage's output."""
    asked = [ontology_values(plan.ontology), plan.floor, plan.proposal_iou, plan.proposal_limit]
    if plan.tiles.mode != "off":
        asked.append(asdict(plan.tiles))
    detect = fingerprint([models.detector.identity, *asked])
    masks: list[object] = [detect, models.segmenter.identity if models.segmenter else None]
    if models.segmenter and plan.tiles.mode != "off":
        masks.append(THIN)
    segment = fingerprint(masks)
    classify = fingerprint([segment, models.classifier.identity if models.classifier else None])
    keys = StageKeys(detect=detect, segment=segment, classify=classify, resolve="")
    return keys.model_copy(update={"resolve": _resolve_key(keys, plan)})


def _resolve_key(keys: StageKeys, plan: Plan) -> str:
    gates = {name: getattr(value, "tolist", lambda v=value: v)() for name, value in asdict(plan.gates).items()}
    # Runs from before boxes could be taken from masks have keys that say nothing of it.
    trusted = (plan.boxes, LEAST_MASK_SCORE, LEAST_INSIDE, LEAST_FILLED) if plan.boxes == "mask" else ()
    return fingerprint([keys.detect, keys.segment, keys.classify, plan.assign, gates, *trusted])


def run_name(recipe: Recipe, inputs: Sequence[str], models: Models) -> str:
    """Name a run folder after what makes it a different run: classes, inputs and models, but not thresholds."""
    ontology = recipe.ontology()
    slug = re.sub(r"[^a-z0-9]+", "-", "-".join(ontology.names).lower()).strip("-")[:40].strip("-") or "run"
    identity = [list(inputs), ontology_values(ontology), [m.identity for m in models.parts().values()]]
    return f"{slug}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:6]}"


def _resolved(recipe: Recipe, models: Models, plan: Plan) -> dict[str, Any]:
    values = _values(recipe, plan)
    values |= {task: model.spec for task, model in models.parts().items()}
    return {**values, "assign": plan.assign, "floor": plan.floor}


def _values(recipe: Recipe, plan: Plan, *left_out: str) -> dict[str, Any]:
    """Every setting of the recipe, with the boxes' source and the least probability that were decided on."""
    values = recipe.model_dump(mode="json", exclude={"images", *left_out})
    return {**values, "thresholds": {**values["thresholds"], "boxes": plan.boxes, "min_prob": plan.min_prob}}


def _ontology_settings(ontology: Ontology) -> dict[str, Any]:
    def rows(labels: Sequence[object]) -> list[dict[str, Any]]:
        return [{k: v for k, v in asdict(label).items() if v is not None} for label in labels]  # type: ignore[call-overload]

    return {"classes": rows(ontology.classes), "negatives": rows(ontology.negatives)}

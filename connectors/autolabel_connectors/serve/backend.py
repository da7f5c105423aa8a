"""Label Studio's questions answered: which regions tasks should show, and what a person pointed at."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from autolabel.connect import Shape
from autolabel.engine.portions import read_batches
from autolabel.errors import AutolabelError, UsageError
from autolabel.interactive import Labeler, Labelled, Opened, Recent
from autolabel.labeling import ReadImage
from autolabel.serving import ServeOptions
from autolabel.types import AnnotatedImage, Annotation, Failure
from autolabel_connectors.label_studio.convert import to_regions
from autolabel_connectors.label_studio.label_config import Controls, check_label_config
from autolabel_connectors.serve.media import Fetcher, Host
from autolabel_connectors.serve.smart import controls_for, read_context, to_result
from autolabel_connectors.shapes import Drawing, ShapeOptions, draw

_READERS, _OPENED, _PROJECTS, _DOORS = 8, 16, 1024, 16
_STAND_INS: tuple[Shape, ...] = ("polygon", "mask", "box")
log = logging.getLogger(__name__)


class Backend:
    """Answers for many projects with models that are loaded once; safe between threads."""

    def __init__(self, labeler: Labeler, options: ServeOptions) -> None:
        self.labeler, self.options = labeler, options
        # Not what a push calls its predictions: it would take these for its own, and replace them.
        self.version = f"served-{labeler.model_version}"
        self._limits = ShapeOptions(max_vertices=options.max_vertices, min_iou=options.min_iou)
        self._fetcher = Fetcher(options.max_bytes)
        self._readers = ThreadPoolExecutor(_READERS, "images")
        self._hosts: Recent[str, Host] = Recent(_PROJECTS)
        self._configs: Recent[str, str] = Recent(_PROJECTS)
        self._opened: Recent[tuple[str, str], Opened] = Recent(_OPENED)
        self._opening = [threading.Lock() for _ in range(_DOORS)]

    def close(self) -> None:
        """Let go of connections and threads."""
        self._readers.shutdown(wait=True, cancel_futures=True)
        self._fetcher.close()

    def setup(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Learn of a project: its label config, and its server's address and token where we have none.

        Raises AutolabelError where nothing can be drawn in the project.
        """
        project, config = str(request.get("project", "")), str(request.get("schema") or "")
        self._learn_host(project, str(request.get("hostname") or ""), str(request.get("access_token") or ""))
        problems: list[str] = []
        if config:
            controls, problems = self._fit(config)
            if not any(controls.by_kind.values()):
                raise UsageError("; ".join(problems) or "the label config draws no regions")
            # Label Studio sets a project up before every prediction: what does not fit is said once.
            if self._configs.get(project) != config:
                for problem in problems:
                    log.warning("project %s: %s", project, problem)
            self._configs.put(project, config)
        return {"model_version": self.version, "warnings": problems}

    def _fit(self, config: str) -> tuple[Controls, list[str]]:
        """Say what of a label config does not fit; with ``auto`` any shape will do, as it is drawn in what there is."""
        shapes = ("auto", *_STAND_INS) if self.options.shape == "auto" else (self.options.shape,)
        names = self.labeler.plan.ontology.names
        checked = [check_label_config(config, names, shape, serving=True) for shape in shapes]
        return min(checked, key=lambda one: len(one[1]))

    def predict(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer for tasks, in their order; a task that failed has no prediction, and is named under ``errors``."""
        tasks = request.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, Mapping) for task in tasks):
            raise UsageError('"tasks" must be a list of tasks, each {"id": …, "data": {…}}')
        project = str(request.get("project", ""))
        config = str(request.get("label_config") or "") or self._configs.get(project) or ""
        if not config:
            raise UsageError('the request has no "label_config", and the project was not set up; POST /setup first')
        params = request.get("params")
        context = params.get("context") if isinstance(params, Mapping) else None
        host = self._host(project)
        if isinstance(context, Mapping) and context.get("result"):
            return self._point(tasks, context["result"], config, host)
        return self._label(tasks, config, host)

    def _label(self, tasks: Sequence[Mapping[str, Any]], config: str, host: Host | None) -> dict[str, Any]:
        names = self.labeler.plan.ontology.names
        controls, _ = check_label_config(config, names, self.options.shape, serving=True)
        answers: list[Labelled | Failure] = []
        # Label Studio asks for all the tasks that a person chose at once: they must not all be in memory.
        for batch in read_batches(
            lambda task: self._fetcher.read(task, controls.image_key, host),
            tasks,
            self.labeler.recipe.batch_size,
            self._readers,
        ):
            answers += self.labeler.label(_told_apart(tasks[len(answers) : len(answers) + len(batch)], batch))
        results: list[Any] = []
        errors: list[dict[str, Any]] = []
        for task, answer in zip(tasks, answers, strict=True):
            try:
                if isinstance(answer, Failure):
                    raise AutolabelError(f"{answer.stage}: {answer.message}")  # noqa: TRY301
                results.append(self._prediction(task, answer.item, controls))
            except AutolabelError as error:
                log.warning("task %s: %s", task.get("id"), error)
                errors.append({"task": task.get("id"), "error": str(error)})
                # An empty prediction would say that there is nothing on the image; none is asked for again.
                results.append([])
        return {"results": results, "model_version": self.version, "errors": errors}

    def _prediction(self, task: Mapping[str, Any], item: AnnotatedImage, controls: Controls) -> dict[str, Any]:
        result: list[dict[str, Any]] = []
        shown: list[float] = []
        for annotation in item.annotations:
            drawing = self._drawing(annotation, controls)
            if drawing is None:
                log.warning("task %s: the label config cannot draw %r; add its label", task.get("id"), annotation.label)
                continue
            control = controls.find(drawing.kind, annotation.label)
            if control is not None and annotation.score < control.min_score:
                continue
            shown.append(annotation.score)
            result += to_regions(annotation, item.image, drawing, controls)
        lowest = min(shown, default=None)
        score = None if lowest is None else round(min(max(float(lowest), 0.0), 1.0), 6)
        return {"result": result, "score": score, "model_version": self.version}

    def _drawing(self, annotation: Annotation, controls: Controls) -> Drawing | None:
        """Draw as asked for, else in whatever shape the project has for the label."""
        shapes = dict.fromkeys((self.options.shape, *_STAND_INS))
        drawings = (draw(annotation, shape, self._limits) for shape in shapes)
        return next((one for one in drawings if controls.find(one.kind, annotation.label) is not None), None)

    def _point(
        self, tasks: Sequence[Mapping[str, Any]], items: Sequence[Any], config: str, host: Host | None
    ) -> dict[str, Any]:
        version = self.version
        results = []
        for task in tasks:
            key = check_label_config(config, (), "mask")[0].image_key
            opened = self._open(task, key, host)
            pointing = read_context(items, opened.image)
            controls = controls_for(config, pointing.label)
            found = self.labeler.segment_prompt(opened, pointing.prompt, pointing.label)
            result = [] if found is None else to_result(found, pointing.label, opened.image, controls, self._limits)
            score = None if found is None else round(min(max(found.score, 0.0), 1.0), 6)
            results.append({"result": result, "score": score, "model_version": version})
        return {"results": results, "model_version": version}

    def _open(self, task: Mapping[str, Any], key: str, host: Host | None) -> Opened:
        """Fetch and encode a task's image, or find it as it was left after the last click."""
        data = task.get("data")
        name = ("" if host is None else host.url, str(data.get(key) if isinstance(data, Mapping) else ""))
        # A slow image must not keep waiting who points at another one.
        with self._opening[hash(name) % _DOORS]:
            known = self._opened.get(name)
            if known is not None:
                return known
            opened = self.labeler.open(self._fetcher.read(task, key, host))
            if isinstance(opened, Failure):
                raise AutolabelError(f"{opened.stage}: {opened.message}")
            self._opened.put(name, opened)
            return opened

    def _learn_host(self, project: str, hostname: str, token: str) -> None:
        parts = urlsplit(hostname)
        if parts.scheme in ("http", "https") and parts.netloc and not parts.username:
            self._hosts.put(project, Host(hostname.rstrip("/"), token))

    def _host(self, project: str) -> Host | None:
        """Return the server of a project: the configured one, else what the project's setup said."""
        told = self._hosts.get(project)
        if self.options.token:
            aliases = () if told is None else (told.url,)
            return Host(self.options.url, self.options.token, aliases)
        return told if told is not None and told.token else None


def _told_apart(tasks: Sequence[Mapping[str, Any]], images: Sequence[ReadImage]) -> list[ReadImage]:
    """Give images of one path in one request a path each, as failures are known by path."""
    seen: set[str] = set()
    out = []
    for number, (task, image) in enumerate(zip(tasks, images, strict=True)):
        path = image.row.path
        if path in seen:
            path = f"{path} (task {task.get('id')}, {number})"
            failure = image.row.failure and replace(image.row.failure, path=path)
            image = replace(image, row=replace(image.row, path=path, failure=failure))  # noqa: PLW2901
        seen.add(path)
        out.append(image)
    return out

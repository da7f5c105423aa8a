"""The reviewer behind ``autolabel review``: a run in FiftyOne, and people's decisions back into the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any

from autolabel import corrections
from autolabel.connect import Change, OnStep
from autolabel.corrections import Decision
from autolabel.errors import UsageError
from autolabel.ontology import normalise
from autolabel.reviewing import ApplyReport, RefreshOptions, RefreshReport
from autolabel.types import AnnotatedImage, Correction, Image, Review
from autolabel_connectors.fiftyone import app, embedding, patches, views
from autolabel_connectors.fiftyone import dataset as datasets
from autolabel_connectors.fiftyone.database import open_fiftyone
from autolabel_connectors.fiftyone.decisions import Context, Outcome, decide
from autolabel_connectors.fiftyone.documents import FORMAT, Document
from autolabel_connectors.fiftyone.refresh import (
    NOTHING_SETTLED,
    Settled,
    Tally,
    drop_gone,
    fingerprint,
    read_all,
    write,
)
from autolabel_connectors.fiftyone.subjects import Doubts, Files, subjects
from autolabel_connectors.fiftyone.verdicts import SampleVerdicts, read_sample

if TYPE_CHECKING:
    from autolabel.dataset import Run

SOURCE = "fiftyone"


class FiftyOneReviewer:
    """Shows a run in FiftyOne and brings decisions back; both are idempotent."""

    def __init__(self) -> None:
        self._fo: ModuleType | None = None

    def refresh(self, run: Run, options: RefreshOptions, on_step: OnStep) -> RefreshReport:
        """Make the run's dataset, or bring it up to date; what a reviewer left there is never lost."""
        fo = self._open()
        dataset = datasets.find(fo, run)
        created = dataset is None
        if dataset is None:
            dataset = datasets.make(fo, run)
        return self._refresh(fo, dataset, run, options, on_step, created=created)

    def apply(self, run: Run, *, by: str | None, dry_run: bool, on_step: OnStep) -> ApplyReport:
        """Bring what reviewers did in the app into the run as human decisions, and show the run anew."""
        fo = self._open()
        dataset = datasets.find(fo, run)
        if dataset is None:
            raise UsageError(f"{run.path} was never opened for review; open it with: autolabel review")
        patches.collect(fo, dataset)
        pending = [(doc, found) for doc in read_all(dataset) if (found := read_sample(doc)).pending]
        outcomes = _outcomes(run, dataset, pending, by)
        decisions, report = _merged(run, dataset.name, pending, outcomes)
        if dry_run or not pending:
            return report
        corrections.write_decisions(run.path, SOURCE, decisions)
        settled = Settled({str(doc["_id"]): outcome.held for (doc, _), outcome in zip(pending, outcomes, strict=True)})
        from autolabel.dataset import Run as OpenedRun

        noted = datasets.notes(dataset)
        options = RefreshOptions(limit=noted.get("limit"), fetch=bool(noted.get("fetch")))
        self._refresh(fo, dataset, OpenedRun(run.path), options, on_step, created=False, settled=settled)
        return report

    def serve(
        self,
        run: Run,
        *,
        remote: bool,
        address: str | None,
        port: int | None,
        on_ready: Callable[[str], None],
    ) -> int:
        """Open the app until the reviewer is done; returns on how many images decisions wait to be applied."""
        fo = self._open()
        dataset = datasets.find(fo, run)
        assert dataset is not None, "refresh comes first"
        app.serve(fo, dataset, remote=remote, address=address, port=port, on_ready=on_ready)
        patches.collect(fo, dataset)
        return sum(read_sample(document).pending for document in read_all(dataset))

    def delete(self, run: Run) -> str | None:
        """Remove the run's dataset and return its name; None when there was none. The run keeps what was applied."""
        fo = self._open()
        dataset = datasets.find(fo, run)
        if dataset is None:
            return None
        name = str(dataset.name)
        fo.delete_dataset(name)
        return name

    def _open(self) -> ModuleType:
        if self._fo is None:
            self._fo = open_fiftyone()
        return self._fo

    def _refresh(
        self,
        fo: ModuleType,
        dataset: Any,
        run: Run,
        options: RefreshOptions,
        on_step: OnStep,
        *,
        created: bool,
        settled: Settled = NOTHING_SETTLED,
    ) -> RefreshReport:
        patches.collect(fo, dataset)
        noted = datasets.notes(dataset)
        if noted.get("format") != FORMAT:
            datasets.declare(fo, dataset)
        present = fingerprint(run, options.limit, options.fetch)
        if noted.get("fingerprint") == present and noted.get("samples") == len(dataset) and not settled.held:
            return RefreshReport(dataset.name, {"unchanged": len(dataset)})
        doubts, files = Doubts.of(run), Files(run, fetch=options.fetch)
        wanted = _wanted(run, doubts, dataset, options.limit)
        found = subjects(run, files, doubts, wanted)
        total = len(run if wanted is None else wanted)
        tally = write(
            dataset, found, run.ontology, settled=settled, on_step=lambda done: on_step("images", done, total)
        )
        if not tally.seen and files.remote:
            if created:
                fo.delete_dataset(dataset.name)
            raise UsageError(
                f"none of the {len(files.remote)} images is on this machine, and FiftyOne shows local files only; "
                "--fetch copies them into the run folder"
            )
        drop_gone(dataset, tally.seen.union(files.remote, files.failed), tally)
        labels = [label.name for label in run.labels.classes]
        if noted.get("labels") != labels or noted.get("format") != FORMAT:
            views.dress(fo, dataset, run.labels)
        names = views.save_views(fo, dataset, labels, noted.get("views") or {})
        on_step("embeddings", 0, 1)
        warnings = [*_warnings(files, doubts, tally), *embedding.show(fo, dataset, run)]
        datasets.put_notes(
            dataset,
            format=FORMAT,
            # What is kept back today is looked at again next time, so that nothing stays old for good.
            fingerprint=None if tally.kept or files.failed else present,
            samples=len(dataset),
            labels=labels,
            views=names,
            limit=options.limit,
            fetch=options.fetch,
            run=str(run.path.resolve()),
        )
        dataset.reload()
        counts = {name: getattr(tally, name) for name in ("added", "updated", "unchanged", "removed", "kept")}
        return RefreshReport(dataset.name, counts, tuple(warnings))


def _wanted(run: Run, doubts: Doubts, dataset: Any, limit: int | None) -> frozenset[str] | None:
    """Choose the images to show: all, or the ``limit`` most doubtful beside those that are there already."""
    if limit is None:
        return None
    paths = [image.path for image in run.images()]
    there = set(dataset.values("path")) & set(paths)
    rest = sorted((path for path in paths if path not in there), key=doubts.rank)
    return frozenset(there | set(rest[: max(0, limit - len(there))]))


def _outcomes(run: Run, dataset: Any, pending: list[tuple[Document, SampleVerdicts]], by: str | None) -> list[Outcome]:
    wanted = {document["path"] for document, _ in pending}
    effective = {item.image.path: item for item in run if item.image.path in wanted} if wanted else {}
    predicted = {item.image.path: item for item in run.predicted() if item.image.path in wanted} if wanted else {}
    standing = corrections.standing([*run.corrections(), *run.reviews()])
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    labels = run.labels.classes
    taken = {normalise(label.name) for label in labels}
    negatives = [label for label in run.ontology.negatives if normalise(label.name) not in taken]
    token = datasets.notes(dataset)["token"]
    outcomes = []
    for document, found in pending:
        image = _image(document)
        decided = standing.get((image.path, image.id))
        context = Context(
            image=image,
            effective=_by_id(effective.get(image.path), image),
            predicted=_by_id(predicted.get(image.path), image),
            standing=decided.corrections if decided else {},
            labels=labels,
            negatives=negatives,
            source=f"{SOURCE} {token}",
            by=by,
            at=now,
        )
        outcomes.append(decide(found, context))
    return outcomes


def _merged(
    run: Run, name: str, pending: list[tuple[Document, SampleVerdicts]], outcomes: list[Outcome]
) -> tuple[list[Decision], ApplyReport]:
    """Lay new decisions over those that came from here before, and count them."""
    earlier = corrections.read_decisions(run.path, SOURCE)
    regions = {(c.path, c.image_id, c.annotation_id): c for c in earlier if isinstance(c, Correction)}
    reviews = {(r.path, r.image_id): r for r in earlier if isinstance(r, Review)}
    counts, changes, warnings = Counter[str](), list[Change](), list[str]()
    for (document, found), outcome in zip(pending, outcomes, strict=True):
        image = _image(document)
        key = image.path, image.id
        withdrawn = {k for k in regions if k[:2] == key and (found.undo or k[2] in outcome.withdrawn)}
        unknown = outcome.withdrawn - {k[2] for k in withdrawn}
        warnings += [f"{image.path}: nothing to undo on {uid}: it was not decided here" for uid in sorted(unknown)]
        for gone in withdrawn:
            changes.append(Change("undone", image.path, _said(regions.pop(gone))))
        if found.undo and reviews.pop(key, None) is not None:
            changes.append(Change("undone", image.path, "review"))
        for correction in outcome.corrections:
            regions[correction.path, correction.image_id, correction.annotation_id] = correction
            changes.append(Change(correction.action, image.path, _said(correction)))
        if outcome.review is not None:
            reviews[key] = outcome.review
            changes.append(Change({"complete": "reviewed"}.get(outcome.review.state, "skipped"), image.path))
        warnings += [f"{image.path}: {note}" for note in outcome.notes]
    counts.update(change.what for change in changes)
    return [*regions.values(), *reviews.values()], ApplyReport(name, dict(counts), tuple(changes), tuple(warnings))


def _said(correction: Correction) -> str:
    if correction.action == "edited" and correction.label != correction.before_label:
        return f"{correction.before_label} -> {correction.label}"
    return correction.label or correction.before_label or ""


def _image(document: Document) -> Image:
    size = document["metadata"]
    return Image(document["image_id"], document["path"], size["width"], size["height"])


def _by_id(item: AnnotatedImage | None, image: Image) -> dict[str, Any]:
    if item is None or item.image.id != image.id:
        return {}
    return {annotation.id: annotation for annotation in item.annotations}


def _warnings(files: Files, doubts: Doubts, tally: Tally) -> Iterable[str]:
    if tally.kept:
        yield (
            f"{tally.kept} images hold decisions that are not in the run yet, and are shown as the reviewer left them; "
            "autolabel review --apply brings them in"
        )
    if files.remote:
        yield (
            f"{len(files.remote)} images are not on this machine and are left out; --fetch copies them into the run "
            "folder"
        )
    if files.failed:
        yield f"{len(files.failed)} images cannot be read, the first: {next(iter(files.failed.values()))}"
    if doubts.lost:
        yield (
            f"{doubts.lost} label issues are about labels the run does not have (other thresholds, or another file's "
            "labels); autolabel noise judges the run's own"
        )

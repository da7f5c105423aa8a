"""One pass over a locked run folder: what is left to do, batch by batch, each committed before the next."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from autolabel import labeling, shards
from autolabel.errors import ImageError
from autolabel.images import Source, image_id, read_bytes
from autolabel.labeling import Plan, ReadImage
from autolabel.loading import Models
from autolabel.manifest import RunManifest, now, write_atomically
from autolabel.shards import ImageRow
from autolabel.store import Place, RunFolder, totals

Item = TypeVar("Item")
_READERS = 4
_READ_AHEAD = 4
# A batch ends here even when it could hold more images: 100 megapixels are 300 MB of RGB.
_BATCH_PIXELS = 100_000_000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: images done of ``total`` that had to be done, and those that were there already."""

    done: int
    total: int
    already: int
    failed: int
    annotations: int


OnProgress = Callable[[Progress], None]


class Pass:
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
        """The models of this pass; there are none when it only resolves."""
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
        # What is tried again comes last, so that a resumed run forms the same batches of new images.
        pending.sort(key=lambda source: source.path in places)
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
            for batch in read_batches(labeling.read, pending, int(self.manifest.resolved["batch_size"]), pool):
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
            if "detect" in missing:
                detected, notes, brought = labeling.detect(batch, self.models, self.plan)
                if brought is not None:  # the detector's own masks; stored first, as without boxes nobody reads them
                    folder.put(number, "segment", keys.segment, shards.segment_table(brought), shards.StageNotes())
                folder.put(number, "detect", keys.detect, shards.detect_table(detected), notes)
                missing = self._missing_stages(number)
            detected = shards.read_detect(folder.file(number, "detect", keys.detect), class_count)
            if "segment" in missing:
                segmented, notes = labeling.segment(batch, detected, self.models, self.plan.tiles)
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
        keys, plan = self.keys, self.plan
        if all(_known_failure(image.row, places.get(image.row.path)) for image in batch):
            self._advance(len(batch), len(batch), 0)
            return
        rows = [image.row for image in batch]
        done = labeling.run_stages(batch, self.models, plan)
        self.folder.add_shard(
            rows,
            shards.StageNotes(sum(image.seconds for image in batch)),
            {
                f"detect-{keys.detect}": (shards.detect_table(done.detected), done.detect_notes),
                f"segment-{keys.segment}": (shards.segment_table(done.segmented), done.segment_notes),
                f"classify-{keys.classify}": (
                    shards.classify_table(done.classified, len(done.detected.images)),
                    done.classify_notes,
                ),
                f"annotations-{keys.resolve}": (shards.resolve_table(done.resolved), done.resolve_notes),
            },
        )
        unread = sum(row.failure is not None for row in rows)
        failed = {failure.path for failure in done.failures}
        self._advance(len(batch), unread + len(failed), sum(done.resolve_notes.labels.values()))

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
        places = self.folder.index(self.keys)
        self._refresh_replaced(places)
        counts, rejects, labels, timings = totals(self.folder, self.keys, places)
        parts = self._models.parts() if self._models else {}
        loaded = {task: model for task, model in parts.items() if model.loaded}
        infos = {task: model.info for task, model in loaded.items()}
        if loaded:
            timings["load"] = sum(model.load_seconds for model in loaded.values())
        self.manifest = self.manifest.model_copy(
            update={
                "updated": now(),
                "status": "partial" if counts["failed"] else "done",
                "models": {**self.manifest.models, **infos},
                "counts": dict(counts),
                "labels": dict(labels),
                "rejects": dict(rejects),
                "timings": {**self.manifest.timings, **{stage: round(s, 3) for stage, s in timings.items()}},
            }
        )
        self.manifest.write(self.folder.path)
        ledger = [place.failure for _, place in sorted(places.items()) if place.failure is not None]
        lines = [json.dumps(asdict(failure), ensure_ascii=False) + "\n" for failure in ledger]
        write_atomically(self.folder.path / "failures.jsonl", "".join(lines).encode())

    def _refresh_replaced(self, places: Mapping[str, Place]) -> None:
        """Annotations of an image that a newer shard replaced must not be counted: remake those shards' tables."""
        live = _live_rows(places, set())
        for number in self.folder.numbers():
            mine = live.get(number, frozenset())
            if len(mine) < shards.count_rows(self.folder.images_file(number)):
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


def read_batches(
    read: Callable[[Item], ReadImage], items: Iterable[Item], size: int, pool: ThreadPoolExecutor
) -> Iterator[list[ReadImage]]:
    """Read images in order, some ahead of the models, in batches of ``size`` or of as many as memory should hold."""
    coming = iter(items)
    waiting = deque(pool.submit(read, item) for item in itertools.islice(coming, _READ_AHEAD))
    batch: list[ReadImage] = []
    pixels = 0
    while waiting:
        image = waiting.popleft().result()
        waiting.extend(pool.submit(read, item) for item in itertools.islice(coming, 1))
        batch.append(image)
        pixels += image.row.width * image.row.height
        if len(batch) == size or pixels >= _BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch

"""One pass over a locked run folder: what is left to do, batch by batch, each committed before the next."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace

import pyarrow as pa

from autolabel import labeling, resolving, shards
from autolabel.engine import Done, Engine, Facts, Work
from autolabel.errors import ImageError
from autolabel.images import Source, image_id, read_bytes
from autolabel.interrupts import heeded_interrupts
from autolabel.labeling import Known, Plan
from autolabel.manifest import Pace, RunManifest, now, write_atomically
from autolabel.shards import ImageRow
from autolabel.store import Place, RunFolder, totals

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


class Pass:
    """One pass over a locked run folder: first complete the shards there are, then add shards for new images."""

    def __init__(
        self, folder: RunFolder, manifest: RunManifest, plan: Plan, engine: Engine | None, report: OnProgress
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.keys = manifest.keys
        self.plan = plan
        self._engine = engine
        self._report = report
        self._sources: dict[str, Source] = {}
        self._state = Progress(0, 0, 0, 0, 0)
        self._started = time.perf_counter()
        self._busy: defaultdict[str, float] = defaultdict(float)
        self._labelled = 0

    @property
    def engine(self) -> Engine:
        """What labels; there is none when the pass only resolves."""
        if self._engine is None:
            raise RuntimeError("this pass was made without an engine")
        return self._engine

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
        incomplete = {n: missing for n in self.folder.numbers() if (missing := self._missing_stages(n))}
        again = sum(len(live.get(number, ())) for number in incomplete)
        self._state = replace(
            self._state, total=again + len(pending), already=len(places) - again - len(waiting & places.keys())
        )
        self._report(self._state)
        unresolved = [number for number, missing in incomplete.items() if missing == ["annotations"]]
        for number, notes in self._resolve_many(unresolved, places, waiting):
            self._advance(len(live.get(number, ())), 0, sum(notes.labels.values()))
        left = sum(missing != ["annotations"] for missing in incomplete.values())
        if not left:
            self._switch()
        if left or pending:
            works = self._works(incomplete, live, pending)
            with heeded_interrupts() as raise_unheard, closing(self.engine.label(works)) as answers:
                for done in answers:
                    raise_unheard()
                    asked = time.perf_counter()
                    self._commit(done, places, live)
                    self._labelled += len(done.rows)
                    self._busy["write"] += time.perf_counter() - asked
                    self._busy["read"] += done.read_seconds
                    for stage, notes in done.batch.notes.items():
                        self._busy[stage] += notes.seconds
                    left -= done.shard is not None
                    if done.shard is not None and not left:
                        self._switch()
        self._finish()

    def resolve_only(self) -> None:
        """Remake the annotations from the stored proposals."""
        places = self.folder.index()
        numbers = [n for n in self.folder.numbers() if not self.folder.has(n, "annotations", self.keys.resolve)]
        for _ in self._resolve_many(numbers, places):
            pass
        self._switch()
        # What the stages noted is read with what they said.
        self._finish(self.folder.with_failures(places, self.keys))

    def _resolve_many(
        self, numbers: Sequence[int], places: Mapping[str, Place], replaced: Set[str] = frozenset()
    ) -> Iterator[tuple[int, shards.StageNotes]]:
        """Make the annotations of shards that lack nothing else."""
        live = resolving.live_images(places, replaced) if numbers else {}
        return resolving.resolve_folder(self.folder, self.keys, self.plan, live, numbers)

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

    def _works(
        self, incomplete: Mapping[int, list[str]], live: Mapping[int, frozenset[int]], pending: Sequence[Source]
    ) -> Iterator[Work]:
        """List what the models have to do: the stages that shards lack, then new images in batches."""
        for number, missing in incomplete.items():
            if missing != ["annotations"]:
                yield self._incomplete(number, missing, live.get(number, frozenset()))
        size = int(self.manifest.resolved["batch_size"])
        for start in range(0, len(pending), size):
            yield Work.new(pending[start : start + size])

    def _incomplete(self, number: int, missing: Sequence[str], live: frozenset[int]) -> Work:
        """Name a shard's images, and what it holds of them up to the first stage that it lacks."""
        folder, keys = self.folder, self.keys
        rows = shards.read_images(folder.images_file(number))
        class_count = len(self.plan.ontology.all_classes)
        detected = segmented = None
        wanted: set[int] = set(range(len(rows)))
        if "detect" not in missing:
            detected = shards.read_detect(folder.file(number, "detect", keys.detect), class_count)
            wanted = {int(place) for place in detected.images}  # nobody is asked about an image without proposals
            if "segment" not in missing:
                segmented = shards.read_segment(folder.file(number, "segment", keys.segment))
        sources = [self._source(row) if place in live & wanted else None for place, row in enumerate(rows)]
        return Work(rows, tuple(sources), number, Known(detected, segmented))

    def _commit(self, done: Done, places: Mapping[str, Place], live: Mapping[int, frozenset[int]]) -> None:
        """Write what the models said, as soon as it is there."""
        if done.shard is None:
            self._add(done, places)
            return
        number, mine = done.shard, live.get(done.shard, frozenset())
        tables = self._tables(done)
        for stage in done.batch.notes:
            if stage != "resolve":
                key = getattr(self.keys, stage)
                self.folder.put(number, stage, key, *tables[f"{stage}-{key}"])
        self._resolve_and_count(number, mine)

    def _resolve_and_count(self, number: int, live: frozenset[int]) -> None:
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
            labeling.Staged(
                shards.read_detect(folder.file(number, "detect", keys.detect), class_count),
                shards.read_segment(folder.file(number, "segment", keys.segment)),
                shards.read_classify(folder.file(number, "classify", keys.classify), class_count),
            ),
            frozenset(gone | failed),
            self.plan,
        )
        folder.put(number, "annotations", keys.resolve, shards.resolve_table(resolved), notes)
        return notes

    def _add(self, done: Done, places: Mapping[str, Place]) -> None:
        """Commit a batch of new images as a shard."""
        count = len(done.rows)
        if all(_known_failure(row, places.get(row.path)) for row in done.rows):
            self._advance(count, count, 0)
            return
        self.folder.add_shard(done.rows, shards.StageNotes(done.read_seconds), self._tables(done))
        unread = sum(row.failure is not None for row in done.rows)
        failed = {failure.path for failure in done.batch.failures}
        self._advance(count, unread + len(failed), sum(done.batch.notes["resolve"].labels.values()))

    def _tables(self, done: Done) -> dict[str, tuple[pa.Table, shards.StageNotes]]:
        """Name and table of each stage file, with what the stage noted."""
        keys, batch = self.keys, done.batch
        tables = {
            "detect": (keys.detect, shards.detect_table(batch.detected)),
            "segment": (keys.segment, shards.segment_table(batch.segmented)),
            "classify": (keys.classify, shards.classify_table(batch.classified, len(batch.detected.images))),
            "annotations": (keys.resolve, shards.resolve_table(batch.resolved)),
        }
        noted = {**batch.notes, "annotations": batch.notes["resolve"]}
        return {
            f"{stage}-{key}": (table, noted.get(stage, shards.StageNotes())) for stage, (key, table) in tables.items()
        }

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

    def _finish(self, places: Mapping[str, Place] | None = None) -> None:
        places = places if places is not None else self.folder.index(self.keys)
        self._refresh_replaced(places)
        counts, rejects, labels, timings = totals(self.folder, self.keys, places)
        facts = self._engine.facts() if self._engine else Facts()
        if facts.models:
            timings["load"] = facts.load_seconds
        self.manifest = self.manifest.model_copy(
            update={
                "updated": now(),
                "status": "partial" if counts["failed"] else "done",
                "models": {**self.manifest.models, **facts.models},
                "counts": dict(counts),
                "labels": dict(labels),
                "rejects": dict(rejects),
                "timings": {**self.manifest.timings, **{stage: round(s, 3) for stage, s in timings.items()}},
                "pace": self._pace(facts),
            }
        )
        self.manifest.write(self.folder.path)
        ledger = [place.failure for _, place in sorted(places.items()) if place.failure is not None]
        lines = [json.dumps(asdict(failure), ensure_ascii=False) + "\n" for failure in ledger]
        write_atomically(self.folder.path / "failures.jsonl", "".join(lines).encode())

    def _pace(self, facts: Facts) -> Pace | None:
        """Say how fast this pass was, or the last one that called a model."""
        cost = self.manifest.resolved.get("cost_per_hour")
        if not facts.models or not self._labelled:
            last = self.manifest.pace
            return last if last is None or cost is None else last.model_copy(update={"cost_per_hour": cost})
        return Pace(
            images=self._labelled,
            wall_seconds=round(time.perf_counter() - self._started, 3),
            load_seconds=round(facts.load_seconds, 3),
            busy_seconds={stage: round(seconds, 3) for stage, seconds in self._busy.items()},
            forward_seconds={stage: round(seconds, 3) for stage, seconds in facts.forward_seconds.items()},
            engine=str(self.manifest.resolved.get("engine", "auto")),
            processes=facts.processes,
            cost_per_hour=cost,
        )

    def _refresh_replaced(self, places: Mapping[str, Place]) -> None:
        """Annotations of an image that a newer shard replaced must not be counted: remake those shards' tables."""
        standing = Counter(place.shard for place in places.values())
        replaced = [number for number in self.folder.numbers() if standing[number] < self.folder.size(number)[0]]
        for _ in self._resolve_many(replaced, places):
            pass


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

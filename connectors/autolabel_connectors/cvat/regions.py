"""The regions of one task: what the server holds is compared with the run, and what differs is sent.

Regions that a person moved, renamed, marked or deleted, and frames whose job is at review or done, are left alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from autolabel.errors import ServerError
from autolabel.wording import counted
from autolabel_connectors.cvat.client import Row
from autolabel_connectors.cvat.compose import Wanted, marked, part_digest, payload_of
from autolabel_connectors.cvat.convert import group_id
from autolabel_connectors.cvat.errors import TooLargeError, UncertainError
from autolabel_connectors.cvat.frames import Frame, OurTask
from autolabel_connectors.cvat.held import HeldTask, read_task
from autolabel_connectors.cvat.ledger import Intent, write_ledger
from autolabel_connectors.cvat.look import HeldImage, look_over
from autolabel_connectors.cvat.review import Issues
from autolabel_connectors.cvat.sending import Send, Sender
from autolabel_connectors.cvat.session import ROUNDS, Session, named
from autolabel_connectors.merge import Plan, added_id, plan
from autolabel_connectors.receipts import Receipt
from autolabel_connectors.shapes import Region


@dataclass(slots=True)
class Regions:
    """Brings the regions of one task up to date; ``frames`` are those that are ours to change."""

    session: Session
    task: OurTask
    frames: list[Frame]
    wanted: dict[int, Wanted] = field(default_factory=dict)

    def settle(self) -> None:
        """Send and look again until nothing differs; raises ServerError where that never comes."""
        session = self.session
        size = int(self.task.row.get("size") or len(self.task.frames))
        for frame in self.frames:
            wanted = session.composer.compose(session.run[frame.path], frame.number, size)
            self.wanted[frame.number] = wanted
            session.homes |= dict.fromkeys(wanted.annotations, frame.path)
        sender = Sender(session, self.task.id)
        last: ServerError | None = None
        for number in range(ROUNDS):
            held = read_task(session.server, self.task.id)
            sends, kept = self._look(held, sender.answered)
            if session.dry or not sends:
                session.account.counts["regions left as people have them"] += kept
                if not session.dry:
                    write_ledger(session.receipts, self.task.id, [])
                Issues(session, self.task, self.frames, held, self.wanted).settle()
                return
            try:
                sender.send(sends, held)
            except TooLargeError:
                if session.limit_bytes < 2**10:
                    raise
                session.limit_bytes //= 4
            except UncertainError as error:
                last = error
                time.sleep(session.server.pace * min(5.0, 0.1 * 2**number))
        raise ServerError(
            f"{session.server.url} does not keep the regions of task {self.task.id} "
            f"({last or 'they differ each time'}); see its log, then run the same command again"
        )

    def _look(self, held: HeldTask, answered: set[int]) -> tuple[list[Send], int]:
        """Compare with the run; returns what has to be sent, and how many regions stay as people have them."""
        session = self.session
        if shared := sum(held.shared(frame.number) for frame in self.frames):
            session.account.warn(
                f"task {self.task.id}: {counted(shared, 'images')} shown by two jobs and left as they are; make tasks "
                "without overlap"
            )
        look = look_over(held, session.receipts, session.composer, session.homes, answered)
        sends: list[Send] = []
        put: list[Receipt] = []
        drop: list[Receipt] = []
        kept = 0
        for frame in self.frames:
            wanted = self.wanted[frame.number]
            image = look.at(frame.number, wanted.image, session.receipts.of(frame.path), wanted)
            put += image.put
            drop += image.drop
            found = self._plan(frame, held, image)
            kept += found.kept
            sends += self._sends(frame, image, found)
            if not frame.deleted and not held.closed(frame.number):
                sends += [Send("delete", [twin], None) for twin in image.twins]
        if not session.dry:
            known = {(r.path, r.annotation_id): r for f in self.frames for r in session.receipts.of(f.path)}
            session.receipts.put([r for r in put if known.get((r.path, r.annotation_id)) != r])
            session.receipts.drop(drop)
        return sends, kept

    def _plan(self, frame: Frame, held: HeldTask, image: HeldImage) -> Plan:
        source, wanted = self.session.target.source, self.wanted[frame.number]
        own = {added_id(source, str(self.task.id), region.remote_id) for region in image.comparison.added}
        found = plan(
            list(wanted.annotations.values()),
            image.comparison,
            lambda annotation: payload_of(wanted.shapes[annotation.id]),
            own_ids=own | self.session.own_ids,
            closed=frame.deleted or held.closed(frame.number),
        )
        # Somebody changed no outline but an attribute, a flag, the order: theirs, too.
        update = tuple(entry for entry in found.update if not _touched(image, *entry[1:]))
        delete = tuple(entry for entry in found.delete if not _touched(image, *entry))
        touched = len(found.update) - len(update) + len(found.delete) - len(delete)
        return replace(found, update=update, delete=delete, kept=found.kept + touched)

    def _sends(self, frame: Frame, image: HeldImage, found: Plan) -> Iterator[Send]:
        composer, tell = self.session.composer, self.session.account.tell
        wanted, path = self.wanted[frame.number], frame.path
        for annotation in found.create:
            parts = wanted.shapes[annotation.id]
            receipt = composer.receipt(wanted, annotation.id, self.task.id)
            tell("create region", path, named(annotation.label, annotation.score), key=annotation.id)
            yield Send("create", parts, Intent("create", receipt, frozenset(map(part_digest, parts))))
        for annotation, receipt, region in found.update:
            old = [image.shapes[uid] for uid in region.part_ids]
            parts = wanted.shapes[annotation.id]
            intent = Intent(
                "update",
                composer.receipt(wanted, annotation.id, self.task.id, region.part_ids),
                frozenset(map(part_digest, (*old, *parts))),
            )
            tell("update region", path, _change(receipt, intent.receipt), key=annotation.id)
            paired = [_over(*pair) for pair in zip(old, parts, strict=False)]
            yield Send("update", paired, intent)
            if len(parts) > len(old):
                yield Send("create", parts[len(old) :], intent)
            if len(old) > len(parts):
                yield Send("delete", old[len(parts) :], intent)
        for receipt, region in found.delete:
            old = [image.shapes[uid] for uid in region.part_ids]
            tell("delete region", path, named(receipt.label, receipt.score), key=receipt.annotation_id)
            yield Send("delete", old, Intent("delete", receipt, frozenset(map(part_digest, old))))


def _touched(image: HeldImage, receipt: Receipt, region: Region) -> bool:
    """Whether a person changed a region whose label and outline are as we left them."""
    held = [image.shapes[uid] for uid in region.part_ids]
    grouped = any((shape.get("group") or 0) not in (0, group_id(receipt.annotation_id)) for shape in held)
    return grouped or region.origin != "prediction" or marked(receipt.payload, held)


def _over(old: Row, new: Row) -> Row:
    """Write a shape over one on the server; what is not ours to say (flags, order, others' attributes) stays."""
    ours = {item["spec_id"] for item in new["attributes"]}
    others = [item for item in old.get("attributes") or () if item["spec_id"] not in ours]
    kept = others if old["label_id"] == new["label_id"] else []
    flags: Row = {key: old[key] for key in ("occluded", "outside", "z_order") if key in old}
    return {**new, **flags, "id": old["id"], "attributes": [*new["attributes"], *kept]}


def _change(old: Receipt, new: Receipt) -> str:
    if old.label != new.label:
        return f"{old.label} to {new.label}"
    if old.digest != new.digest:
        return f"{new.label}: its outline"
    return f"{new.label}: its score or notes"

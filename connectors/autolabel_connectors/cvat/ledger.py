"""What a push was about to do to a task, written down before it is sent.

A request whose answer never came, or a kill between the server's commit and ours, leaves a question: is what the server
holds our doing or a person's? The ledger answers it. For each annotation it holds what the shapes were and would be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from autolabel.types import Box, Mask
from autolabel_connectors.receipts import Receipt, Receipts

Deed = Literal["create", "update", "delete"]


@dataclass(frozen=True, slots=True)
class Intent:
    """One annotation's part of a request: ``receipt`` as it would be, ``parts`` the digests of old and new shapes.

    Intents of one ``batch`` were sent in one request: the server does all of it or nothing.
    """

    deed: Deed
    receipt: Receipt
    parts: frozenset[str]
    batch: int = 0


Ledger = Mapping[tuple[str, str], Intent]
"""By path and annotation id."""


def read_ledger(receipts: Receipts, task: int) -> Ledger:
    """Read what was intended for a task and is not known to be done."""
    rows = receipts.noted(_key(task)) or []
    return {(row["receipt"]["path"], row["receipt"]["annotation_id"]): _read(row) for row in rows}


def write_ledger(receipts: Receipts, task: int, intents: Iterable[Intent]) -> None:
    """Write down what is about to be sent; nothing clears the ledger."""
    rows = [_row(intent) for intent in intents]
    if rows or receipts.noted(_key(task)):
        receipts.note(_key(task), rows)


def note_answer(receipts: Receipts, task: int, moment: str) -> None:
    """Remember when, by the server's clock, it last answered a change of ours to a task."""
    receipts.note(f"answered:{task}", moment)


def last_answer(receipts: Receipts, task: int) -> str:
    """Return when the server last answered a change of ours to a task; empty where that is not known."""
    return str(receipts.noted(f"answered:{task}") or "")


def _key(task: int) -> str:
    return f"intended:{task}"


def _row(intent: Intent) -> dict[str, Any]:
    receipt = intent.receipt
    mask = receipt.mask
    values: dict[str, Any] = {name: getattr(receipt, name) for name in Receipt.__slots__}
    values |= {"box": list(receipt.box.xyxy), "remote_ids": list(receipt.remote_ids)}
    values |= {"mask": None if mask is None else [mask.height, mask.width, mask.counts.decode("ascii")]}
    return {"deed": intent.deed, "receipt": values, "parts": sorted(intent.parts), "batch": intent.batch}


def _read(row: Mapping[str, Any]) -> Intent:
    values = dict(row["receipt"])
    mask = values["mask"]
    values |= {"box": Box(*values["box"]), "remote_ids": tuple(values["remote_ids"])}
    values |= {"mask": None if mask is None else Mask(mask[0], mask[1], mask[2].encode("ascii"))}
    return Intent(row["deed"], Receipt(**values), frozenset(row["parts"]), int(row["batch"]))

"""Counts in words, with the grammar right for one."""

from __future__ import annotations

import re
from collections.abc import Mapping

_DONE = {
    "create": "created",
    "delete": "deleted",
    "finish": "finished",
    "raise": "raised",
    "remove": "removed",
    "reopen": "reopened",
    "resolve": "resolved",
    "update": "updated",
}
_FOR_ONE = (
    (r"\bwhose tasks (was|were)\b", "whose task was"),
    (r"\bwhose tasks are\b", "whose task is"),
    (r"\bthat are\b", "that is"),
    (r"\bhave them\b", "have it"),
)
"""What follows a noun and has to agree with it."""


def counted(count: int, what: str) -> str:
    """Write ``count`` before ``what``, which names several: "2 regions left as people have them".

    The noun is the first or second word; of one it is written without its s, as is what must agree with it.
    """
    if count != 1:
        return f"{count} {what}"
    words = what.split(" ")
    place = next((n for n, word in enumerate(words[:2]) if re.fullmatch(r"\w+[^s]s", word)), None)
    if place is None or "of" in words[:place]:
        return f"{count} {what}"
    rest = " ".join(words[place + 1 :])
    for pattern, singular in _FOR_ONE:
        rest = re.sub(pattern, singular, rest)
    return " ".join([str(count), *words[:place], words[place][:-1], *([rest] if rest else [])])


def summed(counts: Mapping[str, int], *, done: bool = False) -> str:
    """Write what was ``done``, or would be: "create 1 task and 12 regions, raise 2 issues; 3 regions left …".

    Deeds are named "create region", a verb and one thing; all other names stand as they are.
    """
    deeds: dict[str, list[str]] = {}
    rest: list[str] = []
    for name, count in counts.items():
        verb, _, thing = name.partition(" ")
        if count and verb in _DONE and thing:
            deeds.setdefault(verb, []).append(counted(count, f"{thing}s"))
        elif count:
            rest.append(counted(count, name))
    said = ", ".join(f"{_DONE[verb] if done else verb} {_listed(things)}" for verb, things in deeds.items())
    return "; ".join(part for part in (said, ", ".join(rest)) if part)


def _listed(things: list[str]) -> str:
    *first, last = things
    return f"{', '.join(first)} and {last}" if first else last

"""Filters, search, order and pages of every list, as the server's query parameters ask for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

from .http import ApiError, Request

Getter = Callable[[dict[str, Any]], Any]
PAGE_SIZE = 10


def listed(
    request: Request,
    rows: Iterable[dict[str, Any]],
    *,
    filters: dict[str, Getter],
    search: Sequence[str] = (),
    newest_first: bool = True,
) -> dict[str, Any]:
    """One page ``{count, next, previous, results}`` of rows that are already in their outer form."""
    found = list(rows)
    for name, value in request.query:
        if name in filters:
            found = [row for row in found if same(filters[name](row), value)]
    if words := request.arg("search"):
        found = [row for row in found if any(words.lower() in str(filters[key](row)).lower() for key in search)]
    if expression := request.arg("filter"):
        try:
            logic = json.loads(expression)
        except ValueError as error:
            raise ApiError(400, [f"Wrong filter: {expression!r}"]) from error
        found = [row for row in found if evaluate(logic, row, filters)]
    order = request.arg("sort") or ("-id" if newest_first else "id")
    for key in reversed(order.split(",")):
        name = key.lstrip("-")
        if name in filters:
            found.sort(key=lambda row: sort_key(filters[name](row)), reverse=key.startswith("-"))
    return page(request, found)


def page(request: Request, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Cut out the page asked for; 404 behind the last one."""
    size_text = request.arg("page_size") or ""
    size = len(rows) or 1 if size_text == "all" else int(size_text) if size_text.isdigit() and int(size_text) else 0
    size = size or PAGE_SIZE
    number = request.arg("page") or "1"
    last = max(1, -(-len(rows) // size))
    if not number.isdigit() or not 1 <= int(number) <= last:
        raise ApiError(404, {"detail": "Invalid page."})
    current = int(number)

    def link(target: int) -> str | None:
        if not 1 <= target <= last:
            return None
        query = {**dict(request.query), "page": str(target)}
        if target == 1:
            del query["page"]
        return request.base_url + request.path + ("?" + urlencode(sorted(query.items())) if query else "")

    return {
        "count": len(rows),
        "next": link(current + 1),
        "previous": link(current - 1),
        "results": rows[(current - 1) * size : current * size],
    }


def same(value: Any, text: str) -> bool:
    if isinstance(value, bool):
        return text.lower() in {"true", "1"} if value else text.lower() in {"false", "0"}
    return value is not None and str(value) == text


def sort_key(value: Any) -> tuple[bool, Any]:
    return (value is None, 0 if value is None else value)


def evaluate(logic: Any, row: dict[str, Any], filters: dict[str, Getter]) -> Any:
    """JSON Logic over the filter fields of a row."""
    if not isinstance(logic, dict):
        return logic
    [(operator, operands)] = logic.items()
    if operator == "var":
        if operands not in filters:
            raise ApiError(400, [f"Wrong filter field: {operands!r}"])
        return filters[operands](row)
    terms = operands if isinstance(operands, list) else [operands]
    values = [evaluate(term, row, filters) for term in terms]
    match operator:
        case "and":
            return all(values)
        case "or":
            return any(values)
        case "!":
            return not values[0]
        case "==":
            return values[0] == values[1]
        case "in":
            haystack = values[1] if isinstance(values[1], list) else str(values[1]).lower()
            return (values[0] if isinstance(haystack, list) else str(values[0]).lower()) in haystack
        case "<" | "<=" | ">" | ">=":
            return all(compare(operator, left, right) for left, right in pairwise(values))
    raise ApiError(400, [f"Wrong filter operation: {operator!r}"])


def compare(operator: str, left: Any, right: Any) -> bool:
    if left is None or right is None:
        return False
    if operator.startswith(">"):
        left, right = right, left
    return left <= right if operator.endswith("=") else left < right

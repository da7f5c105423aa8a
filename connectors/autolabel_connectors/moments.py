"""Moments of servers as texts that sort as times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime


def as_moment(text: str) -> str:
    """Write a moment as UTC, ISO 8601 to the microsecond, so that texts sort as times; empty where there is none."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return ""
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def http_moment(text: str) -> str:
    """Write the moment of an HTTP header like `as_moment`; empty where there is none."""
    try:
        return as_moment(parsedate_to_datetime(text).isoformat())
    except ValueError:
        return ""


def later(moment: str, seconds: float) -> str:
    """Return the moment some seconds after one written by `as_moment`."""
    return (datetime.fromisoformat(moment) + timedelta(seconds=seconds)).isoformat(timespec="microseconds")

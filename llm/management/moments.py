"""Moments as typed on the command line."""

from __future__ import annotations

from datetime import UTC, datetime

from django.core.management.base import CommandError


def parse_moment(text: str) -> datetime:
    """An ISO 8601 date or moment, in UTC if it has no zone. Raises CommandError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"“{text}” is not a valid time, e.g. 2026-11-01T00:00Z.") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def format_moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")

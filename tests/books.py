"""Looking into the books from a test."""

from __future__ import annotations

import time
from uuid import UUID

from llm.models import OpenCall, Usage, usage

_PATIENCE_S = 60.0


def find_call(call_id: UUID) -> Usage | None:
    """The call, open or closed."""
    return usage.find_call(call_id, closed=Usage.objects.all(), opened=OpenCall.objects.all())


def get_call(call_id: UUID) -> Usage:
    call = find_call(call_id)
    assert call is not None
    return call


def all_calls() -> list[Usage]:
    """Open and closed ones, oldest first."""
    return usage.merge_calls(list(OpenCall.objects.all()), Usage.objects.all(), newest_first=False)


def closed_usage(count: int = 1) -> list[Usage]:
    """That many usage rows, oldest first, once no call is open any more. Fails if there are more or fewer."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        open_calls = OpenCall.objects.count()
        rows = list(Usage.objects.order_by("id"))
        if len(rows) == count and not open_calls:
            return rows
        if time.monotonic() > deadline or len(rows) > count:
            found = [(str(row.id), row.status) for row in rows]
            raise AssertionError(f"expected {count} closed calls, found {found}, and {open_calls} open ones")
        time.sleep(0.01)


def all_closed_usage() -> list[Usage]:
    """The usage rows, oldest first, however many they are, once no call is open any more."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if not OpenCall.objects.exists():
            return list(Usage.objects.order_by("id"))
        time.sleep(0.01)
    raise AssertionError("there is an open call")

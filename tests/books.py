"""Looking into the books from a test."""

from __future__ import annotations

import time

from llm.models import Usage

_PATIENCE_S = 60.0


def closed_usage(count: int = 1) -> list[Usage]:
    """That many usage rows, oldest first, once none of them is open any more. Fails if there are more or fewer."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        rows = list(Usage.objects.order_by("id"))
        if len(rows) == count and all(row.status != "open" for row in rows):
            return rows
        if time.monotonic() > deadline or len(rows) > count:
            raise AssertionError(f"expected {count} closed rows, found {[(str(row.id), row.status) for row in rows]}")
        time.sleep(0.01)


def all_closed_usage() -> list[Usage]:
    """The usage rows, oldest first, however many they are, once none of them is open any more."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        rows = list(Usage.objects.order_by("id"))
        if all(row.status != "open" for row in rows):
            return rows
        time.sleep(0.01)
    raise AssertionError("there is an open row")

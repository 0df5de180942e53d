"""Which windows a batch will want: those that its keys' latest calls wanted, as a rule.

What binds a key, the database says in a batch's first trip; foresight is good for locking the windows in the very same
trip. It decides nothing: where it is wrong the batch begins anew without it, so that locks are taken in their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from llm.books.operations import OpenCall

WindowKey = tuple[int, datetime]
"""A limit's id, and where the window begins."""


class WantedWindow(NamedTuple):
    """A window of the current period of a limit. ends_at: None where that has no end."""

    key: WindowKey
    ends_at: datetime | None


class UnforeseenWindowsError(Exception):
    """Windows are wanted beside those that are locked already."""


class WindowForesight:
    """One of a process; what one of its threads misses of another's costs a trip, no more."""

    MOST_KEYS = 10_000

    def __init__(self) -> None:
        self._by_key: dict[int, Sequence[WantedWindow]] = {}
        self._has_limits = False

    def windows_of(self, opens: Sequence[OpenCall]) -> set[WindowKey] | None:
        """Windows that exist; None where a key is new or one of its periods is over, or where nobody has limits."""
        if not self._has_limits:
            return None
        now = datetime.now(UTC)
        foreseen: set[WindowKey] = set()
        for each in opens:
            windows = self._by_key.get(each.key_id)
            if windows is None or any(window.ends_at is not None and window.ends_at <= now for window in windows):
                return None
            foreseen.update(window.key for window in windows)
        return foreseen

    def learn(self, opens: Sequence[OpenCall], wanted: Mapping[int, Sequence[WantedWindow]]) -> None:
        """wanted: what the opens did want, by id of the key. It is committed."""
        if len(self._by_key) > self.MOST_KEYS:
            self._by_key.clear()
            self._has_limits = False
        for each in opens:
            self._by_key[each.key_id] = wanted.get(each.key_id, ())
        self._has_limits = self._has_limits or bool(wanted)

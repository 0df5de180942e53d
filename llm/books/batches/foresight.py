"""Which windows a batch will want: those that its keys' latest calls wanted, as a rule.

What binds a key, the database says in a batch's first trip; foresight is good for locking the windows in the very same
trip. It decides nothing: where it is wrong the batch begins anew without it, so that locks are taken in their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from llm.books.operations import CloseCall, OpenCall

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

    MAX_KEYS = 10_000

    def __init__(self) -> None:
        self._by_key: dict[int, Sequence[WantedWindow]] = {}
        self._accounts: set[int] = set()

    def windows_of(self, opens: Sequence[OpenCall], closes: Sequence[CloseCall]) -> set[WindowKey] | None:
        """What to lock beside what the closes hold; empty where that is all.

        None where a guess is no good: where a key is new or one of its periods is over, and where nobody has limits.
        """
        now = datetime.now(UTC)
        foreseen: set[WindowKey] = set()
        for each in opens:
            windows = self._by_key.get(each.key_id)
            if windows is None or any(window.ends_at is not None and window.ends_at <= now for window in windows):
                return None
            foreseen.update(window.key for window in windows)
        has_limits = foreseen or any(close.account_id in self._accounts for close in closes)
        return foreseen if has_limits else None

    def learn(self, opens: Sequence[OpenCall], wanted: Mapping[int, Sequence[WantedWindow]]) -> None:
        """wanted: what the opens did want, by id of the key."""
        if len(self._by_key) > self.MAX_KEYS:
            self._by_key.clear()
            self._accounts.clear()
        for each in opens:
            if each.ask is None:
                continue
            self._by_key[each.key_id] = wanted.get(each.key_id, ())
            if each.key_id in wanted:
                self._accounts.add(each.account_id)

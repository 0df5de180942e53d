"""Which windows a batch will need: usually those of its keys' latest calls.

The limits that apply to a key are read in a batch's first round trip; with foresight the windows are locked in that
same trip. It decides nothing: if it is wrong, the batch starts again without it, so that locks are taken in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from llm.books.operations import CloseCall, OpenCall

WindowKey = tuple[int, datetime]
"""A limit's id, and the start of the window."""


class WantedWindow(NamedTuple):
    """A window of a limit's current period. ends_at: None for a period without an end."""

    key: WindowKey
    ends_at: datetime | None


class UnforeseenWindowsError(Exception):
    """Other windows are needed than those locked so far."""


class WindowForesight:
    """One per process; if one thread misses what another has learned, it costs a round trip and no more."""

    MAX_KEYS = 10_000

    def __init__(self) -> None:
        self._by_key: dict[int, Sequence[WantedWindow]] = {}
        self._accounts: set[int] = set()

    def windows_of(self, opens: Sequence[OpenCall], closes: Sequence[CloseCall]) -> set[WindowKey] | None:
        """The windows to lock beside those held by the closes; empty if there are no others.

        None if no guess is possible: for a new key, an ended period, or keys without limits.
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
        """wanted: what the opens needed, by id of the key."""
        if len(self._by_key) > self.MAX_KEYS:
            self._by_key.clear()
            self._accounts.clear()
        for each in opens:
            if each.ask is None:
                continue
            self._by_key[each.key_id] = wanted.get(each.key_id, ())
            if each.key_id in wanted:
                self._accounts.add(each.account_id)

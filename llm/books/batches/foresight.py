"""Which windows a batch will need: usually those of its keys' latest calls.

The limits that apply to a key are read in a batch's first round trip; with foresight the windows are locked in that
same trip. It decides nothing: if it is wrong, the batch starts again without it, so that locks are taken in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple

from llm.books.operations import CloseCall, OpenCall
from llm.limits.end_user_windows import EndUserNeed

WindowKey = tuple[int, datetime] | tuple[int, datetime, str]
"""A limit's id, and where the window begins; of a limit for each end user also the window's label."""


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
        # Of keys with limits for each end user; of others, who their end users are plays no part.
        self._by_need: dict[tuple[int, str], Mapping[EndUserNeed, WantedWindow]] = {}
        self._keys_with_end_users: set[int] = set()
        self._accounts: set[int] = set()

    def windows_of(self, opens: Sequence[OpenCall], closes: Sequence[CloseCall]) -> set[WindowKey] | None:
        """The windows to lock beside those held by the closes; empty if there are no others.

        None if no guess is possible: for a new key, an ended period, or keys without limits.
        """
        now = datetime.now(UTC)
        foreseen: set[WindowKey] = set()
        for each in opens:
            windows = self._windows_of(each)
            if windows is None or any(window.ends_at is not None and window.ends_at <= now for window in windows):
                return None
            foreseen.update(window.key for window in windows)
        has_limits = foreseen or any(close.account_id in self._accounts for close in closes)
        return foreseen if has_limits else None

    def labels_of(self, opens: Sequence[OpenCall]) -> dict[EndUserNeed, str]:
        """Which windows of end users `windows_of` has in them."""
        labels: dict[EndUserNeed, str] = {}
        for each in opens:
            for need, window in self._by_need.get((each.key_id, each.end_user), {}).items():
                labels[need] = str(window.key[-1])
        return labels

    def _windows_of(self, operation: OpenCall) -> Sequence[WantedWindow] | None:
        windows = self._by_key.get(operation.key_id)
        if windows is None or operation.key_id not in self._keys_with_end_users:
            return windows
        of_end_user = self._by_need.get((operation.key_id, operation.end_user))
        return None if of_end_user is None else [*windows, *of_end_user.values()]

    def learn(
        self,
        opens: Sequence[OpenCall],
        wanted: Mapping[int, Sequence[WantedWindow]],
        of_end_users: Mapping[EndUserNeed, WantedWindow] = MappingProxyType({}),
    ) -> None:
        """wanted: what the opens did want, by id of the key. of_end_users: of limits for each of them."""
        if len(self._by_key) > self.MAX_KEYS or len(self._by_need) > self.MAX_KEYS:
            for known in (self._by_key, self._by_need, self._keys_with_end_users, self._accounts):
                known.clear()
        self._learn_end_users(opens, of_end_users)
        for each in opens:
            if each.ask is None:
                continue
            self._by_key[each.key_id] = wanted.get(each.key_id, ())
            if each.key_id in wanted or each.key_id in self._keys_with_end_users:
                self._accounts.add(each.account_id)

    def _learn_end_users(self, opens: Sequence[OpenCall], windows: Mapping[EndUserNeed, WantedWindow]) -> None:
        by_need: dict[tuple[int, str], dict[EndUserNeed, WantedWindow]] = {}
        for need, window in windows.items():
            by_need.setdefault((need.key_id, need.end_user), {})[need] = window
        self._by_need |= by_need
        asked = {each.key_id for each in opens if each.ask is not None}
        self._keys_with_end_users -= asked
        self._keys_with_end_users |= {need.key_id for need in windows}

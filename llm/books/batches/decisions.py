"""What a batch does to its rows and windows, based on what its transaction found. No I/O of its own."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from llm.books.batches.foresight import WantedWindow, WindowKey
from llm.books.batches.session import BatchSnapshot, HeldClaim, moment_of
from llm.books.claims import key_of, lifetime
from llm.books.operations import CloseCall, OpenCall, Opened, Refused, Repeated, Result, Stale
from llm.db.json_rows import Row
from llm.enums import AccountStatus, CallOutcome
from llm.limits.admission import Admission, BindingWindow, LimitRow, Window, admit, units_used
from llm.limits.end_user_windows import EndUserNeed
from llm.limits.periods import period_of
from llm.limits.rows import limit_of, window_of


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key and its account as found by the batch."""

    id: int
    account_id: int
    revoked_at: datetime | None
    expires_at: datetime | None
    allowed_models: Sequence[str]
    account_status: str
    time_zone: str

    @classmethod
    def of(cls, row: Row) -> KeyState:
        revoked_at, expires_at = (None if value is None else moment_of(value) for value in row[2:4])
        names = json.loads(row[4]) if isinstance(row[4], str) else row[4]
        allowed = names if isinstance(names, list) else []
        return cls(row[0], row[1], revoked_at, expires_at, allowed, row[5], row[6])

    def refusal(self, operation: OpenCall, now: datetime) -> str | None:
        if self.account_id != operation.account_id:
            return "unknown"
        if self.revoked_at is not None and self.revoked_at <= now:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        if self.account_status != AccountStatus.ACTIVE:
            return "account"
        return "model" if self.allowed_models and operation.model not in self.allowed_models else None


class BatchDecisions:
    """Keys, limits and windows of one batch. `results`: by operation, those decided before the write.

    end_user_windows: those of limits for each end user that are wanted, once they have a place.

    released: calls that surely did nothing. dropped_claims: of which calls the claims go, for good or for newer ones.
    """

    def __init__(self, situation: BatchSnapshot, *, released: Collection[UUID] = ()) -> None:
        self.now = situation.now
        self.results: dict[int, Result] = {}
        self.holds: dict[int, Sequence[tuple[int, int]]] = {}
        self.dropped_claims = set(released)
        self._claims = dict(situation.claims)
        self._version = situation.catalog_version
        self._keys = {row[0]: KeyState.of(row) for row in situation.key_rows}
        self._limits = [limit_of(row) for row in situation.limit_rows]
        self._windows: dict[int, Window] = {}
        self._by_start: dict[WindowKey, Window] = {}
        self._wanted_by_key: dict[int, Sequence[WantedWindow]] = {}
        self._needs: dict[tuple[int, str], Sequence[EndUserNeed]] = {}
        self._labels: Mapping[EndUserNeed, str] = {}
        self.end_user_windows: dict[EndUserNeed, WantedWindow] = {}

    # --- Which windows are needed -------------------------------------------------------------------------------------

    def end_user_needs(self, opens: Iterable[OpenCall]) -> list[EndUserNeed]:
        """What these opens need of limits for each end user: nothing as a rule. Each once, in order of arrival."""
        if not any(limit.is_per_end_user for limit in self._limits):
            return []
        return list(dict.fromkeys(need for operation in opens for need in self._needs_of(operation)))

    def place_end_users(self, labels: Mapping[EndUserNeed, str]) -> None:
        """labels: of the windows that they have, for all needs. Raises KeyError for one that is missing."""
        self._labels = labels
        for need in (each for needs in self._needs.values() for each in needs):
            limit = next(limit for limit in self._limits if limit.id == need.limit_id)
            period = period_of(limit.per, self._keys[need.key_id].time_zone, self.now)
            key = (need.limit_id, need.starts_at, labels[need])
            self.end_user_windows[need] = WantedWindow(key, period.ends_at)

    def named_by(self) -> dict[WindowKey, int]:
        """By which key, of the windows that belong to one named end user alone."""
        windows = self.end_user_windows.items()
        return {each.key: need.key_id for need, each in windows if need.end_user and each.key[-1] == need.end_user}

    def _needs_of(self, operation: OpenCall) -> Sequence[EndUserNeed]:
        key = self._keys.get(operation.key_id)
        if key is None or operation.ask is None:
            return ()
        who = (key.id, operation.end_user)
        found = self._needs.get(who)
        if found is None:
            found = self._needs[who] = [
                EndUserNeed(limit.id, period_of(limit.per, key.time_zone, self.now).starts_at, *who)
                for limit in self._limits
                if limit.is_per_end_user and limit.binds(account_id=key.account_id, key_id=key.id)
            ]
        return found

    def wanted_windows(self, opens: Iterable[OpenCall]) -> dict[int, Sequence[WantedWindow]]:
        """Those that bind these opens, by id of the key; keys without any are left out. Those of end users aren't
        among them.
        """
        return {operation.key_id: windows for operation in opens if (windows := self._wanted(operation))}

    def take_windows(self, rows: Iterable[Row]) -> None:
        for row in rows:
            window = window_of(row)
            self._windows[window.id] = self._by_start[_key_of(window)] = window

    def missing_windows(self, wanted: Iterable[WindowKey]) -> set[WindowKey]:
        return {key for key in wanted if key not in self._by_start}

    def _wanted(self, operation: OpenCall) -> Sequence[WantedWindow]:
        key = self._keys.get(operation.key_id)
        if not self._limits or key is None or operation.ask is None:
            return ()
        found = self._wanted_by_key.get(key.id)
        if found is None:
            found = self._wanted_by_key[key.id] = [
                self._wanted_of(limit, key)
                for limit in self._limits
                if not limit.is_per_end_user and limit.binds(account_id=key.account_id, key_id=key.id)
            ]
        return found

    def _wanted_of(self, limit: LimitRow, key: KeyState) -> WantedWindow:
        period = period_of(limit.per, key.time_zone, self.now)
        return WantedWindow((limit.id, period.starts_at), period.ends_at)

    # --- Closes come first: opens of the same batch may take what they release ---------------------------------------

    def release(self, close: CloseCall, holds: Sequence[tuple[int, int]]) -> None:
        """Convert what the call held into what it has used."""
        for window_id, held in holds:
            window = self._windows.get(window_id)
            if window is not None:
                window.add(used=used_by(close, window.limit.metric, held), held=-held)

    # --- Opens, in order of arrival -----------------------------------------------------------------------------------

    def judge(self, operation: OpenCall) -> bool:
        """Whether to write the row; if not, `results` says why."""
        result = self._refusal(operation) or self._admission(operation)
        self.results[id(operation)] = result
        if not isinstance(result, Opened):
            return False
        self._take_claim(operation)
        return True

    def time_zone_of(self, operation: OpenCall) -> str:
        key = self._keys.get(operation.key_id)
        return "UTC" if key is None else key.time_zone

    def _refusal(self, operation: OpenCall) -> Refused | Repeated | Stale | Opened | None:
        if operation.is_stillborn:
            return Opened(self.now)
        key = self._keys.get(operation.key_id)
        if key is None:
            return Refused("unknown")
        if (refusal := key.refusal(operation, self.now)) is not None:
            return Refused(refusal)
        if (repeated := self._repeated(operation)) is not None:
            return repeated
        return None if self._is_current(operation) else Stale(self.now, self._version)

    def _repeated(self, operation: OpenCall) -> Repeated | None:
        """If another request has claimed the same idempotency key and still holds it."""
        key = key_of(operation)
        held = None if key is None else self._claims.get(key)
        if held is None or operation.claim is None:
            return None
        is_over = held.claimed_at <= self.now - lifetime() and not held.is_in_flight
        if is_over or held.call_id == operation.id or held.call_id in self.dropped_claims:
            return None
        return Repeated(held.call_id, held.content_hash == operation.claim.content_hash, held.is_in_flight)

    def _take_claim(self, operation: OpenCall) -> None:
        key = key_of(operation)
        if key is None or operation.claim is None:
            return
        former = self._claims.get(key)
        if former is not None and former.call_id != operation.id:
            self.dropped_claims.add(former.call_id)
        self._claims[key] = HeldClaim(operation.claim.content_hash, operation.id, self.now, is_in_flight=True)

    def _is_current(self, operation: OpenCall) -> bool:
        if operation.catalog_version != self._version:
            return False
        if operation.price_from is not None and self.now < operation.price_from:
            return False
        return operation.price_until is None or self.now < operation.price_until

    def _admission(self, operation: OpenCall) -> Opened | Refused:
        wanted = self._wanted(operation)
        if self._needs:
            wanted = [*wanted, *(self.end_user_windows[need] for need in self._needs_of(operation))]
        if not wanted or operation.ask is None:
            return Opened(self.now)
        binding = [BindingWindow(self._by_start[each.key], each.ends_at) for each in wanted]
        admission: Admission = admit(binding, operation.ask(), now=self.now)
        if admission.exceeded is not None:
            return Refused("limit", admission.exceeded, admission.limits)
        self.holds[id(operation)] = admission.holds
        return Opened(self.now, admission.max_output_tokens, admission.limits)

    @property
    def windows(self) -> Collection[Window]:
        """Including what the batch adds; without those that were locked on a wrong guess."""
        wanted = {each.key for windows in self._wanted_by_key.values() for each in windows}
        wanted |= {each.key for each in self.end_user_windows.values()}
        return [window for key, window in self._by_start.items() if window.has_changed or key in wanted]


def _key_of(window: Window) -> WindowKey:
    key = (window.limit.id, window.starts_at)
    return (*key, window.end_user) if window.end_user else key


def holds_of(value: Any) -> Sequence[tuple[int, int]]:
    """A row's `holds` as raw SQL returns them: a list, or its JSON text."""
    holds = json.loads(value) if isinstance(value, str) else value
    return holds or ()


def used_by(close: CloseCall, metric: str, held: int) -> int:
    return units_used(
        metric,
        held,
        status=close.status,
        total_tokens=close.counts.total_tokens,
        cost_pico=close.cost_pico,
        is_known=not close.is_disputed and close.outcome != CallOutcome.LOST,
    )

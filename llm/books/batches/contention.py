"""Accounts whose rows are locked by someone, for example a forgotten psql: they are set aside so that others don't
wait.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

SHORT_LOCK_MS = 100
"""How long to wait for a lock known to be held."""
_SHORTEST_LOCK_MS = 10
_FEW = 3
"""This many locked accounts are waited for that long each; with more, the sum would hurt the others."""

_FIRST_S = 1.0
_LONGEST_S = 8.0
_FORGET_AFTER_S = 60.0


@dataclass(slots=True)
class _Lockout:
    until: float
    length_s: float


class ContendedAccounts:
    """Changed only by the writer's thread; other threads may call `is_out`."""

    def __init__(self) -> None:
        self._lockouts: dict[int, _Lockout] = {}

    @property
    def lock_timeout_ms(self) -> int:
        return SHORT_LOCK_MS if len(self._lockouts) < _FEW else _SHORTEST_LOCK_MS

    def is_out(self, account_id: int) -> bool:
        """Whether the account is currently set aside."""
        lockout = self._lockouts.get(account_id)
        return lockout is not None and time.monotonic() < lockout.until

    def is_suspect(self, account_id: int) -> bool:
        """Whether it was set aside recently: its operations are written apart from the others' until one succeeds."""
        return account_id in self._lockouts

    def lock_out(self, account_id: int) -> float:
        """Set it aside, for twice as long as the last time; returns the seconds."""
        former = self._lockouts.get(account_id)
        length_s = _FIRST_S if former is None else min(former.length_s * 2, _LONGEST_S)
        self._lockouts[account_id] = _Lockout(time.monotonic() + length_s, length_s)
        return length_s

    def release(self, account_id: int) -> None:
        self._lockouts.pop(account_id, None)

    def forget_old(self) -> None:
        """Drop accounts that had no operations since."""
        before = time.monotonic() - _FORGET_AFTER_S
        for account_id in [key for key, lockout in self._lockouts.items() if lockout.until < before]:
            del self._lockouts[account_id]

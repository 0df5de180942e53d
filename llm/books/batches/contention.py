"""Accounts whose rows somebody sits on, a forgotten psql for example: they are left alone so that others don't wait."""

from __future__ import annotations

import time
from dataclasses import dataclass

SHORT_LOCK_MS = 100
"""How long a lock is waited for that somebody else has been seen to sit on."""
_SHORTEST_LOCK_MS = 10
_FEW = 3
"""So many locked accounts are waited for that long each; where there are more, the sum of it would hurt the others."""

_FIRST_S = 1.0
_LONGEST_S = 8.0
_FORGET_AFTER_S = 60.0


@dataclass(slots=True)
class _Lockout:
    until: float
    length_s: float


class ContendedAccounts:
    """Changed by the writer's thread alone; others may ask `is_out`."""

    def __init__(self) -> None:
        self._lockouts: dict[int, _Lockout] = {}

    @property
    def lock_timeout_ms(self) -> int:
        return SHORT_LOCK_MS if len(self._lockouts) < _FEW else _SHORTEST_LOCK_MS

    def is_out(self, account_id: int) -> bool:
        """Whether nothing of the account is to be tried now."""
        lockout = self._lockouts.get(account_id)
        return lockout is not None and time.monotonic() < lockout.until

    def is_suspect(self, account_id: int) -> bool:
        """Whether it was locked out lately: what it asks for goes apart from the others' until a try succeeds."""
        return account_id in self._lockouts

    def lock_out(self, account_id: int) -> float:
        """Leave it alone, twice as long as the last time; how many seconds that is."""
        former = self._lockouts.get(account_id)
        length_s = _FIRST_S if former is None else min(former.length_s * 2, _LONGEST_S)
        self._lockouts[account_id] = _Lockout(time.monotonic() + length_s, length_s)
        return length_s

    def release(self, account_id: int) -> None:
        self._lockouts.pop(account_id, None)

    def forget_old(self) -> None:
        """Of those nobody has asked for since, nothing is known any more."""
        before = time.monotonic() - _FORGET_AFTER_S
        for account_id in [key for key, lockout in self._lockouts.items() if lockout.until < before]:
            del self._lockouts[account_id]

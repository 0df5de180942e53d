"""Whose window a call uses of a limit for each end user: their own, as long as their key has named few enough.

A key may name LLM_LIMIT_END_USERS in each period of such a limit; those that it names after that share one window, and
so do its calls that name nobody. So who makes names up gets no more of the limit with each, and fills no table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

NAMELESS = "-"
"""The window of calls that name nobody. Hashes of names are hex digits."""
_SHARED = "*"


def named_end_user(label: str) -> str | None:
    """Whose window has this label: a hash, "" for calls that name nobody, None for those who share one."""
    if label == NAMELESS:
        return ""
    return None if label.startswith(_SHARED) else label


class EndUserNeed(NamedTuple):
    """What a call needs of a limit for each end user. end_user: the hash, "" for nobody."""

    limit_id: int
    starts_at: datetime
    key_id: int
    end_user: str

    @property
    def own_label(self) -> str:
        return self.end_user or NAMELESS

    @property
    def shared_label(self) -> str:
        """Of the window of all that the key has named too late."""
        return f"{_SHARED}{self.key_id}"


class FoundEndUser(NamedTuple):
    """What there is. has_own: a window of their own. named: by their key, in this period, up to the bound."""

    has_own: bool
    named: int


def choose_labels(
    needs: Sequence[EndUserNeed], found: Mapping[EndUserNeed, FoundEndUser], *, limit: int
) -> dict[EndUserNeed, str]:
    """The window of each, by its label. limit: how many end users a key may name."""
    labels: dict[EndUserNeed, str] = {}
    taken: Counter[tuple[int, datetime, int]] = Counter()
    for need in needs:
        of_key = need[:3]
        has_own = found[need].has_own or not need.end_user
        if not has_own and found[need].named + taken[of_key] < limit:
            has_own = True
            taken[of_key] += 1
        labels[need] = need.own_label if has_own else need.shared_label
    return labels

"""Places for requests that Django serves, divided by what their callers have proven.

Staff may have every place. Callers with API keys and strangers have half each, and together leave a quarter to staff:
however many of them come, staff find a place. No session, token, key or address has more than half of its kind's
places. A place that becomes free goes to staff first, then to keys, then to strangers, in the order of arrival.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from enum import Enum, StrEnum

WAITING_PER_PLACE = 16


class Standing(StrEnum):
    """What a caller has proven, strongest first."""

    STAFF = "staff"
    KEY = "key"
    STRANGER = "stranger"


@dataclass(frozen=True, slots=True)
class Claimant:
    """The caller of a request. name: the session, token, key or address that may not take all places."""

    standing: Standing
    name: str


class PlaceRefusal(Enum):
    """all: too many of its kind; own: too many of its own."""

    ALL = "all"
    OWN = "own"


class Places:
    def __init__(self, number: int, *, patience_s: float) -> None:
        half = max(1, number // 2)
        self._number = number
        self._shares = {Standing.STAFF: number, Standing.KEY: half, Standing.STRANGER: half}
        # A single place is for everyone: staff only get it first.
        self._left_to_staff = min(number - 1, max(1, number // 4))
        self._patience_s = patience_s
        self._taken = Counter[Standing]()
        self._taken_by = Counter[Claimant]()
        self._waiting: dict[Standing, dict[asyncio.Future[None], Claimant]] = {each: {} for each in Standing}
        self._waiting_of = Counter[Claimant]()

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    async def enter(self, claimant: Claimant) -> PlaceRefusal | None:
        """Take a place, or return why not: none became free in time, or too many are waiting."""
        if self._has_place_for(claimant):
            self._take(claimant)
            return None
        if self._has_queue_for(claimant) and await self._wait(claimant):
            return None
        return PlaceRefusal.OWN if self._taken_by[claimant] >= self._own_share(claimant) else PlaceRefusal.ALL

    def leave(self, claimant: Claimant) -> None:
        self._taken[claimant.standing] -= 1
        _lower(self._taken_by, claimant)
        self._admit()

    def _has_place_for(self, claimant: Claimant) -> bool:
        standing = claimant.standing
        number = self._number if standing is Standing.STAFF else self._number - self._left_to_staff
        of_others = 0 if standing is Standing.STAFF else self._taken[Standing.KEY] + self._taken[Standing.STRANGER]
        return (
            self._taken.total() < self._number
            and of_others < number
            and self._taken[standing] < self._shares[standing]
            and self._taken_by[claimant] < self._own_share(claimant)
        )

    def _own_share(self, claimant: Claimant) -> int:
        return max(1, self._shares[claimant.standing] // 2)

    def _has_queue_for(self, claimant: Claimant) -> bool:
        limit, own_limit = self._shares[claimant.standing], self._own_share(claimant)
        return (
            len(self._waiting[claimant.standing]) < limit * WAITING_PER_PLACE
            and self._waiting_of[claimant] < own_limit * WAITING_PER_PLACE
        )

    def _take(self, claimant: Claimant) -> None:
        self._taken[claimant.standing] += 1
        self._taken_by[claimant] += 1

    async def _wait(self, claimant: Claimant) -> bool:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting[claimant.standing]
        queue[turn] = claimant
        self._waiting_of[claimant] += 1
        try:
            async with asyncio.timeout(self._patience_s):
                await turn
        except TimeoutError:
            # The place may have been granted at the same moment.
            return turn.done() and not turn.cancelled()
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(claimant)
            raise
        finally:
            queue.pop(turn, None)
            _lower(self._waiting_of, claimant)
        return True

    def _admit(self) -> None:
        """Admits every waiter that can have a place now."""
        for queue in self._waiting.values():
            for turn, claimant in list(queue.items()):
                if self._taken.total() >= self._number:
                    return
                if not turn.done() and self._has_place_for(claimant):
                    self._take(claimant)
                    queue.pop(turn)
                    turn.set_result(None)


def _lower(counter: Counter[Claimant], claimant: Claimant) -> None:
    """Deletes zeros: there is no end of strangers' names."""
    counter[claimant] -= 1
    if counter[claimant] <= 0:
        del counter[claimant]

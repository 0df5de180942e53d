"""How much of a process's memory request bodies may take: in total, by account and by key.

A body counts from its arrival until both its caller and its call are done with it, including what a parser makes of it.
So the bodies that a process holds at any time are bounded, whoever sends them. Announcing a length takes nothing.

No account may hold more than is left free: a single one gets half of the room, a second one a quarter, and so on. So
however long some hold theirs, another account always finds room. Small bodies have an additional room of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable

from llm.bodies.trimming import WORTH_TRIMMING_BYTES, trim_soon
from llm.errors import Overloaded

# Approximate size of one parsed value: an object, its slot in a list or dictionary, and its key.
VALUE_BYTES = 100
SMALL_BODY_BYTES = 64 * 1024
_SMALL_PART = 8
"""The room of small bodies, as a fraction of the other one."""

_FULL = "This gateway process has no memory left for another request body. Try again shortly."
_OWN_FULL = "The in-flight requests of this {} have used up its share of memory for request bodies. Try again shortly."


class Room:
    """Bytes that claimants share: each may hold as much as it leaves free, half of what the others don't hold."""

    def __init__(self, max_bytes: int, *, of: str = "account") -> None:
        self._max_bytes = max_bytes
        self._own_full = _OWN_FULL.format(of)
        self._by_claimant: Counter[Hashable] = Counter()
        self.taken = 0
        self.peak_bytes = 0

    def require(self, claimant: Hashable, size: int) -> None:
        """Raises Overloaded if there is no room for this many more bytes."""
        own = self._by_claimant.get(claimant, 0)
        free = self._max_bytes - self.taken - size
        if own + size > free:
            raise Overloaded(self._own_full if own or self.taken == 0 else _FULL)

    def take(self, claimant: Hashable, size: int) -> None:
        """Raises Overloaded, and takes nothing then."""
        self.require(claimant, size)
        self._by_claimant[claimant] += size
        self.taken += size
        self.peak_bytes = max(self.peak_bytes, self.taken)

    def give_back(self, claimant: Hashable, size: int) -> None:
        self.taken -= size
        self._by_claimant[claimant] -= size
        if not self._by_claimant[claimant]:
            del self._by_claimant[claimant]
        if size >= WORTH_TRIMMING_BYTES:
            trim_soon()


class BodyBudget:
    """max_bytes: for this process, without the room of small bodies. max_bytes_per_key: of those, for each key.

    Keys and accounts are None for callers without a key.
    """

    def __init__(self, *, max_bytes: int, max_bytes_per_key: int) -> None:
        self._max_bytes_per_key = max_bytes_per_key
        self._room = Room(max_bytes)
        self._small_room = Room(max_bytes // _SMALL_PART)
        self._by_key: Counter[int | None] = Counter()

    @property
    def bytes_in_work(self) -> int:
        return self._room.taken + self._small_room.taken

    def lease(self, key_id: int | None, account_id: int | None) -> BodyLease:
        """An empty lease, which must be released."""
        return BodyLease(self, key_id, account_id)

    def require(self, key_id: int | None, account_id: int | None, size: int) -> None:
        """Raises Overloaded if a body of that size would be refused now."""
        if size > SMALL_BODY_BYTES:
            self._require_of_key(key_id, size)
            self._room.require(account_id, size)

    def take(self, key_id: int | None, account_id: int | None, size: int) -> None:
        """Raises Overloaded, and takes nothing then."""
        self._require_of_key(key_id, size)
        self._room.take(account_id, size)
        self._by_key[key_id] += size

    def give_back(self, key_id: int | None, account_id: int | None, size: int) -> None:
        self._room.give_back(account_id, size)
        self._by_key[key_id] -= size
        if not self._by_key[key_id]:
            del self._by_key[key_id]

    def take_small(self, account_id: int | None, size: int) -> bool:
        """False, and nothing is taken, if the room of small bodies is full."""
        try:
            self._small_room.take(account_id, size)
        except Overloaded:
            return False
        return True

    def give_back_small(self, account_id: int | None, size: int) -> None:
        self._small_room.give_back(account_id, size)

    def _require_of_key(self, key_id: int | None, size: int) -> None:
        held = self._by_key.get(key_id, 0)
        if held + size > self._max_bytes_per_key:
            raise Overloaded(_FULL if key_id is None else _OWN_FULL.format("API key"))


class BodyLease:
    """The memory of one request's body. Several may hold it (the caller's response, the call); the last one releases
    it.

    size: in total, of which `_small_bytes` are in the room of small bodies.
    """

    def __init__(self, budget: BodyBudget, key_id: int | None, account_id: int | None) -> None:
        self._budget = budget
        self._key_id = key_id
        self._account_id = account_id
        self._holders = 1
        self._small_bytes = 0
        self._body_bytes = 0
        self.size = 0

    def expect(self, announced: int) -> None:
        """Raises Overloaded if there is no room for a body of that length; takes nothing yet."""
        self._budget.require(self._key_id, self._account_id, announced)

    def grow_to(self, size: int) -> None:
        """Extend it to the bytes of the body received so far. Raises Overloaded; the lease then stays as it was."""
        if size > self._body_bytes:
            self._hold(self.size + size - self._body_bytes, is_small=size <= SMALL_BODY_BYTES)
            self._body_bytes = size

    def add_values(self, count: int) -> None:
        """Take room for the objects that a parser makes. Raises Overloaded."""
        self._hold(self.size + count * VALUE_BYTES, is_small=self._body_bytes <= SMALL_BODY_BYTES)

    def share(self) -> Callable[[], None]:
        """Add a holder; it must call the returned function once."""
        self._holders += 1
        return self.release

    def release(self) -> None:
        self._holders -= 1
        if self._holders == 0:
            self._give_back()

    def _hold(self, size: int, *, is_small: bool) -> None:
        """A small body that doesn't fit into its own room may still fit into the other."""
        budget, more = self._budget, size - self.size
        is_in_room = self.size > self._small_bytes
        if is_small and not is_in_room and budget.take_small(self._account_id, more):
            self._small_bytes = self.size = size
            return
        budget.take(self._key_id, self._account_id, more + self._small_bytes)
        budget.give_back_small(self._account_id, self._small_bytes)
        self._small_bytes, self.size = 0, size

    def _give_back(self) -> None:
        self._budget.give_back_small(self._account_id, self._small_bytes)
        self._budget.give_back(self._key_id, self._account_id, self.size - self._small_bytes)

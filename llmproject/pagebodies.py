"""How much of a process's memory bodies of requests to Django may take, divided like the places at the gate.

Staff, callers with API keys and strangers each have their own room, so none takes what another kind needs; and no
session, token, key or address may hold more of its room than it leaves free.
"""

from __future__ import annotations

from collections.abc import Mapping

from llm.bodies.budget import Room
from llmproject.places import Claimant, Standing

_MB = 1024**2
# Staff's room fits two of their largest forms, keys' many requests of the management API.
_ROOMS = {
    Standing.STAFF: (64 * _MB, "session or token"),
    Standing.KEY: (16 * _MB, "API key"),
    Standing.STRANGER: (32 * _MB, "address"),
}


class PageBodies:
    """One per process."""

    def __init__(self) -> None:
        self.rooms: Mapping[Standing, Room] = {each: Room(size, of=name) for each, (size, name) in _ROOMS.items()}


class PageBodyLease:
    """The memory of one request's body, in its sender's room."""

    def __init__(self, bodies: PageBodies, claimant: Claimant) -> None:
        self._bodies = bodies
        self._claimant = claimant
        self._size = 0

    def grow_to(self, size: int) -> None:
        """Raises Overloaded; the lease then stays as it was."""
        if size > self._size:
            self._room.take(self._claimant.name, size - self._size)
            self._size = size

    def pass_to(self, claimant: Claimant) -> None:
        """Its sender turned out to be another one. Raises Overloaded; the lease then stays as it was."""
        if claimant != self._claimant:
            self._bodies.rooms[claimant.standing].take(claimant.name, self._size)
            self.release()
            self._claimant = claimant

    def release(self) -> None:
        self._room.give_back(self._claimant.name, self._size)

    @property
    def _room(self) -> Room:
        return self._bodies.rooms[self._claimant.standing]

"""Between the task that owns a call and a caller that may or may not be listening."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

from llm.calls.context import Bounds

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"


class Relay:
    """A stream's bytes on their way to the caller: bounded, and never a reason for the call to wait for ever.

    Bytes gathered since the caller's last read are sent in one chunk. A caller that reads nothing for `stall_s` while
    the relay is full counts as gone.
    """

    def __init__(self, *, most_bytes: int, stall_s: float, on_leave: Callable[[], None]) -> None:
        self._most_bytes = most_bytes
        self._stall_s = stall_s
        self._on_leave = on_leave
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_closed = False
        self._is_left = False
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._last_at = time.monotonic()

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def silent_s(self) -> float:
        """How long nothing has been added."""
        return time.monotonic() - self._last_at

    def break_silence(self, comment: bytes) -> None:
        """No effect if the caller hasn't read everything so far, or the stream has ended."""
        if not self._pieces and not self._is_closed:
            self.add(comment)

    async def put(self, data: bytes) -> None:
        """Add bytes; waits for room or for the caller's leaving, whichever comes first."""
        if self.add(data):
            await self.wait_for_room()

    def add(self, data: bytes) -> bool:
        """Add without waiting; returns whether to wait for room."""
        if self._is_left or not data:
            return False
        self._pieces.append(data)
        self._size += len(data)
        self._last_at = time.monotonic()
        _wake(self._reader)
        return self._size > self._most_bytes

    async def wait_for_room(self) -> None:
        self._room = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._room,), timeout=self._stall_s)
        if not self._room.done():
            self.leave()

    def close(self) -> None:
        """Nothing more will be added."""
        self._is_closed = True
        _wake(self._reader)

    def leave(self) -> None:
        """The caller is gone: unread bytes are dropped. No effect after the last byte was read."""
        if self._is_left or (self._is_closed and not self._pieces):
            return
        self._is_left = True
        self._pieces.clear()
        self._size = 0
        _wake(self._room)
        _wake(self._reader)
        self._on_leave()

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        try:
            while not self._is_left:
                if self._pieces:
                    yield self._take()
                elif self._is_closed:
                    return
                else:
                    self._reader = loop.create_future()
                    await self._reader
        finally:
            self.leave()

    def _take(self) -> bytes:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        _wake(self._room)
        return data


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes to the caller: complete bytes, or a relay that is still being filled."""

    status: int
    body: bytes | Relay
    content_type: str
    headers: Mapping[str, str]


class Audience:
    """The caller as seen by its request's task: it gets one reply, and may leave at any moment.

    relay: of a streamed reply, once its headers are sent; it stays the same across attempts at several providers.
    """

    def __init__(self) -> None:
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.relay: Relay | None = None
        self.is_gone = False
        self._on_leave: Callable[[], None] | None = None

    def answer(self, reply: Reply) -> None:
        if self.reply.done():
            return
        self.reply.set_result(reply)
        if self.is_gone:
            _abandon(reply)

    def begin_stream(self, bounds: Bounds, headers: Mapping[str, str]) -> Relay:
        """From now on a streamed reply has begun: errors can only be events in it."""
        if self.relay is None:
            self.relay = Relay(most_bytes=bounds.relay_bytes, stall_s=bounds.relay_stall_s, on_leave=self.leave)
            headers = {**headers, "cache-control": "no-cache", "x-accel-buffering": "no"}
            self.answer(Reply(200, self.relay, EVENT_STREAM, headers))
        return self.relay

    @property
    def is_answered(self) -> bool:
        return self.reply.done()

    async def wait(self) -> Reply:
        """The reply. Raises GatewayError. A waiter that is cancelled has left."""
        try:
            return await asyncio.shield(self.reply)
        except asyncio.CancelledError:
            self.leave()
            raise

    def leave(self) -> None:
        if self.is_gone:
            return
        self.is_gone = True
        if self._on_leave is not None:
            self._on_leave()
        if self.reply.done() and self.reply.exception() is None:
            _abandon(self.reply.result())

    def on_leave(self, callback: Callable[[], None] | None) -> None:
        self._on_leave = callback


def _abandon(reply: Reply) -> None:
    """Nobody reads the reply any more, so nothing is kept for the caller or waits for room."""
    if isinstance(reply.body, Relay):
        reply.body.leave()


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)

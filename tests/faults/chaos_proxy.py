"""A TCP proxy that misbehaves on demand: what a network, or a server that dies, does to a connection.

It runs in a thread of its own; its mode may be changed from any thread while connections are open.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

_HOST = "127.0.0.1"
_CHUNK = 65_536
_BACKLOG = 256
_PATIENCE_S = 10.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Mode:
    """What happens to bytes and connections; `amount` is seconds, bytes or bytes a second, by kind.

    pass: nothing. latency: each piece waits so many seconds. slow: so many bytes a second.
    cut: each connection is closed after so many more bytes, in either direction.
    blackhole: connections are accepted, what comes is swallowed, and nothing is ever answered.
    reset: open connections are reset, new ones too. refuse: the same, and nobody listens.
    """

    kind: Literal["pass", "latency", "slow", "cut", "blackhole", "reset", "refuse"] = "pass"
    amount: float = 0.0


PASS = Mode()


class _Connection:
    """One caller's connection, and ours to the target."""

    def __init__(self, caller: socket.socket, mode: Mode) -> None:
        self.caller = caller
        self.target: socket.socket | None = None
        self.left_bytes: int | None = None
        self.has_swallowed = False
        self.is_to_be_reset = mode.kind == "reset"
        self.adopt(mode)

    def adopt(self, mode: Mode) -> None:
        self.left_bytes = int(mode.amount) if mode.kind == "cut" else None

    def close(self) -> None:
        for end in (self.caller, self.target):
            if end is not None and self.is_to_be_reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            if end is not None:
                end.close()


class ChaosProxy:
    """In front of `host`:`port`. A context manager; `mode` says what it does at the moment.

    user: as it stands in a database URL, with its password if there is one.
    """

    def __init__(self, host: str, port: int, *, user: str = "postgres") -> None:
        self.port = 0
        self.mode = PASS
        self._target = (host, port)
        self._user = user
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy", daemon=True)
        self._listener: socket.socket | None = None
        self._connections: dict[_Connection, asyncio.Task[None]] = {}

    def url(self, database_name: str) -> str:
        """The address of a PostgreSQL database behind the proxy."""
        return f"postgres://{self._user}@{_HOST}:{self.port}/{database_name}"

    def set_mode(self, mode: Mode) -> None:
        """Holds for open connections too when it returns. Blocks its thread for a moment."""
        asyncio.run_coroutine_threadsafe(self._apply(mode), self._loop).result(_PATIENCE_S)

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def __enter__(self) -> Self:
        self._thread.start()
        self.set_mode(PASS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.set_mode(Mode("refuse"))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _apply(self, mode: Mode) -> None:
        self.mode = mode
        is_closing = mode.kind in ("reset", "refuse")
        # A connection that lost bytes can't be mended: it ends when the hole does.
        ended = [each for each in self._connections if is_closing or each.has_swallowed]
        tasks = [self._connections[connection] for connection in ended]
        for connection, task in zip(ended, tasks, strict=True):
            connection.is_to_be_reset = True
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in ended:
            # A task that was cancelled before its first step has closed nothing.
            self._forget(connection)
        for connection in self._connections:
            connection.adopt(mode)
        if mode.kind == "refuse":
            self._stop_listening()
        elif self._listener is None:
            self._listen()

    def _listen(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.settimeout(0)
        self._listener.bind((_HOST, self.port))
        self._listener.listen(_BACKLOG)
        self.port = self._listener.getsockname()[1]
        self._loop.add_reader(self._listener, self._accept, self._listener)

    def _stop_listening(self) -> None:
        if self._listener is None:
            return
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        """No task waits for it: one that is cancelled could lose a connection that it was just given."""
        try:
            caller, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        caller.settimeout(0)
        connection = _Connection(caller, self.mode)
        if self.mode.kind == "reset":
            connection.close()
            return
        self._connections[connection] = self._loop.create_task(self._serve(connection))

    async def _serve(self, connection: _Connection) -> None:
        """Until both directions have ended, or one of them failed."""
        pumps: list[asyncio.Task[None]] = []
        try:
            connection.target = target = socket.socket()
            target.settimeout(0)
            await self._loop.sock_connect(target, self._target)
            for end in (connection.caller, target):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ways = ((connection.caller, target), (target, connection.caller))
            pumps = [self._loop.create_task(self._pump(connection, *way)) for way in ways]
            await asyncio.gather(*pumps)
        except OSError:
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._forget(connection)

    def _forget(self, connection: _Connection) -> None:
        if self._connections.pop(connection, None) is not None:
            connection.close()

    async def _pump(self, connection: _Connection, source: socket.socket, sink: socket.socket) -> None:
        """Raises ConnectionError where the connection is to be cut."""
        while data := await self._loop.sock_recv(source, _CHUNK):
            await self._forward(connection, sink, data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    async def _forward(self, connection: _Connection, sink: socket.socket, data: bytes) -> None:
        mode = self.mode
        if mode.kind == "blackhole":
            connection.has_swallowed = True
            return
        if mode.kind == "latency":
            await asyncio.sleep(mode.amount)
        elif mode.kind == "slow":
            await asyncio.sleep(len(data) / mode.amount)
        elif connection.left_bytes is not None:
            kept, connection.left_bytes = data[: connection.left_bytes], connection.left_bytes - len(data)
            await self._loop.sock_sendall(sink, kept)
            if connection.left_bytes <= 0:
                raise ConnectionAbortedError("cut")
            return
        await self._loop.sock_sendall(sink, data)

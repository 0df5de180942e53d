"""Callers in front of gateways that come and go: raw HTTP on connections of their own, and what each of them saw."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from tests.faults.calls import Call, Calls
from tests.faults.spoken import SPOKEN, body_of

_HOST = "127.0.0.1"
_PATIENCE_S = 60.0
# So long does a caller wait before the next call who found nobody, or nobody who could serve him.
_PAUSE_S = 0.05
# So often is a request with an idempotency key sent again, whatever came of it.
_REPEATS = 2
_MAX_HEAD_BYTES = 65_536
_TAIL_BYTES = 512
"""As long as an event's mark and the border of a chunk within it, at least."""
_CHUNK_BORDER = re.compile(rb"\r\n[0-9a-fA-F]+\r\n")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

# What the gateway may answer when it, its books or its upstream are in trouble.
EXPLAINED = frozenset((502, 503, 504, 529, 429))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a caller saw. error: the transport's, or that he left; is_complete: a whole answer, or all of a stream.

    may_retry: False where the gateway says that it makes no sense. has_key: sent with an idempotency key, which is the
    model's name.
    """

    model: str
    is_stream: bool
    status: int | None = None
    error: str = ""
    is_complete: bool = False
    call_id: str = ""
    may_retry: bool = True
    has_key: bool = False

    @property
    def is_unexplained(self) -> bool:
        return self.status is not None and self.status >= 500 and self.status not in EXPLAINED


class Load:
    """Calls by seed from `callers` at a time, until `limit` were made or it is stopped. A context manager.

    ports: where gateways listen at the moment; nobody there is a normal outcome.
    """

    def __init__(
        self, calls: Calls, *, ports: Callable[[], Sequence[int]], key: str, callers: int, limit: int | None = None
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.in_flight = 0
        self._calls = calls
        self._ports = ports
        self._key = key
        self._callers = callers
        self._limit = limit
        self._made = 0
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """No new calls; returns when those under way have ended."""
        self._is_stopping.set()
        self._thread.join()

    def wait(self, timeout_s: float) -> bool:
        """Whether all calls have been made and have ended by then."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def statuses(self) -> Counter[str]:
        return Counter(str(outcome.status or outcome.error) for outcome in self.outcomes)

    async def _run(self) -> None:
        await asyncio.gather(*(self._call_on() for _ in range(self._callers)))

    async def _call_on(self) -> None:
        while not self._is_stopping.is_set() and (self._limit is None or self._made < self._limit):
            self._made += 1
            call = self._calls.next()
            await self._make(call, number=self._made)
            for again in range(_REPEATS if call.has_key else 0):
                await self._make(replace(call, leaves_after_s=None, leaves_after_bytes=None), number=self._made + again)

    async def _make(self, call: Call, *, number: int) -> None:
        ports = self._ports()
        self.in_flight += 1
        outcome = await make(call, port=ports[number % len(ports)], key=self._key)
        self.in_flight -= 1
        self.outcomes.append(replace(outcome, has_key=call.has_key))
        if outcome.status == 503 or (outcome.status is None and outcome.error != "left"):
            await asyncio.sleep(_PAUSE_S)


async def make(call: Call, *, port: int, key: str, max_tokens: int | None = None) -> Outcome:
    """Make the call; whatever happens is an outcome."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            reader, writer = await asyncio.open_connection(_HOST, port, limit=_MAX_HEAD_BYTES)
            writer.write(_request(call, key, max_tokens))
            if call.leaves_after_s is not None:
                await asyncio.sleep(call.leaves_after_s)
                return Outcome(call.model, call.is_stream, error="left")
            return await _read(reader, call)
    except (OSError, EOFError, TimeoutError) as error:
        return Outcome(call.model, call.is_stream, error=type(error).__name__)
    finally:
        if writer is not None:
            _hang_up(writer, call)


def _request(call: Call, key: str, max_tokens: int | None) -> bytes:
    fields = body_of(call.dialect, call.model, is_stream=call.is_stream, max_tokens=max_tokens)
    body = json.dumps(fields).encode()
    idempotency = f"idempotency-key: {call.model}\r\n" if call.has_key else ""
    head = (
        f"POST {SPOKEN[call.dialect].path} HTTP/1.1\r\nhost: gateway\r\n"
        f"authorization: Bearer {key}\r\nconnection: close\r\n"
        f"{idempotency}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _read(reader: asyncio.StreamReader, call: Call) -> Outcome:
    """The reply up to its end, or to where the caller has seen enough of it."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status, call_id = int(status_line.split()[1]), headers.get("x-llm-call-id", "")
    received, tail, error, end, has_end = 0, b"", "", SPOKEN[call.dialect].end, False
    try:
        while piece := await reader.read(_MAX_HEAD_BYTES):
            received += len(piece)
            has_end = has_end or end in _CHUNK_BORDER.sub(b"", tail + piece)
            tail = (tail + piece)[-_TAIL_BYTES:]
            if call.leaves_after_bytes is not None and received > call.leaves_after_bytes:
                return Outcome(call.model, call.is_stream, status, "left", call_id=call_id)
    except OSError as failure:
        error = type(failure).__name__
    length = headers.get("content-length")
    has_all = tail.endswith(b"0\r\n\r\n") if length is None else received == int(length)
    is_complete = status == 200 and has_all and (has_end or not call.is_stream)
    may_retry = headers.get("x-should-retry") != "false"
    return Outcome(call.model, call.is_stream, status, error, is_complete, call_id, may_retry)


def _hang_up(writer: asyncio.StreamWriter, call: Call) -> None:
    if call.resets and not writer.is_closing():
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        writer.transport.abort()
    else:
        writer.close()

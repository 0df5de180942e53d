"""The caller: raw HTTP/1.1 over kept-alive sockets, in a process of its own, never the bottleneck.

`python -m benchmarks.driver` reads one Job as JSON from standard input and writes one Outcome as JSON. It looks at
every reply, and the first one that is not as it should be ends the run with exit code 1.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import cast

import uvloop

from benchmarks.dialects import DIALECTS, MARKER, request_body

# One request may take this long, then the run has failed.
STALL_SECONDS = 30.0

_LAST_CHUNK = b"\r\n0\r\n\r\n"
_SHOWN_BYTES = 600


class BadReplyError(Exception):
    """A reply that is not what was asked for."""


@dataclass(frozen=True, slots=True)
class Job:
    """stream_events: how many events each stream has, [DONE] included; 0 asks for whole replies.

    body_bytes, reply_bytes: how long each must be; None: as long as it turns out to be.
    """

    port: int
    key: str
    model: str
    connections: int
    requests: int
    stream_events: int
    dialect: str = "plain chat"
    body_bytes: int | None = None
    reply_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the replies of a job took. Milliseconds; first: until the first byte of the reply.

    pieces: HTTP chunks of an average reply. driver_cpu_ms: what the driver itself spent on a call.
    """

    per_second: float
    p50_ms: float
    p99_ms: float
    first_p50_ms: float
    first_p99_ms: float
    pieces: float
    driver_cpu_ms: float


def drive(job: Job) -> Outcome:
    """Run the job in a process of its own. Raises BadReplyError with what that process had to say."""
    command = [sys.executable, "-m", "benchmarks.driver"]
    done = subprocess.run(command, input=json.dumps(asdict(job)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BadReplyError(done.stderr.strip())
    return Outcome(**json.loads(done.stdout))


def main() -> None:
    job = Job(**json.loads(sys.stdin.read()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            outcome = runner.run(_run(job))
        except (BadReplyError, OSError) as error:
            sys.exit(f"{job.model}: {error}")
    print(json.dumps(asdict(outcome)))


async def _run(job: Job) -> Outcome:
    loop, run = asyncio.get_running_loop(), _Run(job)
    opened = [await loop.create_connection(run.connect, "127.0.0.1", job.port) for _ in range(job.connections)]
    started, cpu_started = time.perf_counter(), time.process_time()
    for _, connection in opened:
        connection.ask()
    await _watch(run)
    outcome = run.outcome(seconds=time.perf_counter() - started, cpu_seconds=time.process_time() - cpu_started)
    for transport, _ in opened:
        transport.close()
    return outcome


async def _watch(run: _Run) -> None:
    """Wait for the last reply. Raises BadReplyError for a bad one, or when none comes any more."""
    while not run.end.done():
        answered = run.answered
        await asyncio.wait((run.end,), timeout=STALL_SECONDS)
        if not run.end.done() and run.answered == answered:
            raise BadReplyError(f"no reply for {STALL_SECONDS:g} seconds, after {answered} of {run.job.requests}")
    await run.end


class _Run:
    """All requests of a job, given out to its connections as they become free."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.answered = 0
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked = 0
        self._latency_s: list[float] = []
        self._first_s: list[float] = []
        self._pieces = 0
        self.dialect = DIALECTS[job.dialect]
        self._head, self._tail, self.filler = _request_around_marker(job)

    def connect(self) -> _Connection:
        return _Connection(self)

    def next_request(self) -> tuple[bytes, bytes] | None:
        """The marker that a whole reply must repeat, and the request; None when all have been given out."""
        if self._asked == self.job.requests:
            return None
        self._asked += 1
        marker = b"marker%08d" % self._asked
        return marker, b"".join((self._head, marker, self._tail))

    def note(self, *, latency_s: float, first_s: float, pieces: int) -> None:
        self._latency_s.append(latency_s)
        self._first_s.append(first_s)
        self._pieces += pieces
        self.answered += 1
        if self.answered == self.job.requests and not self.end.done():
            self.end.set_result(None)

    def outcome(self, *, seconds: float, cpu_seconds: float) -> Outcome:
        latency, first = sorted(self._latency_s), sorted(self._first_s)
        return Outcome(
            per_second=self.answered / seconds,
            p50_ms=_percentile(latency, 50) * 1000,
            p99_ms=_percentile(latency, 99) * 1000,
            first_p50_ms=_percentile(first, 50) * 1000,
            first_p99_ms=_percentile(first, 99) * 1000,
            pieces=self._pieces / self.answered,
            driver_cpu_ms=cpu_seconds * 1000 / self.answered,
        )

    def fail(self, error: BadReplyError) -> None:
        if not self.end.done():
            self.end.set_exception(error)


class _Connection(asyncio.Protocol):
    """One kept-alive connection: asks, reads the reply, looks at it, asks again."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._transport: asyncio.WriteTransport | None = None
        self._marker = b""
        self._buffer = bytearray()
        self._head_length = 0
        self._whole_length = 0
        self._asked_at = self._first_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport is one, but doesn't say so.
        self._transport = cast("asyncio.WriteTransport", transport)

    def ask(self) -> None:
        following = self._run.next_request()
        if following is None or self._transport is None:
            return
        self._marker, request = following
        self._buffer, self._head_length, self._whole_length = bytearray(), 0, 0
        self._asked_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if not self._buffer:
            self._first_at = time.perf_counter()
        self._buffer += data
        try:
            if (self._head_length or self._read_head()) and self._has_ended():
                self._take_reply()
        except BadReplyError as error:
            self._run.fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.fail(BadReplyError(f"the connection was closed: {exc!r}"))

    def _read_head(self) -> bool:
        """Notes where the body begins and, unless it comes in chunks, where it ends."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[: end + 2]).lower()
        if not head.startswith(b"http/1.1 200 "):
            raise BadReplyError(f"not a 200:\n{_shown(self._buffer)}")
        self._head_length = end + 4
        if b"\r\ntransfer-encoding: chunked\r\n" not in head:
            length = head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
            if not length.isdigit():
                raise BadReplyError(f"neither a length nor chunks:\n{_shown(self._buffer)}")
            self._whole_length = self._head_length + int(length)
        return True

    def _has_ended(self) -> bool:
        if self._whole_length:
            return len(self._buffer) >= self._whole_length
        return self._buffer.endswith(_LAST_CHUNK)

    def _take_reply(self) -> None:
        ended_at = time.perf_counter()
        body, pieces = bytes(self._buffer[self._head_length :]), 1
        if not self._whole_length:
            body, pieces = _unchunked(body)
        elif len(self._buffer) > self._whole_length:
            raise BadReplyError(f"more bytes than announced:\n{_shown(self._buffer)}")
        if not self._is_as_asked(body):
            raise BadReplyError(f"an incomplete or foreign reply:\n{_shown(self._buffer)}")
        self._run.note(latency_s=ended_at - self._asked_at, first_s=self._first_at - self._asked_at, pieces=pieces)
        self.ask()

    def _is_as_asked(self, body: bytes) -> bool:
        job, dialect = self._run.job, self._run.dialect
        if job.reply_bytes is not None and len(body) != job.reply_bytes:
            return False
        if job.stream_events:
            return body.count(b"data: ") == job.stream_events and dialect.last in body[-_SHOWN_BYTES * 10 :]
        mark = dialect.reply_mark(self._marker, self._run.filler)
        return body.rstrip().endswith(b"}") and mark in body and b'_tokens"' in body


def _request_around_marker(job: Job) -> tuple[bytes, bytes, str]:
    """What stands before and behind the marker, which is always of the same length; and what filled the body up."""
    dialect = DIALECTS[job.dialect]
    body, filler = request_body(job.dialect, job.model, is_stream=bool(job.stream_events), body_bytes=job.body_bytes)
    head = (
        f"POST {dialect.path} HTTP/1.1\r\nHost: 127.0.0.1:{job.port}\r\nAuthorization: Bearer {job.key}\r\n"
        f"{dialect.headers}Accept: application/json\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    before, _, behind = f"{head}{body}".partition(MARKER)
    return before.encode(), behind.encode(), filler


def _unchunked(raw: bytes) -> tuple[bytes, int]:
    """The body and in how many chunks it came."""
    pieces, position = [], 0
    try:
        while size := int(raw[position : (line_end := raw.index(b"\r\n", position))], 16):
            start = line_end + 2
            pieces.append(raw[start : start + size])
            position = start + size + 2
    except ValueError as error:
        raise BadReplyError(f"broken chunks:\n{raw[:_SHOWN_BYTES]!r}") from error
    if raw[line_end:] != b"\r\n\r\n":
        raise BadReplyError(f"bytes behind the last chunk:\n{raw[line_end:][:_SHOWN_BYTES]!r}")
    return b"".join(pieces), len(pieces)


def _percentile(ordered: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent don't exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _shown(reply: bytearray) -> str:
    return bytes(reply[:_SHOWN_BYTES]).decode("utf-8", "replace")


if __name__ == "__main__":
    main()

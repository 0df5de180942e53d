"""Server-sent events, split without parsing them.

A splitter holds only the unfinished event and passes on everything before it in one piece, byte for byte. Each byte is
read once, however small the pieces that arrive.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from llm.errors import UpstreamFailed

MAX_EVENT_BYTES = 16 * 1024 * 1024
# Each is examined separately. Legitimate streams have only a few.
MAX_EVENT_LINES = 10_000

COMMENT = b": keepalive\n\n"
"""Not an event: clients ignore it."""

_BOM = b"\xef\xbb\xbf"
# Atomic, otherwise CR LF would also match as two line ends. Further blank lines belong to the event before them.
_BLANK_LINES = re.compile(rb"(?>\r\n|\n|\r){2,}")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Event(NamedTuple):
    """name: of its `event:` field, b"" without one. data: None without a data field (a comment, say)."""

    name: bytes
    data: bytes | None


class EventSplitter:
    """Cuts a stream at event boundaries: takes pieces, returns whole events."""

    __slots__ = ("_max_event_bytes", "_pending")

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._pending = bytearray()

    @property
    def pending(self) -> bytes:
        """The unfinished event."""
        return bytes(self._pending)

    @property
    def held_bytes(self) -> int:
        return len(self._pending)

    def feed(self, data: bytes) -> bytes:
        """All events that are now complete, in one piece; b"" if there are none.

        Raises UpstreamFailed if the unfinished event is larger than the caps.
        """
        end = _end_of_last_blank_line(data)
        if not self._pending:
            if end == len(data):
                return data
            self._hold(data[end:])
            return data[:end]
        if not end:
            # The blank line may be split: its first half held, the second just received.
            held = bytes(self._pending[-2:])
            end = max(0, _end_of_last_blank_line(held + data[:2]) - len(held))
        if not end:
            self._hold(data)
            return b""
        if self._pending.count(b"\n") + self._pending.count(b"\r") > MAX_EVENT_LINES:
            raise too_large()
        self._pending += data[:end]
        block = bytes(self._pending)
        self._pending.clear()
        self._hold(data[end:])
        return block

    def _hold(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) > self._max_event_bytes:
            raise too_large()


def too_large() -> UpstreamFailed:
    return UpstreamFailed("The upstream sent an event that is too large.", may_have_worked=True)


def split_events(block: bytes) -> list[bytes]:
    """The events of a block, each byte for byte with the blank line that ends it."""
    if b"\r" not in block and b"\n\n\n" not in block:
        events = [part + b"\n\n" for part in block.split(b"\n\n")]
        events.pop()
        return events
    ends = [0, *(match.end() for match in _BLANK_LINES.finditer(block))]
    return [block[start:end] for start, end in pairwise(ends)]


def read_event(raw: bytes) -> Event:
    """raw: one event of `split_events`."""
    if raw.startswith(b"data:") and raw.find(b"\n") == len(raw) - 2 and b"\r" not in raw:
        return Event(b"", raw[6:-2] if raw[5:6] == b" " else raw[5:-2])
    name = b""
    data: list[bytes] = []
    for line in _LINE_END.split(raw.removeprefix(_BOM)):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return Event(name, b"\n".join(data) if data else None)


def with_data(raw: bytes, data: bytes, *, keeps_line: Callable[[bytes], bool] = lambda line: True) -> bytes:
    """The event with this JSON text as its data, on one line. keeps_line: whether a line without data stays."""
    lines: list[bytes] = []
    is_placed = False
    for line in raw.splitlines(keepends=True):
        name, colon, value = line.partition(b":")
        if name.removeprefix(_BOM).rstrip(b"\r\n") != b"data":
            if not line.strip() or keeps_line(line):
                lines.append(line)
        elif not is_placed:
            is_placed = True
            space = b" " if not colon or value.startswith(b" ") else b""
            end = line[len(line.rstrip(b"\r\n")) :]
            lines.append(name.rstrip(b"\r\n") + b":" + space + data.replace(b"\n", b" ") + end)
    return b"".join(lines)


def _end_of_last_blank_line(data: bytes) -> int:
    """0 if there is none. A blank line is two consecutive line ends, each CR LF, LF or CR.

    LF CR at the very end isn't taken for one yet: it may be the CR of a CR LF.
    """
    at = data.rfind(b"\n\n")
    end = at + 2 if at >= 0 else 0
    if b"\r" in data:
        at = data.rfind(b"\n\r\n")
        end = max(end, at + 3 if at >= 0 else 0)
        at = data.rfind(b"\r\r")
        end = max(end, at + 2 if at >= 0 else 0)
    return end

"""Server-sent events, split without reading them.

A splitter holds only the unfinished event and hands on everything before it as one piece, byte for byte. Each byte is
looked at once, however small the pieces that it comes in.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

from llm.errors import UpstreamFailed

MAX_EVENT_BYTES = 16 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
# Atomic, or CR LF would also match as two line ends. Further blank lines belong to the event before them.
_BLANK_LINES = re.compile(rb"(?>\r\n|\n|\r){2,}")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Event(NamedTuple):
    """name: of its `event:` field, b"" without one. data: None when it has no data field (a comment, say)."""

    name: bytes
    data: bytes | None


class EventSplitter:
    """Cuts a stream at event boundaries: feed it pieces, get whole events."""

    __slots__ = ("_max_event_bytes", "_pending")

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._pending = bytearray()

    @property
    def pending(self) -> bytes:
        """The unfinished event."""
        return bytes(self._pending)

    def feed(self, data: bytes) -> bytes:
        """All events that are complete by now, as one piece; b"" if none is.

        Raises UpstreamFailed when the unfinished event is larger than the cap.
        """
        end = _end_of_last_blank_line(data)
        if not self._pending:
            if end == len(data):
                return data
            self._hold(data[end:])
            return data[:end]
        if not end:
            # The blank line may lie across the seam: one of its ends held, the other just come.
            held = bytes(self._pending[-2:])
            end = max(0, _end_of_last_blank_line(held + data[:2]) - len(held))
        if not end:
            self._hold(data)
            return b""
        self._pending += data[:end]
        block = bytes(self._pending)
        self._pending.clear()
        self._hold(data[end:])
        return block

    def _hold(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) > self._max_event_bytes:
            raise UpstreamFailed("The upstream sent an event that is too large.", may_have_worked=True)


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


def _end_of_last_blank_line(data: bytes) -> int:
    """0 where there is none. A blank line is two line ends in a row, each CR LF, LF or CR.

    LF CR at the very end is not taken for one yet: the LF of a CR LF is about to come.
    """
    at = data.rfind(b"\n\n")
    end = at + 2 if at >= 0 else 0
    if b"\r" in data:
        at = data.rfind(b"\n\r\n")
        end = max(end, at + 3 if at >= 0 else 0)
        at = data.rfind(b"\r\r")
        end = max(end, at + 2 if at >= 0 else 0)
    return end

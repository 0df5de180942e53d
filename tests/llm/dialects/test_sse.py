from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.dialects.sse import MAX_EVENT_LINES, Event, EventSplitter, read_event, split_events
from llm.errors import UpstreamFailed


def test_a_block_holds_all_events_that_are_complete() -> None:
    splitter = EventSplitter()

    assert splitter.feed(b"data: 1\n\ndata: 2\n\ndata: 3") == b"data: 1\n\ndata: 2\n\n"
    assert splitter.pending == b"data: 3"
    assert splitter.feed(b"\n") == b""
    assert splitter.feed(b"\ndata: 4\n\n") == b"data: 3\n\ndata: 4\n\n"
    assert splitter.pending == b""


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: 1\n\ndata: 2\n\n", [b"data: 1\n\n", b"data: 2\n\n"]),
        (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"data: 1\r\n\r\n", b"data: 2\r\n\r\n"]),
        (b"data: 1\r\rdata: 2\r\r", [b"data: 1\r\r", b"data: 2\r\r"]),
        (b"data: 1\n\r\ndata: 2\r\n\n", [b"data: 1\n\r\n", b"data: 2\r\n\n"]),
        (b"event: a\r\ndata: 1\r\n\r\n", [b"event: a\r\ndata: 1\r\n\r\n"]),
        (b": ping\n\ndata: 1\n\n", [b": ping\n\n", b"data: 1\n\n"]),
    ],
)
def test_events_are_parted_whatever_ends_their_lines(stream: bytes, events: list[bytes]) -> None:
    assert EventSplitter().feed(stream) == stream
    assert split_events(stream) == events


@given(
    st.lists(st.sampled_from([b"data: x", b": c", b"event: e", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r"])),
    st.data(),
)
def test_no_byte_is_lost_or_reordered_however_the_stream_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    splitter = EventSplitter()

    blocks = [splitter.feed(stream[start:end]) for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert b"".join(blocks) + splitter.pending == stream
    assert b"".join(event for block in blocks for event in split_events(block)) == b"".join(blocks)


def test_a_block_never_ends_inside_an_event() -> None:
    lf = b"".join(b"event: e\ndata: %d\n\n" % number for number in range(50))
    for size, stream in product(range(1, 40), (lf, lf.replace(b"\n", b"\r\n"))):
        splitter = EventSplitter()
        blocks = [splitter.feed(stream[start : start + size]) for start in range(0, len(stream), size)]

        assert [event for block in blocks for event in split_events(block)] == split_events(stream)


def test_a_large_event_in_small_pieces_comes_whole() -> None:
    splitter, piece = EventSplitter(), b"x" * 16384
    for _ in range(640):
        assert splitter.feed(piece) == b""
    assert splitter.feed(b"\n\n") == piece * 640 + b"\n\n"


def test_an_event_beyond_the_cap_is_refused() -> None:
    splitter = EventSplitter(max_event_bytes=10)
    splitter.feed(b"0123456789")

    with pytest.raises(UpstreamFailed) as refused:
        splitter.feed(b"0")

    assert refused.value.may_have_worked


@pytest.mark.parametrize(
    ("raw", "event"),
    [
        (b"data: {}\n\n", Event(b"", b"{}")),
        (b"data:{}\n\n", Event(b"", b"{}")),
        (b"data:  {}\r\n\r\n", Event(b"", b" {}")),
        (b"event: ping\ndata: 1\n\n", Event(b"ping", b"1")),
        (b"event:ping\rdata:1\r\r", Event(b"ping", b"1")),
        (b"data: 1\ndata: 2\n\n", Event(b"", b"1\n2")),
        (b"data\n\n", Event(b"", b"")),
        (b"\xef\xbb\xbfdata: 1\n\n", Event(b"", b"1")),
        (b": comment\n\n", Event(b"", None)),
        (b": comment\ndata: 1\nid: 7\nretry: 5\n\n", Event(b"", b"1")),
        (b"error: {}\n\n", Event(b"", None)),
    ],
)
def test_an_event_is_read(raw: bytes, event: Event) -> None:
    assert read_event(raw) == event


def test_an_event_of_too_many_lines_is_refused() -> None:
    splitter = EventSplitter()
    for _ in range(MAX_EVENT_LINES // 100):
        splitter.feed(b"data: 1\n" * 101)
    with pytest.raises(UpstreamFailed, match="too large"):
        splitter.feed(b"\n")

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from llm.dialects import transcript
from llm.dialects.anthropic_messages.stream import MessagesReader
from llm.dialects.usage_figures import WEB_SEARCHES
from llm.errors import UpstreamFailed
from llm.types import Reading, Service, TokenCounts

START_USAGE = {
    "input_tokens": 5,
    "cache_creation_input_tokens": 2,
    "cache_read_input_tokens": 1,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 2},
    "output_tokens": 1,
    "service_tier": "standard",
}
COUNTS = TokenCounts(prompt_tokens=8, completion_tokens=3, cache_read_tokens=1, cache_write_1h_tokens=2)


def event(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind, **fields}) + b"   \n\n"


def start(usage: Mapping[str, Any] = START_USAGE) -> bytes:
    message = {"id": "msg_1", "type": "message", "model": "claude-x", "content": [], "usage": usage}
    return event("message_start", message=message)


def block(kind: str, index: int = 0, **fields: Any) -> bytes:
    return event("content_block_start", index=index, content_block={"type": kind, **fields})


def delta(kind: str, index: int = 0, **fields: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


def ending(*, output_tokens: int = 3, **usage: Any) -> bytes:
    return event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": output_tokens, **usage})


PING = b'event: ping\ndata: {"type": "ping"}\n\n'
STOP = event("message_stop")
MIDDLE = block("text", text="") + PING + delta("text_delta", text="Hel") + delta("text_delta", text="lo")


@pytest.mark.parametrize(
    "last", [b"", event("message_delta", delta={"stop_reason": "end_turn"}), event("message_delta", usage=None)]
)
def test_the_figures_of_the_beginning_are_not_those_of_the_end(last: bytes) -> None:
    following = MessagesReader()
    following.feed(start() + MIDDLE + last + STOP)
    assert following.is_complete
    reading = following.reading()
    assert (reading.is_final, reading.is_input_final) == (False, True)
    assert following.output_text() == "Hello"


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 5, 100, 10_000])
def test_a_stream_passes_as_it_came_and_ends_once_it_is_on_the_books(size: int, line_end: bytes) -> None:
    parts = [start() + MIDDLE + event("content_block_stop", index=0), ending() + PING, STOP]
    first, last, stop = (part.replace(b"\n", line_end) for part in parts)
    stream = first + last + stop
    following = MessagesReader()

    passed = b"".join(following.feed(stream[at : at + size]) for at in range(0, len(stream), size))

    assert passed == first
    assert following.is_complete
    assert following.finish() == last + stop
    assert following.output_text() == "Hello"
    assert following.reading() == Reading(
        counts=COUNTS,
        model="claude-x",
        response_id="msg_1",
        service=Service("standard"),
        is_final=True,
        is_input_final=True,
        reports_tools=True,
    )


def test_running_totals_are_merged_never_added_up() -> None:
    following = MessagesReader()
    running = event("message_delta", delta={}, usage={"output_tokens": 2})
    passed = following.feed(start() + MIDDLE + running)
    assert passed == start() + MIDDLE + running
    assert (following.reading().counts, following.reading().is_final) == (
        TokenCounts(prompt_tokens=8, completion_tokens=2, cache_read_tokens=1, cache_write_1h_tokens=2),
        False,
    )
    assert following.feed(ending(input_tokens=105) + STOP) == b""
    counts = following.reading().counts
    assert counts is not None
    assert (counts.prompt_tokens, counts.completion_tokens) == (108, 3)


def test_what_was_not_the_last_goes_on() -> None:
    following = MessagesReader()
    assert following.feed(start() + ending()) == start()
    more = delta("text_delta", text="!")
    assert following.feed(PING + more) == ending() + PING + more
    assert following.feed(ending(output_tokens=4) + STOP) == b""
    assert following.finish() == ending(output_tokens=4) + STOP


def test_the_cost_goes_into_the_last_usage() -> None:
    following = MessagesReader()
    following.feed(start() + MIDDLE + ending() + STOP)
    with_cost = ending().replace(b'"usage":{', b'"usage":{"cost": 0.25, ')
    assert following.finish(cost="0.25") == with_cost + STOP


def test_the_upstreams_prices_are_struck_out_and_what_the_model_wrote_stays() -> None:
    following = MessagesReader()
    words = delta("text_delta", text='a "cost" of {"cost": 7}')
    tool = block("tool_use", 1, id="t", name="buy", input={"price": 7})
    passed = following.feed(start({**START_USAGE, "cost": 0.5}) + words + tool + ending(cost=0.5) + STOP)
    assert passed == start() + words + tool
    assert following.finish() == ending() + STOP


def test_unknown_events_and_types_pass() -> None:
    following = MessagesReader()
    unknown = event("content_block_thought", index=0, x=[1]) + delta("hologram_delta", x=1) + b": keep-alive\n\n"
    assert following.feed(start() + unknown) == start() + unknown


@pytest.mark.parametrize(
    "error",
    [
        event("error", error={"type": "overloaded_error", "message": "Overloaded sk-ant-1"}),
        b'data: {"type": "error", "error": {"type": "overloaded_error"}}\n\n',
    ],
)
@pytest.mark.parametrize("before", [b"", start() + MIDDLE])
def test_an_error_event_ends_the_stream_and_never_passes(error: bytes, before: bytes) -> None:
    following = MessagesReader()
    assert following.feed(before + error + PING) == before
    assert (following.failure, following.is_complete) == ("overloaded_error", False)
    assert following.finish() == b""
    assert following.feed(STOP) == b""
    assert (following.reading().counts is not None) == bool(before)


def test_a_last_event_without_its_blank_line_is_an_end() -> None:
    following = MessagesReader()
    following.feed(start() + ending() + STOP.rstrip())
    assert following.is_complete
    assert following.finish() == ending() + b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def test_a_stream_that_was_cut_is_not_complete() -> None:
    following = MessagesReader()
    following.feed(start() + MIDDLE)
    assert not following.is_complete
    assert following.finish() == b""
    assert (following.reading().is_final, following.reading().is_input_final) == (False, True)


def test_everything_that_was_generated_is_in_the_text() -> None:
    following = MessagesReader()
    following.feed(
        start()
        + block("thinking", thinking="")
        + delta("thinking_delta", thinking="a")
        + delta("signature_delta", signature="zzz")
        + delta("text_delta", 1, text="b")
        + block("tool_use", 2, id="t", name="c", input={})
        + delta("input_json_delta", 2, partial_json='{"d":')
        + delta("input_json_delta", 2, partial_json="1}")
    )
    assert following.output_text() == 'abc{"d":1}'


def test_text_is_kept_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript, "MAX_RAW_BYTES", 1000)
    monkeypatch.setattr(transcript, "MAX_TEXT_CHARACTERS", 100)
    following = MessagesReader()
    for _ in range(30):
        following.feed(delta("text_delta", text="0123456789"))
    assert following.output_text() == "0123456789" * 10
    assert following.dropped_characters == 200


def test_an_event_without_an_end_is_bounded() -> None:
    following = MessagesReader()
    with pytest.raises(UpstreamFailed):
        following.feed(b"data: " + b"x" * (17 * 1024 * 1024))


def test_searches_are_counted_by_their_blocks_until_the_usage_tells_them() -> None:
    following = MessagesReader()
    search = block("server_tool_use", id="s", name="web_search", input={})
    following.feed(start() + search + search)
    counts = following.reading().counts
    assert counts is not None
    assert counts.extra_meters == {WEB_SEARCHES: 2}
    # What the searches have found is read too.
    assert not following.reading().is_input_final
    following.feed(ending(server_tool_use={"web_search_requests": 3}) + STOP)
    counts = following.reading().counts
    assert counts is not None
    assert counts.extra_meters == {WEB_SEARCHES: 3}
    assert following.reading().reports_tools


def test_code_that_the_provider_ran_is_not_reported() -> None:
    following = MessagesReader()
    following.feed(start() + block("server_tool_use", id="s", name="bash_code_execution", input={}) + ending() + STOP)
    assert not following.reading().reports_tools


def test_absurd_figures_are_kept_aside() -> None:
    following = MessagesReader()
    following.feed(start() + ending(output_tokens=-1) + STOP)
    reading = following.reading()
    assert (reading.counts, reading.is_final) == (None, True)
    assert reading.absurd_usage is not None
    assert reading.absurd_usage["output_tokens"] == -1

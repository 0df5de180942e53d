from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm.dialects.base import StreamReader
from llm.dialects.openai_responses.wire import OPENAI_RESPONSES
from llm.types import Reading, Service, TokenCounts

USAGE = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


def event(kind: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


def response(**fields: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "model": "m", "output": [], **fields}


CREATED = event("response.created", response=response(service_tier="auto"))
DELTA = event("response.output_text.delta", delta="Hello")
COMPLETED = event("response.completed", response=response(usage=USAGE, service_tier="default"))


def reader() -> StreamReader:
    return OPENAI_RESPONSES.stream_reader(OPENAI_RESPONSES.parse(b'{"input":"x","stream":true}'))


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_all_but_the_last_event_passes_at_once_whatever_the_pieces(size: int) -> None:
    following, stream = reader(), CREATED + b": ping\n\n" + DELTA * 3 + COMPLETED
    passed = b"".join(following.feed(stream[at : at + size]) for at in range(0, len(stream), size))
    assert passed == stream.removesuffix(COMPLETED)
    assert following.is_complete
    assert following.finish() == COMPLETED
    assert following.reading() == Reading(
        TokenCounts(3, 4),
        model="m",
        response_id="resp_1",
        service=Service("default"),
        is_final=True,
        reports_tools=True,
    )


def test_line_ends_stay_as_they_are() -> None:
    stream = (CREATED + DELTA + COMPLETED).replace(b"\n", b"\r\n")
    following = reader()
    assert following.feed(stream) + following.finish() == stream


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed", "cancelled"])
def test_each_of_its_endings_counts(kind: str) -> None:
    following, last = reader(), event(f"response.{kind}", response=response(usage=USAGE))
    assert following.feed(CREATED + last) == CREATED
    assert (following.is_complete, following.failure, following.finish()) == (True, None, last)
    assert following.reading().counts == TokenCounts(3, 4)


@pytest.mark.parametrize("cut", [1, 2])
def test_the_last_event_counts_without_the_blank_line_that_ends_it(cut: int) -> None:
    following = reader()
    assert following.feed(CREATED + COMPLETED[:-cut]) == CREATED
    assert following.end() == b""
    assert following.is_complete
    assert following.finish().rstrip() == COMPLETED.rstrip()
    assert following.finish().endswith(b"\n\n")
    assert following.reading().counts == TokenCounts(3, 4)


@pytest.mark.parametrize("rest", [b"", DELTA[:-1], COMPLETED[:-30], b"data: [DONE]"])
def test_no_other_event_counts_without_it(rest: bytes) -> None:
    following = reader()
    following.feed(CREATED + rest)
    assert (following.end(), following.is_complete) == (b"", False)


def test_a_stream_that_was_cut_has_named_itself() -> None:
    following = reader()
    assert following.feed(CREATED + DELTA + COMPLETED[:-30]) == CREATED + DELTA
    assert (following.is_complete, following.has_data) == (False, True)
    reading = following.reading()
    assert (reading.counts, reading.response_id, reading.is_final, reading.reports_tools) == (
        None,
        "resp_1",
        False,
        False,
    )
    assert following.output_text() == "Hello"


def test_the_text_of_a_stream_is_all_that_was_generated() -> None:
    following = reader()
    following.feed(
        event("response.reasoning_summary_text.delta", delta="a")
        + event("response.refusal.delta", delta="b")
        + event("response.output_item.added", item={"type": "function_call", "name": "c"})
        + event("response.function_call_arguments.delta", delta="d")
        + event("response.function_call_arguments.done", arguments="d")
        + event("response.audio.delta", delta="AAAA")
        + event("response.new.delta", delta=7)
        + b"data: no JSON\n\n"
    )
    assert following.output_text() == "abcd"


@pytest.mark.parametrize(
    ("failure", "name"),
    [
        (event("error", code="server_error", message="sk-1"), "server_error"),
        (event("error", error={"type": "insufficient_quota", "message": "x"}, sequence_number=2), "insufficient_quota"),
        (event("error"), "error"),
        (b'data: {"error":{"code":"x"}}\n\n', "x"),
        (b'error: {"message":"x"}\n\n', "error"),
    ],
)
def test_an_error_event_goes_to_nobody(failure: bytes, name: str) -> None:
    following = reader()
    assert following.feed(CREATED + failure + DELTA) == CREATED
    assert (following.failure, following.is_complete, following.finish()) == (name, False, b"")


def test_a_failure_that_is_about_our_account_goes_to_nobody_and_its_usage_counts() -> None:
    error = {"code": "rate_limit_exceeded", "message": "in organization org-1"}
    following = reader()
    assert following.feed(CREATED + event("response.failed", response=response(usage=USAGE, error=error))) == CREATED
    assert (following.failure, following.is_complete) == ("rate_limit_exceeded", False)
    assert (following.reading().counts, following.reading().is_final) == (TokenCounts(3, 4), True)


def test_prices_are_cut_and_ours_is_put_in() -> None:
    following = reader()
    whole = event("response.completed", response=response(usage=USAGE | {"cost": 0.5}, metadata={"cost": "mine"}))
    priced = event("response.brand_new", cost=1, text="it has a price")
    assert following.feed(CREATED + priced) == CREATED + event("response.brand_new", text="it has a price")
    following.feed(whole)
    shown = whole.replace(b',"cost":0.5', b"").replace(b'"usage":{', b'"usage":{"cost": 0.25, ')
    assert following.finish(cost="0.25") == shown
    upstream_cost = following.reading().upstream_cost
    assert upstream_cost is not None
    assert upstream_cost.pico == 500_000_000_000


def test_a_text_that_looks_like_an_event_is_text() -> None:
    text = '"response":{"usage":{}} event: error\n\nerror: {"error"'
    following, delta = reader(), event("response.output_text.delta", delta=text)
    assert following.feed(CREATED + delta) == CREATED + delta
    assert following.failure is None
    assert following.output_text() == text

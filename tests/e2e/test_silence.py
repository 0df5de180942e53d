"""While a provider thinks, is tried again or says nothing, a streamed reply has its head and shows signs of life."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import openai
import orjson
import pytest

from llm.enums import CallOutcome, UsageStatus
from tests.books import closed_usage
from tests.e2e.callers import CHAT, HELLO, Application, read_until
from tests.e2e.test_unpriced import make_route
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

KEEPALIVES = {
    CHAT: b": keepalive\n\n",
    "/api/chat": b": keepalive\n\n",
    "/v1/responses": b": keepalive\n\n",
    "/v1/messages": b'event: ping\ndata: {"type": "ping"}\n\n',
}

ENDS = {
    CHAT: b"[DONE]",
    "/api/chat": b"total_tokens",
    "/v1/responses": b"response.completed",
    "/v1/messages": b"message_stop",
}


@pytest.fixture
def lively(application: Application, start_gateway: Callable[..., Gateway]) -> Application:
    return application.at(start_gateway(LLM_KEEPALIVE_SECONDS="0.4", LLM_MAX_RETRIES="1"))


def begin(application: Application, path: str = CHAT, model: str = "gpt-4o", **fields: Any) -> socket.socket:
    asked: dict[str, Any] = {"input": "hello"} if path == "/v1/responses" else {"messages": HELLO}
    if path == "/v1/messages":
        asked["max_tokens"] = 50
    body = orjson.dumps({"model": model, "stream": True, **asked, **fields})
    connection = application.connect()
    connection.sendall(application.request_bytes(body, path=path))
    return connection


def read_to_end_of_stream(connection: socket.socket, path: str) -> bytes:
    return read_until(connection, ENDS[path])


def events_in(answer: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in answer.splitlines() if line.startswith(b"data: {")]
    return [orjson.loads(line) for line in lines]


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
def test_the_head_goes_out_with_the_upstreams(application: Application, upstream: FakeUpstream, path: str) -> None:
    """Long before its first byte."""
    upstream.enqueue(Script(body_delay_s=4))
    started = time.monotonic()
    with closing(begin(application, path)) as connection:
        assert b"200 OK" in read_until(connection, b"\r\n\r\n")
        assert time.monotonic() - started < 3
        read_to_end_of_stream(connection, path)
    [row] = closed_usage()
    assert (row.status, row.outcome) == (UsageStatus.SETTLED, CallOutcome.OK)
    assert (row.first_byte_ms or 0) >= 4000


@pytest.mark.parametrize("path", KEEPALIVES)
@pytest.mark.parametrize("delay", ["header_delay_s", "body_delay_s"])
def test_silence_is_broken_by_what_clients_leave_out(
    lively: Application, upstream: FakeUpstream, path: str, delay: str
) -> None:
    upstream.enqueue(replace(Script(), **{delay: 1.5}))  # type: ignore[arg-type]  # both are seconds
    with closing(begin(lively, path)) as connection:
        answer = read_until(connection, KEEPALIVES[path])
        assert answer.startswith(b"HTTP/1.1 200 OK")
        answer += read_to_end_of_stream(connection, path)
    assert answer.count(KEEPALIVES[path]) >= 2
    [row] = closed_usage()
    assert row.usage_source == "reported"


def test_the_sdks_never_see_it(lively: Application, upstream: FakeUpstream) -> None:
    sdk = openai.OpenAI(
        api_key=lively.secret, base_url=lively.gateway.openai_base_url, max_retries=0, http_client=lively.http
    )
    upstream.enqueue(Script(header_delay_s=1.0))
    messages: Any = HELLO
    chunks = list(sdk.chat.completions.create(model="gpt-4o", messages=messages, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "You said: hello there"


def test_comments_of_the_upstream_pass_before_the_first_event(lively: Application, upstream: FakeUpstream) -> None:
    body = (
        b": PROCESSING\n\n" * 2 + b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
    )
    upstream.enqueue(Script(body=body + b"data: [DONE]\n\n", content_type="text/event-stream"))
    with closing(begin(lively)) as connection:
        answer = read_until(connection, b"[DONE]")
    assert answer.count(b": PROCESSING\n\n") == 2


def test_it_is_broken_while_a_call_is_tried_again(lively: Application, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(status=429, retry_after_s=1), Script())
    with closing(begin(lively)) as connection:
        answer = read_until(connection, b"[DONE]")
    assert KEEPALIVES[CHAT] in answer
    assert b"You " in answer
    assert sorted(row.attempt for row in closed_usage(2)) == [1, 2]


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses", "/api/chat"])
def test_a_refusal_behind_the_head_is_an_event_that_says_where_it_comes_from(
    lively: Application, upstream: FakeUpstream, path: str
) -> None:
    make_route("two", ("openai", "gpt-4o"), ("openai", "gpt-4.1"))
    slow = Script(header_delay_s=0.6, error_message="No such thing.")
    upstream.enqueue(replace(slow, status=503), replace(slow, status=503), replace(slow, status=400))
    with closing(begin(lively, path, model="two")) as connection:
        answer = read_until(connection, b'"attempts"')
    assert answer.startswith(b"HTTP/1.1 200 OK")
    error = events_in(answer)[-1]["error"]
    status = 529 if path == "/v1/messages" else 502
    assert (error["status"], error["provider"], error["attempts"]) == (status, "openai", 3)
    rows = closed_usage(3)
    assert error["call_id"] in {str(row.id) for row in rows}
    assert [row.upstream_status for row in rows] == [503, 503, 400]


def test_no_fallback_follows_an_answer_that_has_begun(lively: Application, upstream: FakeUpstream) -> None:
    make_route("two", ("openai", "gpt-4o"), ("openai", "gpt-4.1"))
    error = b'data: {"error":{"message":"Too busy.","code":429}}\n\n'
    upstream.enqueue(Script(body=error, body_delay_s=1.5, content_type="text/event-stream"))
    with closing(begin(lively, model="two")) as connection:
        answer = read_until(connection, b'"attempts"')
    assert b"200 OK" in answer
    assert len(upstream.ledger.entries()) == 1
    [row] = closed_usage()
    assert (row.outcome, row.upstream_status, row.prompt_tokens) == (CallOutcome.UPSTREAM_REFUSED, 200, 0)

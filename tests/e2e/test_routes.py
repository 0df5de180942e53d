"""Where a call goes: routes, fallbacks, other dialects; each attempt is a row of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from decimal import Decimal
from typing import Any, cast

import pytest
from django.db import connections
from django.test import override_settings

from llm.calls.runtime import close_runtime, runtime
from llm.errors import UpstreamFailed
from llm.models import ModelRoute
from llm.providers.counting import count_text_tokens
from llm.service import LLMService
from llm.types import ChatMessage
from tests.books import all_calls, closed_usage
from tests.e2e.callers import (
    HELLO,
    Application,
    assert_nothing_happened,
    error_of,
    estimated,
    events_of,
    native_error_of,
    text_of,
)
from tests.e2e.test_unpriced import make_route
from tests.fakes import FakeUpstream, Script

pytestmark = pytest.mark.e2e

SAID = "You said: hello there"


# --- Routes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_route_calls_the_providers_own_name(
    application: Application, upstream: FakeUpstream, is_stream: bool
) -> None:
    make_route("smart", ("openai", "gpt-4o-2024-08-06"))
    assert text_of(application.chat("smart", stream=is_stream)) == SAID
    [entry] = upstream.ledger.entries()
    [row] = closed_usage()
    assert (row.model, row.upstream_model, entry.model) == ("smart", "gpt-4o-2024-08-06", "gpt-4o-2024-08-06")
    assert row.reported_model == "gpt-4o-2024-08-06"


def test_a_route_that_is_made_changed_or_closed_acts_on_the_next_call(
    application: Application, upstream: FakeUpstream
) -> None:
    application.chat("smart")
    route = make_route("smart", ("openai", "gpt-4o"))
    application.chat("smart")
    route.targets.update(upstream_model="gpt-4.1")
    application.chat("smart")
    route.is_active = False
    route.save()
    reply = application.chat("smart")
    assert (reply.status_code, error_of(reply)["code"], error_of(reply)["param"]) == (404, "model_not_found", "model")
    assert [row.upstream_model for row in closed_usage(3)] == ["smart", "gpt-4o", "gpt-4.1"]
    assert [entry.model for entry in upstream.ledger.entries()] == ["smart", "gpt-4o", "gpt-4.1"]


@pytest.mark.parametrize("is_active", [False, True])
def test_a_route_that_is_closed_or_leads_nowhere_is_no_model(
    application: Application, upstream: FakeUpstream, is_active: bool
) -> None:
    route = make_route("smart", *([] if is_active else [("openai", "gpt-4o")]))
    route.is_active = is_active
    route.save()
    reply = application.chat("smart")
    assert (reply.status_code, error_of(reply)["code"]) == (404, "model_not_found")
    assert application.send("GET", "/v1/models").json()["data"] == []
    assert_nothing_happened(upstream)


def test_a_route_is_listed_as_a_model(application: Application) -> None:
    make_route("smart", ("anthropic", "claude-sonnet-5"), ("openai", "gpt-4o"))
    [model] = application.send("GET", "/v1/models").json()["data"]
    assert (model["id"], model["owned_by"]) == ("smart", "anthropic")


# --- Fallbacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(("first", "tries"), [("fake-429-30", 1), ("fake-401", 1), ("fake-529", 3), ("fake-404", 1)])
def test_a_target_that_refuses_us_is_followed_by_the_next(
    application: Application, upstream: FakeUpstream, first: str, tries: int, is_stream: bool
) -> None:
    make_route("smart", ("openai", first), ("openai", "gpt-4o"))
    reply = application.chat("smart", stream=is_stream)
    assert (reply.status_code, text_of(reply)) == (200, SAID)
    assert reply.headers["x-llm-attempts"] == str(tries + 1)
    rows = closed_usage(tries + 1)
    assert [row.upstream_model for row in rows] == [first] * tries + ["gpt-4o"]
    assert [row.attempt for row in rows] == list(range(1, tries + 2))
    assert {row.request_id for row in rows} == {rows[0].id}
    assert {row.model for row in rows} == {"smart"}
    assert [(row.cost, row.total_tokens) for row in rows[:-1]] == [(Decimal(0), 0)] * tries
    assert (rows[-1].status, rows[-1].total_tokens) == ("settled", 13)
    assert [entry.model for entry in upstream.ledger.entries()] == [row.upstream_model for row in rows]


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_provider_that_is_not_there_is_followed_by_another_one(
    application: Application, upstream: FakeUpstream, is_stream: bool
) -> None:
    make_route("smart", ("openai", "gpt-4o"), ("echo", "echo"))
    upstream.stop()
    try:
        reply = application.chat("smart", stream=is_stream)
    finally:
        upstream.start()
    assert (reply.status_code, text_of(reply), reply.headers["x-llm-provider"]) == (200, "Echo: hello there", "echo")
    rows = closed_usage(4)
    assert [(row.provider, row.status) for row in rows] == [("openai", "void")] * 3 + [("echo", "settled")]
    assert upstream.ledger.entries() == ()


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_provider_of_another_dialect_answers_in_the_callers(
    application: Application, upstream: FakeUpstream, is_stream: bool
) -> None:
    make_route("smart", ("openai", "fake-401"), ("anthropic", "claude-sonnet-5"))
    reply = application.chat("smart", stream=is_stream, max_tokens=100)
    assert (reply.status_code, text_of(reply), reply.headers["x-llm-provider"]) == (200, SAID, "anthropic")
    refused, served = upstream.ledger.entries()
    assert (refused.dialect, served.dialect) == ("openai.chat", "anthropic.messages")
    _, row = closed_usage(2)
    assert (row.provider, row.status, row.usage_source) == ("anthropic", "settled", "reported")
    assert (row.prompt_tokens, row.completion_tokens) == (served.prompt_tokens, served.completion_tokens) == (9, 4)
    assert row.upstream_response_id == served.response_id


@pytest.mark.parametrize(
    ("first", "status"), [("fake-400", 400), ("fake-500", 502), ("fake-hang-up", 502), ("fake-garbage", 502)]
)
def test_what_is_refused_by_nature_or_may_have_worked_is_not_asked_of_another(
    application: Application, upstream: FakeUpstream, first: str, status: int
) -> None:
    make_route("smart", ("openai", first), ("openai", "gpt-4o"), ("echo", "echo"))
    assert application.chat("smart").status_code == status
    assert [row.upstream_model for row in closed_usage()] == [first]
    assert [entry.model for entry in upstream.ledger.wait_for(1)] == [first]


@pytest.mark.parametrize(
    "targets", [("fake-401", "fake-429-30"), ("fake-429-30", "fake-401"), ("fake-429-30", "fake-400")]
)
def test_when_all_fail_the_caller_hears_of_what_it_can_try_again(
    application: Application, upstream: FakeUpstream, targets: tuple[str, str]
) -> None:
    make_route("smart", *(("openai", target) for target in targets))
    reply = application.chat("smart")
    assert (reply.status_code, error_of(reply)["code"]) == (429, "rate_limit_exceeded")
    assert reply.headers["retry-after"] == "30"
    assert [row.upstream_model for row in closed_usage(2)] == list(targets)


def test_when_none_of_the_failures_passes_the_caller_hears_of_the_last(application: Application) -> None:
    make_route("smart", ("openai", "fake-401"), ("openai", "fake-400"))
    assert application.chat("smart").status_code == 400
    assert [row.upstream_status for row in closed_usage(2)] == [401, 400]


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_effort": "lots"},
        {"temperature": 1.5},
    ],
)
def test_what_the_next_provider_cannot_say_does_not_hide_that_the_first_one_only_limits_us(
    application: Application, upstream: FakeUpstream, fields: dict[str, Any]
) -> None:
    make_route("smart", ("openai", "fake-429-30"), ("anthropic", "claude-sonnet-4-5"))
    reply = application.chat("smart", **fields)
    assert (reply.status_code, error_of(reply)["code"]) == (429, "rate_limit_exceeded")
    assert reply.headers["retry-after"] == "30"
    assert len(upstream.ledger.entries()) == 1
    assert [row.status for row in closed_usage()] == ["settled"]


def test_what_one_provider_cannot_say_is_asked_of_the_next(application: Application, upstream: FakeUpstream) -> None:
    make_route("smart", ("anthropic", "claude-sonnet-4-5"), ("openai", "gpt-4o"))
    reply = application.chat("smart", temperature=1.5)
    assert (reply.status_code, reply.headers["x-llm-provider"], reply.headers["x-llm-attempts"]) == (200, "openai", "1")
    assert [entry.model for entry in upstream.ledger.entries()] == ["gpt-4o"]
    assert len(closed_usage()) == 1


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_route_may_take_the_risk_of_paying_twice(
    application: Application, upstream: FakeUpstream, status: int
) -> None:
    make_route("smart", ("openai", f"fake-status-{status}"), ("openai", "gpt-4o"))
    ModelRoute.objects.update(falls_back_on_server_error=True)
    reply = application.chat("smart")
    assert (reply.status_code, text_of(reply), reply.headers["x-llm-attempts"]) == (200, SAID, "2")
    first, second = closed_usage(2)
    assert (first.status, first.upstream_status, first.prompt_tokens) == ("estimated", status, estimated("")[0])
    assert (second.status, second.total_tokens) == ("settled", 13)


def test_after_a_risk_that_did_not_help_no_sdk_tries_again(application: Application) -> None:
    make_route("smart", ("openai", "fake-500"), ("openai", "fake-429-30"))
    ModelRoute.objects.update(falls_back_on_server_error=True)
    reply = application.chat("smart")
    assert (reply.status_code, error_of(reply)["code"]) == (502, "upstream_error")
    assert reply.headers["x-should-retry"] == "false"
    assert [row.status for row in closed_usage(2)] == ["estimated", "settled"]


def test_a_stream_that_was_cut_is_no_server_error(application: Application, upstream: FakeUpstream) -> None:
    make_route("smart", ("openai", "fake-hang-up"), ("openai", "gpt-4o"))
    ModelRoute.objects.update(falls_back_on_server_error=True)
    assert application.chat("smart").status_code == 502
    assert [row.upstream_model for row in closed_usage()] == ["fake-hang-up"]


def test_a_stream_that_has_begun_is_not_begun_again_elsewhere(application: Application, upstream: FakeUpstream) -> None:
    make_route("smart", ("openai", "fake-cut-3"), ("openai", "gpt-4o"))
    reply = application.chat("smart", stream=True)
    assert events_of(reply)[-1]["error"]["code"] == "upstream_error"
    assert [row.upstream_model for row in closed_usage()] == ["fake-cut-3"]


# --- The native dialect -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "reply_text"), [("openai", SAID), ("anthropic", SAID), ("echo", "Echo: hello there")]
)
def test_the_native_endpoint_answers_whatever_the_provider(
    application: Application, upstream: FakeUpstream, provider: str, reply_text: str
) -> None:
    make_route("smart", (provider, "some-model"))
    reply = application.chat("smart", path="/api/chat")
    [row] = closed_usage()
    tokens = {"prompt_tokens": row.prompt_tokens, "completion_tokens": row.completion_tokens}
    usage = {**tokens, "total_tokens": row.total_tokens}
    assert reply.json() == {"reply": reply_text, "model": "smart", "usage": usage}
    assert (row.dialect, row.provider, row.status, row.usage_source) == ("native", provider, "settled", "reported")
    assert [(entry.prompt_tokens, entry.completion_tokens) for entry in upstream.ledger.entries()] in ([], [(9, 4)])


@pytest.mark.parametrize(
    ("provider", "reply_text"), [("openai", SAID), ("anthropic", SAID), ("echo", "Echo: hello there")]
)
def test_the_native_endpoint_streams_deltas_and_one_last_event(
    application: Application, provider: str, reply_text: str
) -> None:
    make_route("smart", (provider, "some-model"))
    reply = application.chat("smart", path="/api/chat", stream=True)
    *deltas, last = events_of(reply)
    [row] = closed_usage()
    assert "".join(event["delta"] for event in deltas) == reply_text
    tokens = {"prompt_tokens": row.prompt_tokens, "completion_tokens": row.completion_tokens}
    assert last == {"model": "smart", "usage": {**tokens, "total_tokens": row.total_tokens}}
    assert (row.dialect, row.is_stream, row.status) == ("native", True, "settled")


@pytest.mark.parametrize("is_stream", [False, True])
def test_the_native_endpoint_tells_of_a_failure_in_its_own_words(
    application: Application, upstream: FakeUpstream, is_stream: bool
) -> None:
    reply = application.chat("fake-status-502", path="/api/chat", stream=is_stream)
    assert (reply.status_code, native_error_of(reply)["code"]) == (502, "upstream_error")
    assert reply.headers["x-should-retry"] == "false"
    [row] = closed_usage()
    assert (row.status, row.prompt_tokens, row.completion_tokens) == ("estimated", *estimated(""))


@pytest.mark.parametrize("model", ["fake-cut-3", "fake-no-done", "fake-error-event-3"])
def test_a_native_stream_that_breaks_off_ends_in_an_error_event(application: Application, model: str) -> None:
    reply = application.chat(model, path="/api/chat", stream=True)
    *_, last = events_of(reply)
    assert (reply.status_code, last["error"]["code"]) == (200, "upstream_error")
    [row] = closed_usage()
    assert row.outcome == "upstream_failed"
    if model == "fake-no-done":
        # The usage had come.
        assert (row.status, row.completion_tokens) == ("settled", 4)
    else:
        assert (row.status, row.completion_tokens) == ("estimated", count_text_tokens("You said: "))


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_native_reply_without_usage_is_counted_by_us(application: Application, is_stream: bool) -> None:
    reply = application.chat("fake-no-usage", path="/api/chat", stream=is_stream)
    assert reply.status_code == 200
    [row] = closed_usage()
    assert (row.status, row.usage_source, row.outcome) == ("estimated", "estimated", "ok")
    assert (row.prompt_tokens, row.completion_tokens) == estimated(SAID)
    last = events_of(reply)[-1] if is_stream else reply.json()
    assert last["usage"]["total_tokens"] == row.total_tokens


# --- In process -------------------------------------------------------------------------------------------------------

MESSAGES = [ChatMessage(role="user", content=str(HELLO[0]["content"]))]
Within = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def within(upstream: FakeUpstream, gateway_environment: dict[str, str], transactional_db: None) -> Iterator[Within]:
    """Runs gateway code in an event loop of this very process, in front of the fake upstream."""

    async def run_and_close(scenario: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await scenario
        finally:
            await runtime().run_db(connections.close_all)
            await close_runtime()

    with override_settings(**{**gateway_environment, "LLM_TARGET_FAILURES": 0, "LLM_DB_THREADS": 1}):
        yield lambda scenario: asyncio.run(run_and_close(scenario))


async def texts_of(stream: Awaitable[object]) -> list[str]:
    return [text async for text in cast("AsyncIterator[str]", await stream)]


async def read_into(received: list[str], stream: Awaitable[object]) -> None:
    async for text in cast("AsyncIterator[str]", await stream):
        received.append(text)  # noqa: PERF401  # what came before a failure must be there after it


def test_a_call_from_within_is_on_the_books_of_the_gateways_own_account(within: Within) -> None:
    response = within(LLMService().chat(MESSAGES, model="gpt-4o"))
    assert (response.reply, response.model) == (SAID, "gpt-4o")
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (9, 4)
    [row] = closed_usage()
    assert (row.status, row.prompt_tokens, row.completion_tokens) == ("settled", 9, 4)
    assert row.account.name == "internal"


def test_a_stream_from_within_is_text_and_on_the_books(within: Within) -> None:
    texts = within(texts_of(LLMService().chat(MESSAGES, model="gpt-4o", stream=True)))
    assert texts == ["You ", "said: ", "hello ", "there"]
    [row] = closed_usage()
    assert (row.status, row.is_stream, row.total_tokens) == ("settled", True, 13)


def test_a_stream_from_within_that_breaks_off_raises(within: Within) -> None:
    received: list[str] = []
    with pytest.raises(UpstreamFailed):
        within(read_into(received, LLMService().chat(MESSAGES, model="fake-cut-3", stream=True)))
    assert received == ["You ", "said: "]
    [row] = closed_usage()
    assert (row.status, row.outcome) == ("estimated", "upstream_failed")


def test_a_whole_call_from_within_that_is_not_tracked_leaves_no_row(within: Within, upstream: FakeUpstream) -> None:
    assert within(LLMService().chat(MESSAGES, model="gpt-4o", track_tokens=False)).reply == SAID
    assert len(upstream.ledger.entries()) == 1
    assert all_calls() == []


def test_a_stream_from_within_that_is_not_tracked_leaves_no_row(within: Within, upstream: FakeUpstream) -> None:
    texts = within(texts_of(LLMService().chat(MESSAGES, model="gpt-4o", stream=True, track_tokens=False)))
    assert texts == ["You ", "said: ", "hello ", "there"]
    assert len(upstream.ledger.entries()) == 1
    assert all_calls() == []


def test_a_call_from_within_that_fails_raises_our_error(within: Within, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(status=502))
    with pytest.raises(UpstreamFailed) as failure:
        within(LLMService().chat(MESSAGES, model="gpt-4o"))
    assert failure.value.may_have_worked
    [row] = closed_usage()
    assert row.status == "estimated"

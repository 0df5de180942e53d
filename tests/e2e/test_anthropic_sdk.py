"""The official Anthropic SDK in front of the gateway, and the books behind it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import MessageParam, ToolParam
from django.core.management import call_command

from llm.keys import create_key, revoke_key
from llm.models import Account, ApiKey, Usage
from llm.providers.counting import count_text_tokens
from tests.books import closed_usage
from tests.e2e.callers import Application, assert_nothing_happened
from tests.e2e.ledgers import assert_books_equal_ledger
from tests.e2e.test_endings import Ending, ending_of
from tests.e2e.test_unpriced import set_price
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

# The SDK warns of names that come to their end.
MODEL = "claude-test"
HELLO: list[MessageParam] = [{"role": "user", "content": "hello there"}]
ASKED: Any = {"model": MODEL, "max_tokens": 100, "messages": HELLO}
SAID = "You said: hello there"
WEATHER: ToolParam = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
}


# --- What comes back --------------------------------------------------------------------------------------------------


def test_a_whole_reply_is_on_the_books(claude: anthropic.Anthropic, upstream: FakeUpstream) -> None:
    reply = claude.messages.create(**ASKED)
    [block] = reply.content
    assert (block.type, getattr(block, "text", ""), reply.stop_reason) == ("text", SAID, "end_turn")
    [row] = closed_usage()
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (row.prompt_tokens, row.completion_tokens)
    assert reply._request_id == f"req_{row.request_id.hex}"
    assert_books_equal_ledger(upstream, provider="anthropic")


def test_a_stream_is_on_the_books(claude: anthropic.Anthropic, upstream: FakeUpstream) -> None:
    with claude.messages.stream(**ASKED) as stream:
        assert "".join(stream.text_stream) == SAID
        message = stream.get_final_message()
    [row] = closed_usage()
    assert (message.usage.input_tokens, message.usage.output_tokens) == (row.prompt_tokens, row.completion_tokens)
    assert_books_equal_ledger(upstream, provider="anthropic")


@pytest.mark.parametrize("is_stream", [False, True])
def test_caches_of_both_durations_are_booked(
    claude: anthropic.Anthropic, upstream: FakeUpstream, is_stream: bool
) -> None:
    upstream.enqueue(Script(cache_read_tokens=11, cache_write_5m_tokens=13, cache_write_1h_tokens=17))
    reply = claude.messages.create(**ASKED, stream=is_stream)
    if is_stream:
        list(reply)
    [row] = closed_usage()
    assert (row.cache_read_tokens, row.cache_write_5m_tokens, row.cache_write_1h_tokens) == (11, 13, 17)
    assert_books_equal_ledger(upstream, provider="anthropic")


def test_tools_are_called_whole_and_streamed(claude: anthropic.Anthropic, upstream: FakeUpstream) -> None:
    asked: Any = {**ASKED, "tools": [WEATHER], "tool_choice": {"type": "any"}}
    [whole] = claude.messages.create(**asked).content
    with claude.messages.stream(**asked) as stream:
        [streamed] = stream.get_final_message().content
    assert whole.type == streamed.type == "tool_use"
    assert (whole.name, whole.input) == (streamed.name, streamed.input)
    result: Any = {"type": "tool_result", "tool_use_id": whole.id, "content": "sunny"}
    turns: Any = [*HELLO, {"role": "assistant", "content": [whole]}, {"role": "user", "content": [result]}]
    assert claude.messages.create(**{**asked, "messages": turns, "tool_choice": {"type": "none"}}).content
    assert_books_equal_ledger(upstream, provider="anthropic", calls=3)


def test_the_beta_api_and_its_headers_go_up(claude: anthropic.Anthropic, upstream: FakeUpstream) -> None:
    claude.beta.messages.create(**ASKED, betas=["context-1m-2025-08-07", "future-2027"])
    [entry] = upstream.ledger.entries()
    assert entry.path == "/v1/messages"
    assert entry.headers["anthropic-beta"] == "context-1m-2025-08-07,future-2027"
    assert entry.headers["anthropic-version"] == claude.default_headers["anthropic-version"]
    closed_usage()


def test_the_key_that_goes_up_is_ours_and_the_version_is_pinned_where_the_caller_sends_none(
    application: Application, before_anthropic: Gateway, upstream: FakeUpstream
) -> None:
    reply = application.at(before_anthropic).chat(path="/v1/messages?beta=true", max_tokens=5)
    assert reply.status_code == 200
    [entry] = upstream.ledger.entries()
    assert entry.headers["x-api-key"] == "sk-ant-test-our-own-upstream-key-0123456789"
    assert entry.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in entry.headers
    assert application.secret not in str(entry.headers)
    assert "openai-processing-ms" not in reply.headers
    closed_usage()


def test_the_asynchronous_sdk_is_served(before_anthropic: Gateway, upstream: FakeUpstream, api_key: str) -> None:
    async def ask() -> list[str]:
        async with anthropic.AsyncAnthropic(api_key=api_key, base_url=before_anthropic.url, max_retries=0) as sdk:

            async def streamed() -> str:
                async with sdk.messages.stream(**ASKED) as stream:
                    return await stream.get_final_text()

            return await asyncio.gather(*(streamed() for _ in range(10)))

    assert asyncio.run(ask()) == [SAID] * 10
    assert_books_equal_ledger(upstream, provider="anthropic", calls=10)


@pytest.mark.parametrize("is_stream", [False, True])
def test_who_may_see_costs_finds_it_in_the_usage(claude: anthropic.Anthropic, show_cost: None, is_stream: bool) -> None:
    set_price(MODEL, provider="anthropic", input="3", output="15")
    if is_stream:
        with claude.messages.stream(**ASKED) as stream:
            costs = [event.usage.model_dump()["cost"] for event in stream if event.type == "message_delta"]
    else:
        costs = [claude.messages.create(**ASKED).usage.model_dump()["cost"]]
    [row] = closed_usage()
    assert row.cost is not None
    assert [Decimal(str(cost)) for cost in costs] == [row.cost]


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_a_wrong_key_is_refused_and_nothing_is_sent(claude: anthropic.Anthropic, upstream: FakeUpstream) -> None:
    with pytest.raises(anthropic.AuthenticationError) as refusal:
        claude.with_options(api_key="llm_wrong").messages.create(**ASKED)
    assert refusal.value.type == "authentication_error"
    assert_nothing_happened(upstream)


def test_a_revoked_key_is_refused_on_the_very_next_call(claude: anthropic.Anthropic, upstream: FakeUpstream) -> None:
    claude.messages.create(**ASKED)
    revoke_key(ApiKey.objects.get())
    with pytest.raises(anthropic.AuthenticationError, match="revoked"):
        claude.messages.create(**ASKED)
    assert len(upstream.ledger.entries()) == len(closed_usage()) == 1


@pytest.mark.parametrize(
    ("model", "kind", "named"),
    [
        ("fake-400", anthropic.BadRequestError, "invalid_request_error"),
        ("fake-404", anthropic.NotFoundError, "not_found_error"),
        ("fake-429-30", anthropic.RateLimitError, "rate_limit_error"),
        ("fake-529", anthropic.OverloadedError, "overloaded_error"),
        ("fake-401", anthropic.InternalServerError, "api_error"),
        ("fake-garbage", anthropic.InternalServerError, "api_error"),
    ],
)
def test_failures_are_the_sdks_own_kinds(
    claude: anthropic.Anthropic, model: str, kind: type[anthropic.APIStatusError], named: str
) -> None:
    with pytest.raises(kind) as refusal:
        claude.messages.create(**{**ASKED, "model": model})
    row = next(iter(Usage.objects.order_by("id")))
    assert refusal.value.type == named
    assert refusal.value.request_id == f"req_{row.request_id.hex}"
    assert refusal.value.body["request_id"] == refusal.value.request_id  # type: ignore[index]


def test_a_limit_that_resets_soon_is_a_rate_limit(claude: anthropic.Anthropic, account: Account) -> None:
    call_command("set_limit", account.name, "requests", "minute", "1", stdout=io.StringIO())
    first = claude.messages.with_raw_response.create(**ASKED)
    assert first.headers["anthropic-ratelimit-requests-limit"] == "1"
    assert first.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    with pytest.raises(anthropic.RateLimitError) as refusal:
        # A minute may end between two of three calls, but only once.
        [claude.messages.create(**ASKED) for _ in range(2)]
    assert refusal.value.type == "rate_limit_error"
    assert 0 < int(refusal.value.response.headers["retry-after"]) <= 60


def test_a_limit_that_is_spent_is_a_matter_of_billing_and_not_tried_again(
    claude: anthropic.Anthropic, account: Account, upstream: FakeUpstream
) -> None:
    call_command("set_limit", account.name, "requests", "total", "0", stdout=io.StringIO())
    with pytest.raises(anthropic.APIStatusError) as refusal:
        claude.with_options(max_retries=5).messages.create(**ASKED)
    assert (refusal.value.status_code, refusal.value.type) == (402, "billing_error")
    assert_nothing_happened(upstream)


def test_a_limit_lowers_the_maximum(claude: anthropic.Anthropic, account: Account, upstream: FakeUpstream) -> None:
    call_command("set_limit", account.name, "tokens", "day", "5000", stdout=io.StringIO())
    reply = claude.messages.with_raw_response.create(**{**ASKED, "max_tokens": 20_000})
    [entry] = upstream.ledger.entries()
    assert entry.body["max_tokens"] == int(reply.headers["x-llm-max-output-tokens"]) < 5000


def test_a_file_at_the_provider_is_refused_by_name(claude: anthropic.Anthropic, upstream: FakeUpstream) -> None:
    block: Any = {"type": "document", "source": {"type": "file", "file_id": "file_011"}}
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.content\[0\]\.source\.file_id"):
        claude.beta.messages.create(**{**ASKED, "messages": [{"role": "user", "content": [block]}]})
    assert_nothing_happened(upstream)


def test_a_fallback_of_the_callers_own_is_refused(claude: anthropic.Anthropic, upstream: FakeUpstream) -> None:
    with pytest.raises(anthropic.BadRequestError, match="fallbacks"):
        claude.beta.messages.create(**ASKED, fallbacks=[{"model": "claude-other"}])
    assert_nothing_happened(upstream)


# --- Streams that end early -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["fake-cut-5", "fake-cut-inside-5", "fake-close-5", "fake-error-event-5"])
def test_a_failure_in_mid_stream_raises_in_the_sdk_and_is_an_estimate(claude: anthropic.Anthropic, model: str) -> None:
    heard: list[str] = []
    with (
        pytest.raises(anthropic.APIStatusError) as failure,
        claude.messages.stream(**{**ASKED, "model": model}) as stream,
    ):
        heard.extend(stream.text_stream)
    assert "".join(heard) == "You said: "
    assert failure.value.type == "api_error"
    [row] = closed_usage()
    assert (row.status, row.usage_source, row.outcome) == ("estimated", "estimated", "upstream_failed")
    # The prompt is known from the first event on, what was generated is counted.
    assert (row.prompt_tokens, row.completion_tokens) == (9, count_text_tokens("You said: "))


def test_a_stream_that_begins_with_an_overload_is_tried_again(
    claude: anthropic.Anthropic, upstream: FakeUpstream
) -> None:
    upstream.enqueue(Script(error_after_events=0))
    with claude.messages.stream(**ASKED) as stream:
        assert stream.get_final_text() == SAID
    assert [(row.outcome, row.total_tokens) for row in closed_usage(2)] == [("upstream_failed", 0), ("ok", 13)]


def test_a_caller_who_leaves_a_stream_is_on_the_books_with_the_upstreams_figures(
    claude: anthropic.Anthropic, upstream: FakeUpstream
) -> None:
    upstream.enqueue(Script(event_delay_s=0.05))
    with claude.messages.stream(**ASKED) as stream:
        next(iter(stream.text_stream))
    [row] = closed_usage()
    [entry] = upstream.ledger.entries()
    assert entry.finished
    assert ending_of(row) == Ending("settled", "drained", "client_gone", (entry.prompt_tokens, entry.completion_tokens))


def test_with_the_policy_cancel_what_was_told_so_far_is_estimated(
    start_gateway: Callable[..., Gateway], api_key: str, http: httpx2.Client, upstream: FakeUpstream
) -> None:
    gateway = start_gateway(LLM_PROVIDER="anthropic", LLM_DISCONNECT_POLICY="cancel")
    sdk = anthropic.Anthropic(api_key=api_key, base_url=gateway.url, max_retries=0, http_client=http)
    upstream.enqueue(Script(hang_after_events=5))
    with sdk.messages.stream(**ASKED) as stream:
        next(iter(stream.text_stream))
    [row] = closed_usage()
    assert (row.status, row.outcome) == ("estimated", "client_gone")


# --- Outside the view -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", 404, "not_found_error"),
        ("POST", "/v1/v1/messages", 404, "not_found_error"),
    ],
)
def test_what_is_refused_before_any_view_is_in_anthropics_words(
    application: Application, method: str, path: str, status: int, kind: str
) -> None:
    reply = application.send(method, path, body=b"{}" if method == "POST" else None)
    assert (reply.status_code, reply.json()["type"], reply.json()["error"]["type"]) == (status, "error", kind)
    assert reply.json()["request_id"] == reply.headers["request-id"] == reply.headers["x-request-id"]
    assert "openai-processing-ms" not in reply.headers


def test_a_body_that_is_no_json_is_refused_in_anthropics_words(
    application: Application, upstream: FakeUpstream
) -> None:
    reply = application.send("POST", "/v1/messages", body=b'{"model":')
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")
    assert_nothing_happened(upstream)


def test_a_body_that_is_too_large_is_refused_in_anthropics_words(application: Application) -> None:
    head = application.request_bytes(b"", path="/v1/messages").replace(
        b"content-length: 0", b"content-length: 40000000"
    )
    reply = application.send_bytes(head)
    assert (reply.status_code, reply.json()["error"]["type"]) == (413, "request_too_large")


def test_without_the_books_nothing_is_sent(application: Application, bookless: Gateway, upstream: FakeUpstream) -> None:
    reply = application.at(bookless).chat(path="/v1/messages")
    assert (reply.status_code, reply.json()["error"]["type"]) == (503, "api_error")
    assert upstream.ledger.entries() == ()


def test_each_key_calls_on_its_own_account(claude: anthropic.Anthropic, account: Account) -> None:
    key, secret = create_key(account, name="another")
    claude.with_options(api_key=secret).messages.create(**ASKED)
    [row] = closed_usage()
    assert (row.account_id, row.api_key_id) == (account.pk, key.pk)

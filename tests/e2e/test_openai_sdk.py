"""The official OpenAI SDK in front of the gateway, and the books behind it."""

from __future__ import annotations

import asyncio
import io
import re
from decimal import Decimal
from typing import Any
from uuid import UUID

import openai
import orjson
import pytest
from django.core.management import call_command
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from llm.enums import CallOutcome, UsageSource, UsageStatus
from llm.models import ApiKey, Price
from tests.books import all_calls, closed_usage
from tests.e2e.callers import Application, events_of, hello, text_of
from tests.e2e.ledgers import assert_books_equal_ledger
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello there"}]
SAID = "You said: hello there"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
WITH_USAGE: Any = {"stream": True, "stream_options": {"include_usage": True}}
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}


# --- What comes back --------------------------------------------------------------------------------------------------


def test_a_whole_reply_is_on_the_books_as_the_upstream_served_it(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    reply = sdk.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert reply.choices[0].message.content == SAID
    [row] = closed_usage()
    [entry] = upstream.ledger.entries()
    assert (row.status, row.usage_source, row.outcome) == (UsageStatus.SETTLED, UsageSource.REPORTED, CallOutcome.OK)
    assert (row.prompt_tokens, row.completion_tokens) == (entry.prompt_tokens, entry.completion_tokens) == (9, 4)
    assert row.upstream_response_id == entry.response_id == reply.id


@pytest.mark.parametrize("wants_usage", [True, False])
def test_a_stream_is_on_the_books_and_its_usage_goes_to_who_asked(
    sdk: openai.OpenAI, upstream: FakeUpstream, wants_usage: bool
) -> None:
    options: Any = {"include_usage": True} if wants_usage else openai.omit
    stream = sdk.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True, stream_options=options)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == SAID
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == ([13] if wants_usage else [])
    assert_books_equal_ledger(upstream, provider="openai")


@pytest.mark.parametrize("wants_usage", [True, False])
def test_a_stream_looks_as_if_the_caller_had_asked_the_upstream_itself(
    application: Application, upstream: FakeUpstream, wants_usage: bool
) -> None:
    fields: Any = WITH_USAGE if wants_usage else {"stream": True}
    through = application.chat(**fields)
    sent = {"authorization": "Bearer sk-anybody"}
    direct = application.http.post(
        f"{upstream.openai_base_url}/chat/completions", content=hello(**fields), headers=sent
    )
    changing = re.compile(r'"id":"chatcmpl-\w+"|"created":\d+')
    assert changing.sub("", through.text) == changing.sub("", direct.text)
    assert through.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (through.headers["cache-control"], through.headers["x-accel-buffering"]) == ("no-cache", "no")


def test_a_whole_reply_is_the_upstreams_to_the_byte(application: Application, upstream: FakeUpstream) -> None:
    body = b'{ "id" : "x", "choices":[{"index":0,"message":{"content":"\\u00e9\xc3\xa9"}}],"new": 1.50, "usage":null}\n'
    upstream.enqueue(Script(body=body))
    assert application.chat().content == body
    closed_usage()


@pytest.mark.parametrize("is_stream", [False, True])
def test_every_reply_says_which_call_it_was(application: Application, is_stream: bool) -> None:
    headers = application.chat(stream=is_stream).headers
    [row] = closed_usage()
    assert headers["x-llm-call-id"] == str(row.id)
    assert headers["x-request-id"] == f"req_{row.request_id.hex}"
    assert (headers["x-llm-provider"], headers["x-llm-attempts"]) == ("openai", "1")
    assert headers["openai-processing-ms"].isdigit()
    assert row.id == row.request_id


def test_the_asynchronous_sdk_is_served_whole_and_streamed_at_once(
    gateway: Gateway, upstream: FakeUpstream, api_key: str
) -> None:
    said = asyncio.run(ask_much_at_once(gateway, api_key))
    assert said == [f"You said: call {number}" for number in range(20) for _ in range(2)]
    assert_books_equal_ledger(upstream, provider="openai", calls=40)


async def ask_much_at_once(gateway: Gateway, api_key: str) -> list[str]:
    """20 questions, each once for a whole reply and once for a stream."""
    async with openai.AsyncOpenAI(api_key=api_key, base_url=gateway.openai_base_url, max_retries=0) as sdk:

        async def whole(number: int) -> str:
            messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": f"call {number}"}]
            reply = await sdk.chat.completions.create(model="gpt-4o", messages=messages)
            return reply.choices[0].message.content or ""

        async def streamed(number: int) -> str:
            messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": f"call {number}"}]
            stream = await sdk.chat.completions.create(model="gpt-4o", messages=messages, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        return await asyncio.gather(*(ask(number) for number in range(20) for ask in (whole, streamed)))


# --- What goes up -----------------------------------------------------------------------------------------------------


def test_tools_are_called_and_answered(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": "use the tool"}]
    first = sdk.chat.completions.create(model="gpt-4o", messages=asked, tools=[WEATHER])
    assert first.choices[0].finish_reason == "tool_calls"
    [call] = first.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"sample","days":1}')
    answered: list[ChatCompletionMessageParam] = [
        *asked,
        first.choices[0].message.to_dict(),  # type: ignore[list-item]  # as the SDK's own examples do it
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    second = sdk.chat.completions.create(model="gpt-4o", messages=answered, tools=[WEATHER])
    assert second.choices[0].finish_reason == "stop"
    assert_books_equal_ledger(upstream, provider="openai", calls=2)


def test_tools_are_called_on_a_stream(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    with sdk.chat.completions.stream(
        model="gpt-4o", messages=[{"role": "user", "content": "use the tool"}], tools=[WEATHER]
    ) as stream:
        reply = stream.get_final_completion()
    [call] = reply.choices[0].message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"sample","days":1}')
    assert_books_equal_ledger(upstream, provider="openai")


def test_json_mode_goes_through(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    reply = sdk.chat.completions.create(model="gpt-4o", messages=HELLO, response_format={"type": "json_object"})
    assert orjson.loads(reply.choices[0].message.content or "") == {"answer": "yes", "confidence": 1}
    assert_books_equal_ledger(upstream, provider="openai")


def test_pictures_go_through(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    sdk.chat.completions.create(
        model="gpt-4o",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is this"},
                    {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
                ],
            }
        ],
    )
    [entry] = upstream.ledger.entries()
    assert entry.body["messages"][0]["content"][1]["image_url"] == {"url": PIXEL, "detail": "low"}
    assert entry.prompt_tokens == 3 + 4 + 3 + 85
    assert_books_equal_ledger(upstream, provider="openai")


@pytest.mark.parametrize("is_stream", [False, True])
def test_several_choices_are_all_paid_for(sdk: openai.OpenAI, upstream: FakeUpstream, is_stream: bool) -> None:
    if is_stream:
        chunks = list(sdk.chat.completions.create(model="gpt-4o", messages=HELLO, n=2, stream=True))
        texts = ["", ""]
        for choice in (choice for chunk in chunks for choice in chunk.choices):
            texts[choice.index] += choice.delta.content or ""
    else:
        reply = sdk.chat.completions.create(model="gpt-4o", messages=HELLO, n=2)
        texts = [choice.message.content or "" for choice in reply.choices]
    assert texts == [SAID, SAID]
    assert closed_usage()[0].completion_tokens == 8
    assert_books_equal_ledger(upstream, provider="openai")


def test_fields_that_nobody_knows_yet_reach_the_upstream(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    unknown = {"reasoning": {"effort": "extreme"}, "beta_field": [1, 2.5, None], "ключ": "значение"}
    sdk.chat.completions.create(model="gpt-4o", messages=HELLO, extra_body=unknown)
    [entry] = upstream.ledger.entries()
    assert entry.body == {"model": "gpt-4o", "messages": HELLO, **unknown}


@pytest.mark.parametrize("fields", [b"", b', "stream": true, "stream_options": {"include_usage": true}'])
def test_a_body_reaches_the_upstream_to_the_byte_where_nothing_is_ours_to_change(
    application: Application, upstream: FakeUpstream, fields: bytes
) -> None:
    body = b'{"new" :1.50,"x":[1e3, 0.10],\n "messages": [{"role":"user","content":"h\\u00e9llo"}], "model":"gpt-4o"%s}'
    body %= fields
    assert application.send("POST", "/v1/chat/completions", body=body).status_code == 200
    [entry] = upstream.ledger.entries()
    assert entry.raw == body


def test_of_a_stream_that_asks_for_no_usage_only_that_is_changed(
    application: Application, upstream: FakeUpstream
) -> None:
    application.chat(stream=True, stream_options={"include_obfuscation": False}, user="a user")
    [entry] = upstream.ledger.entries()
    sent = orjson.loads(hello(stream=True, user="a user"))
    assert entry.body == {**sent, "stream_options": {"include_obfuscation": False, "include_usage": True}}


# --- What it cost -----------------------------------------------------------------------------------------------------


@pytest.fixture
def price() -> None:
    """Of gpt-4o, in USD per million tokens."""
    rates = {"input": "2.50", "cache_read": "1.25", "output": "10.000001"}
    call_command("set_price", "openai", "gpt-4o", **rates, stdout=io.StringIO())


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_call_costs_what_the_upstream_served_at_the_price_in_force(
    sdk: openai.OpenAI, upstream: FakeUpstream, price: None, is_stream: bool
) -> None:
    upstream.enqueue(Script(cache_read_tokens=1000, reasoning_tokens=500))
    if is_stream:
        list(sdk.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))
    else:
        sdk.chat.completions.create(model="gpt-4o", messages=HELLO)
    [row] = closed_usage()
    [entry] = upstream.ledger.entries()
    plain_input = entry.prompt_tokens - entry.counts.cache_read_tokens
    paid_in = plain_input * Decimal("2.50") + 1000 * Decimal("1.25")
    paid_out = entry.completion_tokens * Decimal("10.000001")
    assert row.cost == (paid_in + paid_out) / 1_000_000 == Decimal("0.006312500504")
    assert row.rate_set is not None
    assert row.rate_set.price == row.price


@pytest.mark.parametrize("is_stream", [False, True])
def test_who_may_not_see_the_cost_gets_none_of_it(application: Application, price: None, is_stream: bool) -> None:
    reply = application.chat(**(WITH_USAGE if is_stream else {}))
    assert "cost" not in reply.text
    assert "x-llm-cost" not in reply.headers
    assert closed_usage()[0].cost == Decimal("0.000062500004")


def test_who_may_see_the_cost_gets_it_as_an_exact_number(
    application: Application, show_cost: None, price: None
) -> None:
    reply = application.chat()
    assert reply.headers["x-llm-cost"] == "0.000062500004"
    assert re.findall(r'"cost": ?([^,}]+)', reply.text) == ["0.000062500004"]
    assert reply.json()["usage"]["cost"] == 0.000062500004
    assert reply.json()["usage"]["total_tokens"] == 13
    assert closed_usage()[0].cost == Decimal("0.000062500004")


@pytest.mark.parametrize("wants_usage", [True, False])
def test_on_a_stream_the_cost_stands_in_the_usage_for_who_asked(
    application: Application, show_cost: None, price: None, wants_usage: bool
) -> None:
    reply = application.chat(**(WITH_USAGE if wants_usage else {"stream": True}))
    assert text_of(reply) == SAID
    assert re.findall(r'"cost": ?([^,}]+)', reply.text) == (["0.000062500004"] if wants_usage else [])
    assert events_of(reply)[-1] == "[DONE]"


def test_a_call_without_a_price_shows_no_cost(application: Application, show_cost: None) -> None:
    reply = application.chat("a-model-without-a-price")
    assert "x-llm-cost" not in reply.headers
    assert "cost" not in reply.text
    assert closed_usage()[0].cost is None


# --- Models -----------------------------------------------------------------------------------------------------------


def test_models_with_a_price_are_listed_and_found(sdk: openai.OpenAI, price: None) -> None:
    call_command("set_price", "openai", "gpt-4o-mini", free=True, stdout=io.StringIO())
    assert [(model.id, model.owned_by, model.object) for model in sdk.models.list()] == [
        ("gpt-4o", "openai", "model"),
        ("gpt-4o-mini", "openai", "model"),
    ]
    assert sdk.models.retrieve("gpt-4o-mini").id == "gpt-4o-mini"
    with pytest.raises(openai.NotFoundError) as refusal:
        sdk.models.retrieve("gpt-unheard-of")
    assert refusal.value.code == "model_not_found"


def test_what_is_known_of_a_models_size_is_told(sdk: openai.OpenAI) -> None:
    sizes = {"context_window": 128_000, "is_free": True, "source": "staff", "provider": "openai"}
    Price.objects.create(model="gpt-4o", **sizes)
    Price.objects.create(model="novel", **{**sizes, "context_window": None})
    known, unknown = sdk.models.list()
    assert known.to_dict() | {"created": 0} == {
        "id": "gpt-4o",
        "object": "model",
        "created": 0,
        "owned_by": "openai",
        "context_length": 128_000,
        "max_output_tokens": 16_384,
    }
    assert unknown.to_dict().keys() == {"id", "object", "created", "owned_by"}
    assert sdk.models.retrieve("gpt-4o") == known


def test_a_key_for_some_models_sees_those_alone(sdk: openai.OpenAI, price: None) -> None:
    call_command("set_price", "openai", "gpt-4o-mini", free=True, stdout=io.StringIO())
    ApiKey.objects.update(allowed_models=["gpt-4o-mini"])
    assert [model.id for model in sdk.models.list()] == ["gpt-4o-mini"]
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("gpt-4o")


# --- Refusals as the SDK sees them ------------------------------------------------------------------------------------


def test_a_wrong_key_is_refused_and_nothing_is_sent(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    with pytest.raises(openai.AuthenticationError) as refusal:
        sdk.with_options(api_key="llm_wrong").chat.completions.create(model="gpt-4o", messages=HELLO)
    assert refusal.value.code == "invalid_api_key"
    assert upstream.ledger.entries() == ()
    assert all_calls() == []


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("fake-400", openai.BadRequestError),
        ("fake-404", openai.NotFoundError),
        ("fake-429-30", openai.RateLimitError),
        ("fake-401", openai.InternalServerError),
        ("fake-garbage", openai.InternalServerError),
    ],
)
def test_failures_are_the_sdks_own_kinds(sdk: openai.OpenAI, model: str, kind: type[openai.APIStatusError]) -> None:
    with pytest.raises(kind) as refusal:
        sdk.chat.completions.create(model=model, messages=HELLO)
    [row] = closed_usage()
    assert refusal.value.request_id == f"req_{row.request_id.hex}"
    assert UUID(refusal.value.response.headers["x-llm-call-id"]) == row.id


def test_the_sdk_does_not_repeat_what_may_have_worked(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    with pytest.raises(openai.InternalServerError):
        sdk.with_options(max_retries=3).chat.completions.create(model="fake-hang-up", messages=HELLO)
    assert len(upstream.ledger.wait_for(1)) == 1
    assert len(closed_usage()) == 1


def test_a_failure_in_mid_stream_raises_in_the_sdk(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(model="fake-cut-3", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError) as failure:
        list(stream)
    assert failure.value.code == "upstream_error"
    closed_usage()

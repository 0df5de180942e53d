"""What the official SDKs offer beyond one call: their asynchronous clients, helpers for streams, parsers, tool runners.

Each endpoint that the gateway has, through each; the synchronous calls themselves are in the tests of each endpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import anthropic
import openai
import pytest
from anthropic import beta_async_tool, beta_tool
from pydantic import BaseModel

from tests.books import all_closed_usage, closed_usage
from tests.e2e.ledgers import assert_books_equal_ledger
from tests.e2e.test_unpriced import set_price
from tests.fakes import FakeUpstream
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

HELLO: Any = [{"role": "user", "content": "hello there"}]
CHAT: Any = {"model": "gpt-4o", "messages": HELLO}
RESPONSE: Any = {"model": "gpt-4o", "input": "hello there"}
MESSAGE: Any = {"model": "claude-test", "max_tokens": 100, "messages": HELLO}
SAID = "You said: hello there"


class Verdict(BaseModel):
    answer: str
    confidence: float


YES = Verdict(answer="yes", confidence=1)


@pytest.fixture
def for_openai(gateway: Gateway, api_key: str) -> Any:
    """What the asynchronous SDK is made with; it belongs to the event loop that it is made in."""
    return {"api_key": api_key, "base_url": gateway.openai_base_url, "max_retries": 0}


@pytest.fixture
def for_anthropic(before_anthropic: Gateway, api_key: str) -> Any:
    return {"api_key": api_key, "base_url": before_anthropic.url, "max_retries": 0}


# --- OpenAI's ---------------------------------------------------------------------------------------------------------


def test_a_chat_is_parsed_whole_and_on_a_stream(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    whole = sdk.chat.completions.parse(**CHAT, response_format=Verdict)
    with sdk.chat.completions.stream(**CHAT, response_format=Verdict) as stream:
        parsed = [event.parsed for event in stream if event.type == "content.done"]
    assert whole.choices[0].message.parsed == YES
    assert parsed == [YES]
    assert_books_equal_ledger(upstream, provider="openai", calls=2)


def test_a_reply_can_be_read_as_it_comes(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    with sdk.chat.completions.with_streaming_response.create(**CHAT) as reply:
        assert reply.headers["x-llm-provider"] == "openai"
        assert SAID in "".join(reply.iter_text())
    assert sdk.responses.with_raw_response.create(**RESPONSE).parse().output_text == SAID
    assert_books_equal_ledger(upstream, provider="openai", calls=2)


def test_a_response_is_parsed_on_a_stream(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    with sdk.responses.stream(**RESPONSE, text_format=Verdict) as stream:
        assert stream.get_final_response().output_parsed == YES
    assert_books_equal_ledger(upstream, provider="openai")


def test_the_asynchronous_sdk_has_every_endpoint(for_openai: Any, upstream: FakeUpstream) -> None:
    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(**for_openai) as sdk:
            asks = (_parsed_chat, _streamed_chat, _response, _streamed_response, _parsed_response, _completions)
            return [*await asyncio.gather(*(each(sdk) for each in asks)), await _embeddings(sdk)]

    assert asyncio.run(ask()) == [YES, SAID, SAID, SAID, YES, [SAID, SAID], [1536, 1536]]
    booked = sorted((row.dialect, row.prompt_tokens, row.completion_tokens) for row in closed_usage(8))
    entries = upstream.ledger.entries()
    assert booked == sorted((entry.dialect, entry.prompt_tokens, entry.completion_tokens) for entry in entries)


async def _parsed_chat(sdk: openai.AsyncOpenAI) -> Verdict | None:
    return (await sdk.chat.completions.parse(**CHAT, response_format=Verdict)).choices[0].message.parsed


async def _streamed_chat(sdk: openai.AsyncOpenAI) -> str | None:
    async with sdk.chat.completions.stream(**CHAT) as stream:
        return (await stream.get_final_completion()).choices[0].message.content


async def _response(sdk: openai.AsyncOpenAI) -> str:
    reply: openai.types.responses.Response = await sdk.responses.create(**RESPONSE)
    return reply.output_text


async def _streamed_response(sdk: openai.AsyncOpenAI) -> str:
    async with sdk.responses.stream(**RESPONSE) as stream:
        return (await stream.get_final_response()).output_text


async def _parsed_response(sdk: openai.AsyncOpenAI) -> Verdict | None:
    parsed: Verdict | None = (await sdk.responses.parse(**RESPONSE, text_format=Verdict)).output_parsed
    return parsed


async def _completions(sdk: openai.AsyncOpenAI) -> list[str]:
    whole = await sdk.completions.create(model="gpt-4o", prompt="hello there")
    pieces = await sdk.completions.create(model="gpt-4o", prompt="hello there", stream=True)
    return [whole.choices[0].text, "".join([piece.choices[0].text async for piece in pieces if piece.choices])]


async def _embeddings(sdk: openai.AsyncOpenAI) -> list[int]:
    vectors = await sdk.embeddings.create(model="gpt-4o", input=["Lisbon", "Porto"])
    return [len(vector.embedding) for vector in vectors.data]


def test_the_asynchronous_sdk_asks_for_what_is_kept_and_for_models(for_openai: Any, upstream: FakeUpstream) -> None:
    set_price(input="1", output="1")

    async def ask() -> None:
        async with openai.AsyncOpenAI(**for_openai) as sdk:
            made = await sdk.responses.create(**RESPONSE)
            assert (await sdk.responses.retrieve(made.id)).id == made.id
            items = [item async for item in sdk.responses.input_items.list(made.id)]
            assert [getattr(item, "content", None) for item in items] == ["hello there"]
            await sdk.responses.delete(made.id)
            with pytest.raises(openai.NotFoundError):
                await sdk.responses.retrieve(made.id)
            assert [model.id async for model in sdk.models.list()] == ["gpt-4o"]
            assert (await sdk.models.retrieve("gpt-4o")).id == "gpt-4o"

    asyncio.run(ask())
    [row] = closed_usage()
    assert (row.dialect, row.outcome) == ("openai.responses", "ok")


KINDS_OF_OPENAI = [
    ("fake-400", openai.BadRequestError),
    ("fake-404", openai.NotFoundError),
    ("fake-429-30", openai.RateLimitError),
    ("fake-500", openai.InternalServerError),
    ("fake-garbage", openai.InternalServerError),
]


@pytest.mark.parametrize(("model", "kind"), KINDS_OF_OPENAI)
def test_failures_are_openais_classes_at_every_endpoint(
    for_openai: Any, upstream: FakeUpstream, model: str, kind: type[openai.APIStatusError]
) -> None:
    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(**for_openai) as sdk:
            asks: list[Awaitable[Any]] = [
                sdk.chat.completions.create(model=model, messages=HELLO),
                sdk.responses.create(model=model, input="hello there"),
                sdk.embeddings.create(model=model, input="hello there"),
                sdk.completions.create(model=model, prompt="hello there"),
            ]
            return [await _request_id_of_failure(kind, each) for each in asks]

    request_ids = asyncio.run(ask())
    assert {f"req_{row.request_id.hex}" for row in all_closed_usage()} == set(request_ids)


async def _request_id_of_failure(
    kind: type[openai.APIStatusError] | type[anthropic.APIStatusError], asked: Awaitable[Any]
) -> str | None:
    try:
        await asked
    except kind as failure:
        return failure.request_id
    pytest.fail(f"{kind.__name__} was expected")


# --- Anthropic's ------------------------------------------------------------------------------------------------------


@beta_tool
def weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: where
    """
    return f"sunny in {city}"


@beta_async_tool
async def async_weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: where
    """
    return f"sunny in {city}"


WISH: Any = {**MESSAGE, "messages": [{"role": "user", "content": "use the tool"}]}


def test_a_message_is_parsed_whole_and_on_a_stream(claude: anthropic.Anthropic, upstream: FakeUpstream) -> None:
    whole = claude.messages.parse(**MESSAGE, output_format=Verdict)
    with claude.messages.stream(**MESSAGE, output_format=Verdict) as stream:
        streamed = stream.get_final_message()
    assert (whole.parsed_output, streamed.parsed_output) == (YES, YES)
    assert_books_equal_ledger(upstream, provider="anthropic", calls=2)


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_tool_runner_goes_on_without_the_thread_that_it_begins_with(
    claude: anthropic.Anthropic, upstream: FakeUpstream, is_stream: bool
) -> None:
    """Threads are kept at the provider, and refused in the words by which the SDK knows to send all messages."""
    runner: Any = claude.beta.messages.tool_runner(**WISH, tools=[weather], stream=is_stream)
    assert runner.until_done().stop_reason == "end_turn"
    first, second = upstream.ledger.entries()
    assert not {"thread"} & {*first.body, *second.body}
    assert second.body["messages"][-1]["content"][0]["content"] == "sunny in sample"
    assert_books_equal_ledger(upstream, provider="anthropic", calls=2)


def test_a_thread_that_nothing_can_replace_is_refused(claude: anthropic.Anthropic, upstream: FakeUpstream) -> None:
    with pytest.raises(anthropic.BadRequestError, match="'thread' refers to a conversation") as refusal:
        claude.beta.messages.thread(**MESSAGE).send()
    details = refusal.value.body["error"]["details"]  # type: ignore[index]
    assert details == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    assert upstream.ledger.entries() == ()
    assert closed_usage(0) == []


def test_the_asynchronous_sdk_has_every_endpoint_of_anthropics(for_anthropic: Any, upstream: FakeUpstream) -> None:
    set_price("claude-test", provider="anthropic", input="1", output="1")

    async def ask() -> list[Any]:
        async with anthropic.AsyncAnthropic(**for_anthropic) as sdk:
            message = await sdk.messages.create(**MESSAGE)
            last = [event.type async for event in await sdk.messages.create(**MESSAGE, stream=True)][-1]
            async with sdk.messages.stream(**MESSAGE) as stream:
                streamed = "".join([text async for text in stream.text_stream])
            parsed = await sdk.messages.parse(**MESSAGE, output_format=Verdict)
            ran = await sdk.beta.messages.tool_runner(**WISH, tools=[async_weather]).until_done()
            counted = await sdk.messages.count_tokens(model="claude-test", messages=HELLO)
            models = [model.id async for model in sdk.models.list(limit=1)]
            models.append((await sdk.models.retrieve("claude-test")).id)
            said = [getattr(block, "text", "") for block in message.content]
            return [*said, last, streamed, parsed.parsed_output, ran.stop_reason, counted.input_tokens, models]

    found = asyncio.run(ask())
    assert found == [SAID, "message_stop", SAID, YES, "end_turn", 9, ["claude-test"] * 2]
    assert {row.outcome for row in closed_usage(7)} == {"ok"}


KINDS_OF_ANTHROPIC = [
    ("fake-400", anthropic.BadRequestError),
    ("fake-404", anthropic.NotFoundError),
    ("fake-429-30", anthropic.RateLimitError),
    ("fake-500", anthropic.InternalServerError),
    ("fake-529", anthropic.OverloadedError),
]


@pytest.mark.parametrize(("model", "kind"), KINDS_OF_ANTHROPIC)
def test_failures_are_anthropics_classes_at_every_endpoint(
    for_anthropic: Any, upstream: FakeUpstream, model: str, kind: type[anthropic.APIStatusError]
) -> None:
    async def ask() -> list[str | None]:
        async with anthropic.AsyncAnthropic(**for_anthropic) as sdk:
            asks: list[Awaitable[Any]] = [
                sdk.messages.create(**{**MESSAGE, "model": model}),
                sdk.messages.create(**{**MESSAGE, "model": model}, stream=True),
                sdk.messages.count_tokens(model=model, messages=HELLO),
            ]
            return [await _request_id_of_failure(kind, each) for each in asks]

    request_ids = asyncio.run(ask())
    assert {f"req_{row.request_id.hex}" for row in all_closed_usage()} == set(request_ids)

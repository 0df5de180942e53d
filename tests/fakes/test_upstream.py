"""The fake upstream on a good day, seen by the providers' own SDKs."""

import asyncio
import base64
from typing import Any

import aiohttp
import orjson
import pytest
from anthropic import AsyncAnthropic, BadRequestError
from openai import AsyncOpenAI, AuthenticationError

from tests.fakes import Counts, FakeUpstream, Script, count_tokens

# 3 for the request, 4 for the message, 2 words.
HELLO: Any = [{"role": "user", "content": "hello there"}]
HELLO_TOKENS = 9
REPLY = "You said: hello there"
REPLY_TOKENS = 4
WEATHER_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}}}
OPENAI_TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER_SCHEMA}}]
ANTHROPIC_TOOLS: Any = [{"name": "get_weather", "input_schema": WEATHER_SCHEMA}]
WEATHER_ARGUMENTS = {"city": "sample", "unit": "c"}


def test_tokens_are_words() -> None:
    assert count_tokens(" one  two\nthree ") == 3


async def test_whole_chat_reply_bills_what_the_ledger_says(upstream: FakeUpstream, openai_client: AsyncOpenAI) -> None:
    reply = await openai_client.chat.completions.create(model="gpt-x", messages=HELLO, user="mark-1")

    assert reply.choices[0].message.content == REPLY
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (HELLO_TOKENS, REPLY_TOKENS)
    [entry] = upstream.ledger.entries()
    assert entry.counts == Counts(prompt_tokens=HELLO_TOKENS, completion_tokens=REPLY_TOKENS)
    assert (entry.serial > 0, entry.dialect, entry.model, entry.is_stream) == (True, "openai.chat", "gpt-x", False)
    assert (entry.marker, entry.credential, entry.response_id) == ("mark-1", "sk-test", reply.id)
    assert (entry.status, entry.finished, entry.has_peer_hung_up) == (200, True, False)
    assert entry.usage == reply.usage.model_dump(exclude_unset=True)
    assert orjson.loads(entry.raw) == entry.body == {"model": "gpt-x", "messages": HELLO, "user": "mark-1"}


async def test_chat_stream_without_include_usage_has_none(upstream: FakeUpstream, openai_client: AsyncOpenAI) -> None:
    stream = await openai_client.chat.completions.create(model="gpt-x", messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == REPLY
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)
    [entry] = upstream.ledger.entries()
    assert (entry.has_sent_usage, entry.finished) == (False, True)
    assert entry.counts == Counts(prompt_tokens=HELLO_TOKENS, completion_tokens=REPLY_TOKENS)


async def test_chat_stream_with_include_usage_ends_in_a_usage_chunk(
    upstream: FakeUpstream, openai_client: AsyncOpenAI
) -> None:
    stream = await openai_client.chat.completions.create(
        model="gpt-x", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = [chunk async for chunk in stream]

    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == HELLO_TOKENS + REPLY_TOKENS
    [entry] = upstream.ledger.entries()
    assert entry.usage == last.usage.model_dump(exclude_unset=True)


async def test_chat_stream_bytes_are_compact_and_end_in_done(
    upstream: FakeUpstream, session: aiohttp.ClientSession
) -> None:
    body = {"model": "gpt-x", "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    async with session.post(f"{upstream.openai_base_url}/chat/completions", json=body) as response:
        events = (await response.read()).split(b"\n\n")

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-request-id"].startswith("req_")
    assert events[-2:] == [b"data: [DONE]", b""]
    assert all(event.endswith(b',"usage":null}') for event in events[:-3])
    assert b'"choices":[],"usage":{"prompt_tokens":9,' in events[-3]
    [entry] = upstream.ledger.entries()
    assert entry.bytes_sent == sum(map(len, events)) + 2 * (len(events) - 1)


async def test_two_choices_bill_twice(upstream: FakeUpstream, openai_client: AsyncOpenAI) -> None:
    reply = await openai_client.chat.completions.create(model="gpt-x", messages=HELLO, n=2)

    assert [choice.message.content for choice in reply.choices] == [REPLY, REPLY]
    assert upstream.ledger.totals().counts.completion_tokens == 2 * REPLY_TOKENS


async def test_chat_calls_a_tool_when_the_user_says_so(upstream: FakeUpstream, openai_client: AsyncOpenAI) -> None:
    said: Any = [{"role": "user", "content": "use a tool"}]
    reply = await openai_client.chat.completions.create(model="gpt-x", messages=said, tools=OPENAI_TOOLS)

    [call] = reply.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert orjson.loads(call.function.arguments) == WEATHER_ARGUMENTS
    assert reply.choices[0].finish_reason == "tool_calls"
    # 8 for the call, and its arguments are one word.
    assert upstream.ledger.totals().counts == Counts(prompt_tokens=17, completion_tokens=9)


async def test_chat_stream_calls_a_required_tool(openai_client: AsyncOpenAI) -> None:
    async with openai_client.chat.completions.stream(
        model="gpt-x", messages=HELLO, tools=OPENAI_TOOLS, tool_choice="required"
    ) as stream:
        reply = await stream.get_final_completion()

    [call] = reply.choices[0].message.tool_calls or []
    assert orjson.loads(call.function.arguments) == WEATHER_ARGUMENTS


async def test_json_replies_are_json(openai_client: AsyncOpenAI) -> None:
    reply = await openai_client.chat.completions.create(
        model="gpt-x", messages=HELLO, response_format={"type": "json_object"}
    )

    assert orjson.loads(reply.choices[0].message.content or "") == {"answer": "yes", "confidence": 1}


async def test_images_are_accepted_at_a_flat_figure(upstream: FakeUpstream, openai_client: AsyncOpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    said: Any = [{"role": "user", "content": [{"type": "text", "text": "see this"}, image]}]
    await openai_client.chat.completions.create(model="gpt-x", messages=said)

    assert upstream.ledger.totals().counts.prompt_tokens == HELLO_TOKENS + 85


async def test_max_tokens_cuts_the_reply_short(openai_client: AsyncOpenAI) -> None:
    reply = await openai_client.chat.completions.create(model="gpt-x", messages=HELLO, max_completion_tokens=2)

    assert reply.choices[0].message.content == "You said: "
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 2


async def test_cached_and_reasoning_tokens_are_parts_of_the_totals(
    upstream: FakeUpstream, openai_client: AsyncOpenAI
) -> None:
    upstream.enqueue(Script(cache_read_tokens=100, reasoning_tokens=30))
    reply = await openai_client.chat.completions.create(model="gpt-x", messages=HELLO)

    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (109, 34)
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens == 100
    assert reply.usage.completion_tokens_details is not None
    assert reply.usage.completion_tokens_details.reasoning_tokens == 30
    assert upstream.ledger.totals().counts == Counts(
        prompt_tokens=109, completion_tokens=34, cache_read_tokens=100, reasoning_tokens=30
    )


async def test_whole_message_bills_what_the_ledger_says(
    upstream: FakeUpstream, anthropic_client: AsyncAnthropic
) -> None:
    upstream.enqueue(Script(cache_read_tokens=100, cache_write_5m_tokens=20, cache_write_1h_tokens=3))
    reply = await anthropic_client.messages.create(
        model="claude-x", max_tokens=50, messages=HELLO, metadata={"user_id": "mark-2"}
    )

    assert [block.text for block in reply.content if block.type == "text"] == [REPLY]
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (HELLO_TOKENS, REPLY_TOKENS)
    assert (reply.usage.cache_read_input_tokens, reply.usage.cache_creation_input_tokens) == (100, 23)
    assert reply.usage.cache_creation is not None
    assert reply.usage.cache_creation.ephemeral_1h_input_tokens == 3
    [entry] = upstream.ledger.entries()
    assert (entry.marker, entry.credential, entry.response_id) == ("mark-2", "sk-ant-test", reply.id)
    assert entry.counts == Counts(
        prompt_tokens=132,
        completion_tokens=4,
        cache_read_tokens=100,
        cache_write_5m_tokens=20,
        cache_write_1h_tokens=3,
    )


async def test_message_stream_reports_cumulative_usage(
    upstream: FakeUpstream, anthropic_client: AsyncAnthropic
) -> None:
    async with anthropic_client.messages.stream(model="claude-x", max_tokens=50, messages=HELLO) as stream:
        kinds = [event.type async for event in stream]
        reply = await stream.get_final_message()

    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert [block.text for block in reply.content if block.type == "text"] == [REPLY]
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (HELLO_TOKENS, REPLY_TOKENS)
    [entry] = upstream.ledger.entries()
    assert (entry.counts, entry.has_sent_usage) == (Counts(HELLO_TOKENS, REPLY_TOKENS), True)


async def test_message_stream_calls_a_named_tool(anthropic_client: AsyncAnthropic) -> None:
    async with anthropic_client.messages.stream(
        model="claude-x",
        max_tokens=50,
        messages=HELLO,
        tools=ANTHROPIC_TOOLS,
        tool_choice={"type": "tool", "name": "get_weather"},
    ) as stream:
        reply = await stream.get_final_message()

    assert [block.input for block in reply.content if block.type == "tool_use"] == [WEATHER_ARGUMENTS]
    assert reply.stop_reason == "tool_use"


async def test_marked_prompts_are_written_to_the_cache(
    upstream: FakeUpstream, anthropic_client: AsyncAnthropic
) -> None:
    system: Any = [{"type": "text", "text": "be very brief", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    reply = await anthropic_client.messages.create(model="claude-x", max_tokens=50, messages=HELLO, system=system)

    assert (reply.usage.input_tokens, reply.usage.cache_creation_input_tokens) == (13, 3)
    assert upstream.ledger.totals().counts.cache_write_1h_tokens == 3


@pytest.mark.slow
async def test_responses_whole_and_streamed_report_the_same_usage(
    upstream: FakeUpstream, openai_client: AsyncOpenAI
) -> None:
    whole = await openai_client.responses.create(model="gpt-x", input="hello there")
    stream = await openai_client.responses.create(model="gpt-x", input="hello there", stream=True)
    events = [event async for event in stream]

    assert whole.output_text == REPLY
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage == whole.usage
    assert [entry.counts for entry in upstream.ledger.entries()] == [Counts(HELLO_TOKENS, REPLY_TOKENS)] * 2


async def test_embeddings_are_the_same_in_both_encodings(upstream: FakeUpstream, openai_client: AsyncOpenAI) -> None:
    plain = await openai_client.embeddings.create(
        model="embed-x", input=["hello there", "you"], dimensions=40, encoding_format="float"
    )
    packed = await openai_client.embeddings.create(
        model="embed-x", input=["hello there", "you"], dimensions=40, encoding_format="base64"
    )

    unpacked = memoryview(base64.b64decode(str(packed.data[1].embedding))).cast("f").tolist()
    assert unpacked == plain.data[1].embedding
    assert (len(unpacked), plain.usage.prompt_tokens) == (40, 3)
    assert upstream.ledger.totals().counts == Counts(prompt_tokens=6)


async def test_models_are_listed(openai_client: AsyncOpenAI) -> None:
    models = await openai_client.models.list()

    assert {"fake-normal", "fake-cut-inside", "bench-stream"} <= {model.id for model in models.data}


async def test_a_missing_key_is_refused_and_bills_nothing(upstream: FakeUpstream, openai_client: AsyncOpenAI) -> None:
    with pytest.raises(AuthenticationError):
        await openai_client.with_options(default_headers={"authorization": ""}).chat.completions.create(
            model="gpt-x", messages=HELLO
        )

    [entry] = upstream.ledger.entries()
    assert (entry.status, entry.credential, entry.counts) == (401, None, Counts())


async def test_many_streams_at_once_end_in_one_entry_each(
    upstream: FakeUpstream, session: aiohttp.ClientSession
) -> None:
    async def run(marker: int) -> int:
        body = {"model": "bench-stream", "messages": HELLO, "stream": True, "user": f"mark-{marker}"}
        async with session.post(f"{upstream.openai_base_url}/chat/completions", json=body) as response:
            return len(await response.read())

    sizes = await asyncio.gather(*(run(marker) for marker in range(60)))

    entries = upstream.ledger.entries()
    assert {entry.marker for entry in entries} == {f"mark-{marker}" for marker in range(60)}
    assert len({entry.response_id for entry in entries}) == 60
    assert upstream.ledger.totals().counts.completion_tokens == 6000
    assert upstream.ledger.totals().bytes_sent == sum(sizes)


THOUGHT = Script(thinking=["Hm."], redacted_thinking=["unseen"])


async def _thought(client: AsyncAnthropic, upstream: FakeUpstream, *, is_stream: bool) -> Any:
    upstream.enqueue(THOUGHT)
    asked: Any = {"model": "claude-x", "max_tokens": 50, "messages": [{"role": "user", "content": "use the tool"}]}
    if not is_stream:
        return await client.messages.create(**asked, tools=ANTHROPIC_TOOLS)
    async with client.messages.stream(**asked, tools=ANTHROPIC_TOOLS) as stream:
        return await stream.get_final_message()


@pytest.mark.parametrize("is_stream", [False, True])
async def test_anthropic_thinks_before_it_answers(
    upstream: FakeUpstream, anthropic_client: AsyncAnthropic, is_stream: bool
) -> None:
    message = await _thought(anthropic_client, upstream, is_stream=is_stream)
    assert [block.type for block in message.content] == ["thinking", "redacted_thinking", "tool_use"]
    assert message.content[0].thinking == "Hm."


@pytest.mark.parametrize(
    ("changes", "left_out", "config", "is_refused"),
    [
        ({}, (), {"type": "adaptive"}, False),
        ({"thinking": "Changed."}, (), {"type": "adaptive"}, True),
        ({"signature": ""}, (), {"type": "adaptive"}, True),
        ({}, ("thinking", "redacted_thinking"), {"type": "adaptive"}, False),
        ({}, ("thinking", "redacted_thinking"), {"type": "enabled", "budget_tokens": 1024}, True),
        ({}, ("thinking", "redacted_thinking"), {"type": "disabled"}, False),
        ({}, (), {"type": "disabled"}, True),
    ],
)
async def test_anthropic_takes_its_thinking_back_unchanged_or_goes_on_without(
    upstream: FakeUpstream,
    anthropic_client: AsyncAnthropic,
    changes: dict[str, Any],
    left_out: tuple[str, ...],
    config: Any,
    is_refused: bool,
) -> None:
    blocks = [block.to_dict() for block in (await _thought(anthropic_client, upstream, is_stream=False)).content]
    content: Any = [block for block in [blocks[0] | changes, *blocks[1:]] if block["type"] not in left_out]
    result: Any = {"type": "tool_result", "tool_use_id": blocks[-1]["id"], "content": "rain"}
    turns: Any = [
        {"role": "user", "content": "use the tool"},
        {"role": "assistant", "content": content},
        {"role": "user", "content": [result]},
    ]
    asked = anthropic_client.messages.create(model="claude-x", max_tokens=2000, messages=turns, thinking=config)
    if is_refused:
        with pytest.raises(BadRequestError, match="thinking"):
            await asked
    else:
        assert (await asked).content[0].type == "text"


PADDED = [
    ("/v1/chat/completions", "chat", {"messages": HELLO, "stream_options": {"include_usage": True}}),
    ("/v1/messages", "messages", {"messages": HELLO, "max_tokens": 1000}),
    ("/v1/responses", "responses", {"input": "hello there"}),
]


@pytest.mark.parametrize(("path", "dialect", "fields"), PADDED)
async def test_padded_replies_are_as_long_in_each_dialect(
    upstream: FakeUpstream, path: str, dialect: str, fields: dict[str, Any]
) -> None:
    async with aiohttp.ClientSession(upstream.anthropic_base_url, headers={"authorization": "Bearer k"}) as session:
        whole = {name: value for name, value in fields.items() if name != "stream_options"}
        async with session.post(path, json={**whole, "model": "bench-padded"}) as reply:
            body = await reply.read()
        async with session.post(path, json={**fields, "model": f"bench-padded-{dialect}", "stream": True}) as reply:
            stream = await reply.read()
    assert (len(body), orjson.loads(body)["obfuscation"].strip("x")) == (3_000, "")
    datas = [line[6:] for line in stream.split(b"\n") if line.startswith(b"data: ")]
    assert (len(stream), len(datas)) == (36_000, 104)
    assert all(orjson.loads(data)["obfuscation"] for data in datas if data != b"[DONE]")


async def test_the_tool_that_the_user_names_is_called_as_the_user_says(openai_client: AsyncOpenAI) -> None:
    asked = 'Call the tool two {"city": "Lisbon"}'
    offered: Any = [{"type": "function", "name": name, "parameters": WEATHER_SCHEMA} for name in ("one", "two")]
    response = await openai_client.responses.create(model="gpt-x", input=asked, tools=offered)
    [call] = response.output
    assert call.type == "function_call"
    assert (call.name, call.arguments, call.status) == ("two", '{"city":"Lisbon"}', "completed")
    async with openai_client.responses.stream(model="gpt-x", input=asked, tools=offered) as stream:
        [streamed] = (await stream.get_final_response()).output
    assert streamed.type == "function_call"
    assert (streamed.name, streamed.arguments) == (call.name, call.arguments)

"""The provider of first runs: says what it was told, and counts it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.providers.base import BaseLLMProvider, ProviderSettings
from llm.providers.counting import count_text_tokens
from llm.providers.echo import EchoProvider
from llm.providers.echo_json import build_example
from llm.types import (
    ChatMessage,
    ChatRequest,
    ChatResponse,
    ImagePart,
    StreamEnd,
    StreamItem,
    TextPart,
    TokenCounts,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
)

ECHO = EchoProvider(ProviderSettings("echo"))


def asking(*messages: ChatMessage) -> ChatRequest:
    return ChatRequest("any-name", messages)


def written(response: ChatResponse) -> int:
    assert response.usage is not None
    return response.usage.completion_tokens


async def stream(request: ChatRequest) -> list[StreamItem]:
    return [item async for item in ECHO.stream_chat(request)]


def drained(request: ChatRequest) -> list[StreamItem]:
    """The items of a stream that never waits for anything, without an event loop."""
    running = stream(request)
    with pytest.raises(StopIteration) as end:
        running.send(None)
    items: list[StreamItem] = end.value.value
    return items


def test_it_is_a_provider() -> None:
    assert isinstance(ECHO, BaseLLMProvider)


async def test_it_repeats_the_last_thing_that_the_user_said() -> None:
    response = await ECHO.chat(
        asking(ChatMessage("system", "Be kind"), ChatMessage("user", "One"), ChatMessage("user", "Two, three"))
    )
    assert (response.reply, response.model, response.finish_reason) == ("Echo: Two, three", "any-name", "stop")
    # Overheads of 4, then Be kind | One | Two , three; and Echo : Two , three.
    assert response.usage == TokenCounts(prompt_tokens=12 + 2 + 1 + 3, completion_tokens=5)


async def test_a_stream_is_the_reply_word_by_word() -> None:
    request = asking(ChatMessage("user", "One two"))
    assert await stream(request) == ["Echo:", " One", " two", StreamEnd("any-name", TokenCounts(6, 4))]


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (ChatMessage("user", ""),),
        (ChatMessage("user", " \n "),),
        (ChatMessage("assistant", "I talk"),),
        (ChatMessage("user", (ImagePart("https://x/y.png"),)),),
    ],
)
async def test_it_says_so_when_nothing_was_said(messages: tuple[ChatMessage, ...]) -> None:
    assert (await ECHO.chat(asking(*messages))).reply == "Echo: (nothing was said)"


async def test_parts_are_one_text() -> None:
    request = asking(ChatMessage("user", (TextPart("One "), ImagePart("data:,"), TextPart("two"))))
    assert (await ECHO.chat(request)).reply == "Echo: One two"


@pytest.mark.slow
@given(st.text())
def test_a_stream_adds_up_to_the_whole_reply(said: str) -> None:
    *words, end = drained(asking(ChatMessage("user", said)))
    expected = f"Echo: {said}" if said.strip() else "Echo: (nothing was said)"
    assert "".join(word for word in words if isinstance(word, str)) == expected
    assert all(words)
    assert isinstance(end, StreamEnd)


@pytest.mark.parametrize("said", ["x" * 2_000_000, "x" + " " * 2_000_000 + "y", "x" + " " * 2_000_000, "x " * 200_000])
def test_no_text_takes_it_long(said: str) -> None:
    *words, _ = drained(asking(ChatMessage("user", said)))
    assert sum(len(word) for word in words if isinstance(word, str)) == len("Echo: ") + len(said)


@pytest.mark.parametrize(
    ("maximum", "reply", "tokens", "reason"),
    [
        (1, "Echo", 1, "length"),
        (3, "Echo: Two", 3, "length"),
        (4, "Echo: Two,", 4, "length"),
        (5, "Echo: Two, three", 5, "stop"),
        (10**9, "Echo: Two, three", 5, "stop"),
    ],
)
async def test_it_keeps_to_the_maximum_whole_and_streamed(maximum: int, reply: str, tokens: int, reason: str) -> None:
    request = ChatRequest("m", (ChatMessage("user", "Two, three"),), max_tokens=maximum)
    whole = await ECHO.chat(request)
    *words, end = await stream(request)
    assert isinstance(end, StreamEnd)
    assert (whole.reply, whole.finish_reason, written(whole)) == (reply, reason, tokens)
    assert ("".join(map(str, words)), end.finish_reason, end.usage) == (reply, reason, whole.usage)


@pytest.mark.parametrize("said", ["word " * 400_000, "\N{LATIN SMALL LETTER E WITH ACUTE}" * 2_000_000])
async def test_a_very_long_text_is_cut_about_there(said: str) -> None:
    response = await ECHO.chat(ChatRequest("m", (ChatMessage("user", said),), max_tokens=100_000))
    assert (written(response), response.finish_reason) == (100_000, "length")
    assert 99_000 <= count_text_tokens(response.reply) <= 101_000


# --- Tools and JSON ---------------------------------------------------------------------------------------------------

WEATHER = Tool("weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}})
TIME = Tool("time", parameters={})
ASKED = ChatMessage("user", "How is the weather?")


async def test_a_request_with_tools_gets_a_call_of_the_first_the_same_each_time() -> None:
    request = ChatRequest("m", (ASKED,), tools=(WEATHER, TIME))
    response = await ECHO.chat(request)
    [call] = response.tool_calls
    assert (call.name, call.arguments, response.reply, response.finish_reason) == (
        "weather",
        '{"city": "echo"}',
        "",
        "tool_calls",
    )
    assert (await ECHO.chat(request)).tool_calls == (call,)
    begin, rest, end = await stream(request)
    assert begin == ToolCallDelta(0, call.id, "weather")
    assert rest == ToolCallDelta(0, arguments='{"city": "echo"}')
    assert isinstance(end, StreamEnd)
    assert (end.finish_reason, end.usage) == ("tool_calls", response.usage)


@pytest.mark.parametrize(("maximum", "arguments"), [(1, ""), (3, '{"city'), (6, '{"city": "echo')])
async def test_a_call_is_cut_too(maximum: int, arguments: str) -> None:
    response = await ECHO.chat(ChatRequest("m", (ASKED,), tools=(WEATHER,), max_tokens=maximum))
    [call] = response.tool_calls
    assert (call.name, call.arguments, response.finish_reason) == ("weather", arguments, "length")
    assert written(response) == maximum


async def test_a_forced_tool_is_called_and_a_forbidden_one_is_not() -> None:
    tools = (WEATHER, TIME)
    forced = await ECHO.chat(ChatRequest("m", (ASKED,), tools=tools, tool_choice=ToolChoice("tool", "time")))
    assert [(call.name, call.arguments) for call in forced.tool_calls] == [("time", "{}")]
    none = await ECHO.chat(ChatRequest("m", (ASKED,), tools=tools, tool_choice=ToolChoice("none")))
    assert (none.tool_calls, none.reply) == ((), "Echo: How is the weather?")


async def test_after_the_tools_result_it_talks_again() -> None:
    call = ToolCall("call_1", "weather", "{}")
    answered = (
        ASKED,
        ChatMessage("assistant", "", tool_calls=(call,)),
        ChatMessage("tool", "Sunny", tool_call_id="call_1"),
    )
    response = await ECHO.chat(ChatRequest("m", answered, tools=(WEATHER,)))
    assert (response.tool_calls, response.finish_reason) == ((), "stop")
    assert response.reply == "Echo: How is the weather?"


async def test_json_mode_is_json() -> None:
    request = ChatRequest("m", (ChatMessage("user", 'Say "hi"'),), response_format={"type": "json_object"})
    assert json.loads((await ECHO.chat(request)).reply) == {"echo": 'Say "hi"'}


async def test_a_json_schema_is_kept_to() -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 6},
            "kind": {"enum": ["cat", "dog"]},
            "age": {"type": "integer", "minimum": 7},
            "born": {"type": ["null", "string"], "format": "date"},
            "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
            "owner": {"$ref": "#/$defs/Person"},
            "either": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        },
        "$defs": {"Person": {"type": "object", "properties": {"name": {"const": "Zoë"}}}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "pet", "schema": schema}}
    reply = (await ECHO.chat(ChatRequest("m", (ASKED,), response_format=wanted))).reply
    assert json.loads(reply) == {
        "name": "echooo",
        "kind": "cat",
        "age": 7,
        "born": "2026-01-31",
        "tags": [True, True],
        "owner": {"name": "Zoë"},
        "either": None,
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/nowhere"},
        {"type": "object", "properties": {str(number): {"$ref": "#"} for number in range(30)}},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 10**9},
        {"type": "string", "minLength": 10**9, "maxLength": -1},
        {"type": "number", "minimum": float("inf"), "maximum": "x"},
        {"type": 3, "properties": []},
        [],
        None,
    ],
)
def test_no_schema_is_too_odd_or_without_an_end(schema: object) -> None:
    assert len(json.dumps(build_example(schema))) < 100_000

from __future__ import annotations

from itertools import product
from typing import Any

import orjson
import pytest

from llm.dialects.anthropic_messages.request import request_body
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.errors import InvalidRequest
from llm.types import ChatMessage, ChatRequest, ImagePart, TextPart, Thinking, Tool, ToolCall, ToolChoice

MESSAGES = [{"role": "user", "content": "Hello"}]
HELLO = (ChatMessage("user", "Hello"),)


def translate(**fields: Any) -> ChatRequest:
    raw = orjson.dumps({"messages": MESSAGES, "model": "public", **fields})
    return OPENAI_CHAT.to_chat(OPENAI_CHAT.parse(raw), upstream_model="claude")


def test_the_least_request() -> None:
    assert translate() == ChatRequest(model="claude", messages=HELLO)


def test_every_field_that_has_a_place_is_translated() -> None:
    chat = translate(
        max_tokens=9,
        temperature=1,
        top_p=0.5,
        stop=["a", "b"],
        tools=[{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        reasoning_effort="low",
        user="u",
    )

    assert chat == ChatRequest(
        model="claude",
        messages=HELLO,
        max_tokens=9,
        temperature=1.0,
        top_p=0.5,
        stop=("a", "b"),
        tools=(Tool("f", "d", {"type": "object"}),),
        tool_choice=ToolChoice("tool", "f", parallel=False),
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        reasoning_effort="low",
        user="u",
    )


def test_the_newer_name_of_the_maximum_goes_first() -> None:
    assert translate(max_tokens=9, max_completion_tokens=5).max_tokens == 5


def test_messages_of_every_role() -> None:
    data_url = "data:image/png;base64,AAAA"
    chat = translate(
        messages=[
            {"role": "system", "content": "s"},
            {"role": "developer", "content": [{"type": "text", "text": "d"}]},
            {
                "role": "user",
                "name": "Ann",
                "content": [
                    {"type": "text", "text": "t"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": data_url}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        ]
    )

    assert chat.messages == (
        ChatMessage("system", "s"),
        ChatMessage("developer", (TextPart("d"),)),
        ChatMessage("user", (TextPart("t"), ImagePart("https://x/y.png", "low"), ImagePart(data_url)), name="Ann"),
        ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "f", '{"a":1}'),)),
        ChatMessage("tool", "42", tool_call_id="c1"),
        ChatMessage("assistant", (TextPart("no"),)),
    )


def test_the_old_functions_become_tools() -> None:
    chat = translate(
        messages=[
            *MESSAGES,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "42"},
        ],
        functions=[{"name": "f"}],
        function_call={"name": "f"},
    )

    assert chat.tools == (Tool("f", "", {"type": "object", "properties": {}}),)
    assert chat.tool_choice == ToolChoice("tool", "f", parallel=False)
    assert chat.messages[1].tool_calls == (ToolCall("call_1", "f", "{}"),)
    assert chat.messages[2] == ChatMessage("tool", "42", name="f", tool_call_id="call_1")


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, ToolChoice("auto")),
        ({"tool_choice": "none"}, ToolChoice("none")),
        ({"tool_choice": "required", "parallel_tool_calls": True}, ToolChoice("required")),
        ({"parallel_tool_calls": False}, ToolChoice("auto", parallel=False)),
        ({"functions": [{"name": "f"}], "function_call": "none"}, ToolChoice("none", parallel=False)),
    ],
)
def test_the_choice_of_a_tool(fields: dict[str, Any], choice: ToolChoice | None) -> None:
    assert translate(**fields).tool_choice == choice


@pytest.mark.parametrize(
    ("response_format", "translated"),
    [(None, None), ({"type": "text"}, None), ({"type": "json_object"}, {"type": "json_object"})],
)
def test_the_format_of_the_reply(response_format: Any, translated: Any) -> None:
    assert translate(response_format=response_format).response_format == translated


def test_what_asks_for_nothing_is_no_obstacle() -> None:
    chat = translate(
        n=1,
        logprobs=False,
        frequency_penalty=0,
        presence_penalty=0.0,
        logit_bias={},
        modalities=["text"],
        verbosity="medium",
        seed=7,
        store=True,
        metadata={"a": "b"},
        service_tier="auto",
        prediction={"type": "content", "content": "x"},
        unknown=1,
        stop="x",
    )

    assert chat == ChatRequest(model="claude", messages=HELLO, stop=("x",))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": "json"}, "response_format"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": [1]}, "stop"),
        ({"messages": [{"role": "wizard", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}]},
            "messages[0].content[0].image_url",
        ),
        ({"messages": [{"role": "tool", "content": "42"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "function", "name": "f", "content": "42"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0]"),
    ],
)
def test_what_cannot_be_translated_is_refused_by_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        translate(**fields)

    assert refused.value.param == param


def test_a_part_that_the_provider_cannot_take_is_named() -> None:
    parts = [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]

    with pytest.raises(InvalidRequest) as refused:
        translate(messages=[{"role": "user", "content": parts}])

    assert refused.value.message == "This model does not support content of type 'input_audio'."
    assert refused.value.param == "messages[0].content[0].type"


DETAILS: list[dict[str, Any]] = [
    {"type": "reasoning.text", "text": "hm", "signature": "s", "index": 0},
    {"type": "reasoning.text", "text": "", "signature": "s2", "index": 1},
    {"type": "reasoning.encrypted", "data": "x", "index": 2},
]
BLOCKS: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "thinking", "thinking": "", "signature": "s2"},
    {"type": "redacted_thinking", "data": "x"},
]
THOUGHT = (Thinking("hm", "s"), Thinking("", "s2"), Thinking(data="x"))


def thinking_of(**fields: Any) -> tuple[Thinking, ...]:
    return translate(messages=[{"role": "assistant", "content": "Hi", **fields}]).messages[0].thinking


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({}, ()),
        ({"reasoning_details": None, "thinking_blocks": None}, ()),
        ({"reasoning_details": DETAILS}, THOUGHT),
        ({"thinking_blocks": BLOCKS}, THOUGHT),
        ({"reasoning_details": DETAILS, "thinking_blocks": BLOCKS}, THOUGHT),
        ({"reasoning_details": [], "thinking_blocks": BLOCKS}, THOUGHT),
        ({"reasoning_details": [{"type": "reasoning.new"}], "thinking_blocks": [{"type": "text"}]}, ()),
        ({"reasoning_content": "hm", "reasoning": 7}, ()),
    ],
)
def test_thinking_is_taken_back(fields: dict[str, Any], thinking: tuple[Thinking, ...]) -> None:
    assert thinking_of(**fields) == thinking


def test_only_an_assistant_has_thought() -> None:
    [message] = translate(messages=[{"role": "user", "content": "Hi", "reasoning_details": DETAILS}]).messages
    assert message.thinking == ()


@pytest.mark.parametrize("name", ["reasoning_details", "thinking_blocks"])
@pytest.mark.parametrize("value", ["x", 7, True, {}, ["x"], [None], [[]]])
def test_thinking_that_is_no_list_of_objects_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        thinking_of(**{name: value})
    assert refused.value.param == f"messages[0].{name}"


@pytest.mark.parametrize("path", ["reasoning_Details", "Thinking_blocks", "reasoning_details.Signature"])
def test_names_of_thinking_in_another_case_are_refused(path: str) -> None:
    name, _, inner = path.partition(".")
    fields: dict[str, Any] = {name: [{inner: "s"}]}
    with pytest.raises(InvalidRequest, match=path):
        thinking_of(**fields)


@pytest.mark.parametrize("name", ["reasoning_details", "thinking_blocks"])
def test_thinking_with_something_strange_in_it_is_carried_or_refused_in_words(name: str) -> None:
    strange: tuple[Any, ...] = (None, True, 7, 1.5, "", "x", [], {}, ["x"], [{}], {"type": "reasoning.text"})
    places = ("type", "text", "thinking", "summary", "signature", "data", "format", "index")
    for known in (*DETAILS, *BLOCKS):
        for place, value in product(places, strange):
            call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            said = {"role": "assistant", "tool_calls": [call], name: [known, {**known, place: value}]}
            turns = [*MESSAGES, said, {"role": "tool", "tool_call_id": "c", "content": "42"}]
            chat = translate(messages=turns, reasoning_effort="high")
            for is_stream in (False, True):
                assert request_body(chat, is_stream=is_stream)

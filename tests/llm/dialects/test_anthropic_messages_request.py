from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm.dialects.anthropic_messages_request import request_body
from llm.errors import UpstreamRejected
from llm.types import ChatMessage, ChatRequest, ImagePart, TextPart, Tool, ToolCall, ToolChoice

HELLO = (ChatMessage("user", "Hello"),)


def body_of(*messages: ChatMessage, is_stream: bool = False, **fields: Any) -> dict[str, Any]:
    request = ChatRequest(model="claude", messages=messages or HELLO, **fields)
    body: dict[str, Any] = orjson.loads(request_body(request, is_stream=is_stream))
    return body


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def test_the_least_request_has_a_maximum() -> None:
    assert body_of() == {
        "model": "claude",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [text("Hello")]}],
    }


def test_a_stream_is_asked_for() -> None:
    assert body_of(is_stream=True)["stream"] is True


def test_system_messages_go_to_the_top() -> None:
    body = body_of(
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "Hi"),
        ChatMessage("developer", (TextPart("No "), TextPart("jokes."))),
    )

    assert body["system"] == "Be brief.\n\nNo jokes."
    assert body["messages"] == [{"role": "user", "content": [text("Hi")]}]


def test_turns_alternate() -> None:
    body = body_of(
        ChatMessage("user", "a"),
        ChatMessage("user", "b"),
        ChatMessage("assistant", "c"),
        ChatMessage("assistant", ""),
        ChatMessage("system", "s"),
        ChatMessage("assistant", "d"),
        ChatMessage("user", "e"),
    )

    assert body["messages"] == [
        {"role": "user", "content": [text("a"), text("b")]},
        {"role": "assistant", "content": [text("c"), text("d")]},
        {"role": "user", "content": [text("e")]},
    ]


def test_tool_calls_and_their_results() -> None:
    body = body_of(
        ChatMessage("user", "Look"),
        ChatMessage("assistant", "Well.", tool_calls=(ToolCall("c1", "f", '{"at":1}'), ToolCall("c2", "g", ""))),
        ChatMessage("tool", "42", tool_call_id="c1"),
        ChatMessage("tool", (TextPart("x"), ImagePart("https://x/y.png")), tool_call_id="c2"),
        ChatMessage("tool", "", tool_call_id="c3"),
        ChatMessage("user", "And?"),
    )

    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                text("Well."),
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"at": 1}},
                {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "42"},
                {
                    "type": "tool_result",
                    "tool_use_id": "c2",
                    "content": [
                        text("x"),
                        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                    ],
                },
                {"type": "tool_result", "tool_use_id": "c3"},
                text("And?"),
            ],
        },
    ]


def test_images() -> None:
    content = (TextPart("See"), ImagePart("data:image/jpg;base64,AAAA"), ImagePart("https://x/y.png", "high"))

    assert body_of(ChatMessage("user", content))["messages"][0]["content"] == [
        text("See"),
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AAAA"}},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
    ]


def test_every_field_that_has_a_place_goes_there() -> None:
    schema = {"type": "object", "properties": {}}
    body = body_of(
        max_tokens=9,
        temperature=0.0,
        top_p=0.5,
        stop=("a", "b"),
        tools=(Tool("f", "d", schema), Tool("g")),
        tool_choice=ToolChoice("required", parallel=False),
        response_format={"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}},
        reasoning_effort="minimal",
        user="u",
    )

    assert body == {
        "model": "claude",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": [text("Hello")]}],
        "temperature": 0.0,
        "top_p": 0.5,
        "stop_sequences": ["a", "b"],
        "tools": [
            {"name": "f", "description": "d", "input_schema": schema},
            {"name": "g", "input_schema": {"type": "object"}},
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": schema}},
        "metadata": {"user_id": "u"},
    }


def test_what_is_the_default_of_both_is_not_sent() -> None:
    assert set(body_of(temperature=1.0, top_p=1.0)) == {"model", "max_tokens", "messages"}


def test_no_reasoning_is_no_thinking() -> None:
    body = body_of(reasoning_effort="none")

    assert body["thinking"] == {"type": "disabled"}
    assert "output_config" not in body


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (ToolChoice("auto"), {"type": "auto"}),
        (ToolChoice("auto", parallel=False), {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("none", parallel=False), {"type": "none"}),
        (ToolChoice("required"), {"type": "any"}),
        (ToolChoice("tool", "f"), {"type": "tool", "name": "f"}),
    ],
)
def test_the_choice_of_a_tool(choice: ToolChoice, sent: dict[str, Any]) -> None:
    assert body_of(tools=(Tool("f"),), tool_choice=choice)["tool_choice"] == sent
    assert "tool_choice" not in body_of(tool_choice=choice)


@pytest.mark.parametrize(
    ("messages", "fields", "param"),
    [
        (HELLO, {"temperature": 1.5}, "temperature"),
        (HELLO, {"response_format": {"type": "json_object"}}, "response_format"),
        (HELLO, {"reasoning_effort": "lots"}, "reasoning_effort"),
        ((ChatMessage("system", "s"),), {}, "messages"),
        ((ChatMessage("user", (ImagePart("data:image/png,raw"),)),), {}, "messages"),
        ((ChatMessage("assistant", tool_calls=(ToolCall("c", "f", "[1]"),)),), {}, "messages"),
        ((ChatMessage("assistant", tool_calls=(ToolCall("c", "f", "{oops"),)),), {}, "messages"),
    ],
)
def test_what_anthropic_has_no_equivalent_of_is_refused(
    messages: tuple[ChatMessage, ...], fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(UpstreamRejected) as refused:
        body_of(*messages, **fields)

    assert refused.value.param == param
    assert refused.value.http_status == 400
    assert not refused.value.may_have_worked

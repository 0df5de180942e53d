from __future__ import annotations

import hashlib
import re
from typing import Any

import orjson
import pytest

from llm.dialects.anthropic_messages.request import request_body
from llm.dialects.anthropic_messages.tool_names import allowed_name
from llm.errors import UpstreamRejected
from llm.types import ChatMessage, ChatRequest, FilePart, ImagePart, TextPart, Thinking, Tool, ToolCall, ToolChoice

HELLO = (ChatMessage("user", "Hello"),)
CALLS = (ToolCall("c1", "f", '{"at":1}'), ToolCall("c2", "g", ""), ToolCall("c3", "h", "{}"))


def body_of(*messages: ChatMessage, is_stream: bool = False, **fields: Any) -> dict[str, Any]:
    request = ChatRequest(**{"model": "claude", "messages": messages or HELLO, **fields})
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
        ChatMessage("assistant", "Well.", tool_calls=CALLS),
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
                {"type": "tool_use", "id": "c3", "name": "h", "input": {}},
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
        "output_config": {
            "effort": "low",
            "format": {"type": "json_schema", "schema": {**schema, "additionalProperties": False}},
        },
        "metadata": {"user_id": hashlib.sha256(b"u").hexdigest()},
    }


def test_what_is_the_default_of_both_is_not_sent() -> None:
    assert set(body_of(temperature=1.0, top_p=1.0)) == {"model", "max_tokens", "messages"}


def test_no_reasoning_is_no_thinking() -> None:
    body = body_of(reasoning_effort="none")

    assert body["thinking"] == {"type": "disabled"}
    assert "output_config" not in body


FORCED = ToolChoice("required")
SIGNED = Thinking("hm", "s")
CALL = ToolCall("c1", "f", "{}")
CALLED = {"type": "tool_use", "id": "c1", "name": "f", "input": {}}
RESULT = ChatMessage("tool", "42", tool_call_id="c1")


def called(*thinking: Thinking) -> ChatMessage:
    return ChatMessage("assistant", tool_calls=(CALL,), thinking=thinking)


def test_thinking_goes_back_first_in_its_turn() -> None:
    every = (SIGNED, Thinking("", "s2"), Thinking(data="x"), Thinking("of somebody else"))
    body = body_of(*HELLO, called(*every), RESULT, reasoning_effort="high")

    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "thinking", "thinking": "", "signature": "s2"},
        {"type": "redacted_thinking", "data": "x"},
        CALLED,
    ]
    assert "thinking" not in body


def test_a_turn_of_nothing_but_thinking_is_none() -> None:
    body = body_of(*HELLO, ChatMessage("assistant", " ", thinking=(SIGNED,)), *HELLO)

    assert body["messages"] == [{"role": "user", "content": [text("Hello"), text("Hello")]}]


@pytest.mark.parametrize(
    "messages",
    [
        (called(), RESULT),
        (called(Thinking("of somebody else")), RESULT),
        (called(), RESULT, *HELLO),
        (called(), RESULT, called(SIGNED), RESULT),
        (ChatMessage("assistant", "Well.", tool_calls=(CALL,)), RESULT),
    ],
)
def test_a_tool_loop_without_its_thinking_goes_on_without(messages: tuple[ChatMessage, ...]) -> None:
    body = body_of(*HELLO, *messages, reasoning_effort="high")

    assert (body["thinking"], body["output_config"]) == ({"type": "disabled"}, {"effort": "high"})
    assert "thinking" not in {block["type"] for turn in body["messages"] for block in turn["content"]}


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (called(SIGNED), RESULT),
        (called(SIGNED), RESULT, called(), RESULT),
        (called(), RESULT, ChatMessage("assistant", "42."), *HELLO),
        (called(), RESULT, ChatMessage("assistant", "42."), *HELLO, called(SIGNED), RESULT),
    ],
)
def test_elsewhere_it_may_think(messages: tuple[ChatMessage, ...]) -> None:
    assert "thinking" not in body_of(*HELLO, *messages, reasoning_effort="high")


def test_who_asks_for_no_reasoning_gets_what_is_usual() -> None:
    assert "thinking" not in body_of(*HELLO, called(), RESULT)
    assert "thinking" not in body_of(*HELLO, called(SIGNED), RESULT)
    assert body_of(*HELLO, called(SIGNED), RESULT)["messages"][1]["content"] == [CALLED]
    body = body_of(*HELLO, called(SIGNED), RESULT, reasoning_effort="none")
    assert (body["thinking"], body["messages"][1]["content"]) == ({"type": "disabled"}, [CALLED])


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
        (HELLO, {"reasoning_effort": "lots"}, "reasoning_effort"),
        (
            HELLO,
            {"model": "claude-opus-5-5", "tools": (Tool("f"),), "tool_choice": ToolChoice("required")},
            "tool_choice",
        ),
        ((ChatMessage("system", "s"),), {}, "messages"),
        ((ChatMessage("user", (ImagePart("data:image/png,raw"),)),), {}, "messages"),
        ((ChatMessage("user", (ImagePart("data:image/svg+xml;base64,AAAA"),)),), {}, "messages"),
        ((ChatMessage("user", (ImagePart("http://x/y.png"),)),), {}, "messages"),
        ((*HELLO, ChatMessage("tool", "42", tool_call_id="c1")), {}, "messages"),
        ((*HELLO, ChatMessage("assistant", "{")), {"model": "claude-sonnet-4-6"}, "messages"),
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


# --- What Anthropic would refuse --------------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", ["", " ", " \n", "\t\u00a0"])
def test_blank_turns_and_texts_are_left_out(blank: str) -> None:
    call = ToolCall("c", "f", "{}")
    body = body_of(
        *HELLO,
        ChatMessage("assistant", blank),
        ChatMessage("user", (TextPart(blank), TextPart("Go on."))),
        ChatMessage("assistant", blank, tool_calls=(call,)),
        ChatMessage("tool", "1", tool_call_id="c"),
    )
    assert [(turn["role"], [block["type"] for block in turn["content"]]) for turn in body["messages"]] == [
        ("user", ["text", "text"]),
        ("assistant", ["tool_use"]),
        ("user", ["tool_result"]),
    ]


def test_what_the_model_is_to_go_on_from_ends_without_a_space() -> None:
    assert body_of(*HELLO, ChatMessage("assistant", "{ "))["messages"][-1]["content"] == [text("{")]


def test_blank_stop_sequences_are_left_out() -> None:
    assert body_of(stop=("\n", "END", ""))["stop_sequences"] == ["END"]
    assert "stop_sequences" not in body_of(stop=("\n",))


@pytest.mark.parametrize("user", ["pat@example.org", "+351 210 000 000", "x" * 300, "u", "\ud800"])
def test_a_user_goes_up_as_a_stable_hash(user: str) -> None:
    sent = body_of(user=user)["metadata"]["user_id"]
    assert re.fullmatch("[0-9a-f]{64}", sent)
    assert sent == body_of(user=user)["metadata"]["user_id"] != body_of(user=user + "x")["metadata"]["user_id"]


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("claude-3-5-sonnet-20241022", {"temperature": 0.7, "top_p": 0.9}),
        ("claude-sonnet-4-20250514", {"temperature": 0.7, "top_p": 0.9}),
        ("claude-opus-4-1-20250805", {"temperature": 0.7}),
        ("claude-sonnet-4-5", {"temperature": 0.7}),
        ("claude-haiku-4-5-20251001", {"temperature": 0.7}),
        ("claude-opus-4-7", {}),
        ("anthropic/claude-opus-4.8", {}),
        ("claude-sonnet-5", {}),
        ("a-server-of-ones-own", {"temperature": 0.7, "top_p": 0.9}),
    ],
)
def test_samplers_that_a_model_refuses_are_left_out(model: str, sent: dict[str, float]) -> None:
    body = body_of(model=model, temperature=0.7, top_p=0.9)
    assert {name: body[name] for name in ("temperature", "top_p") if name in body} == sent


def test_a_sampler_alone_goes_to_models_that_take_one() -> None:
    assert body_of(model="claude-sonnet-4-5", top_p=0.9)["top_p"] == 0.9


def test_cache_hints_stand_on_the_same_blocks() -> None:
    hour, minutes = {"type": "ephemeral", "ttl": "1h"}, {"type": "ephemeral"}
    body = body_of(
        ChatMessage("system", (TextPart("A long text.", cache=hour),)),
        ChatMessage("developer", "Be brief."),
        ChatMessage("user", (TextPart("And?", cache=minutes), ImagePart("https://x/y.png", cache=minutes))),
        tools=(Tool("f", cache=minutes), Tool("g")),
    )
    assert body["system"] == [{**text("A long text."), "cache_control": hour}, text("Be brief.")]
    assert [block["cache_control"] for block in body["messages"][0]["content"]] == [minutes, minutes]
    assert [tool.get("cache_control") for tool in body["tools"]] == [minutes, None]


@pytest.mark.parametrize("foreign", ["functions.get:0", "call_x|fc_y", "mcp.files.read", "é" * 200])
def test_ids_and_names_of_other_providers_are_rewritten_alike_on_both_sides(foreign: str) -> None:
    body = body_of(
        *HELLO,
        ChatMessage("assistant", tool_calls=(ToolCall(foreign, foreign, "{}"),)),
        ChatMessage("tool", "1", tool_call_id=foreign),
        tools=(Tool(foreign),),
        tool_choice=ToolChoice("tool", foreign),
    )
    _, called, answered = body["messages"]
    name = called["content"][0]["id"]
    assert re.fullmatch("[a-zA-Z0-9_-]{1,128}", name)
    assert {name} == {
        *(called["content"][0]["name"], answered["content"][0]["tool_use_id"]),
        *(body["tools"][0]["name"], body["tool_choice"]["name"]),
    }


def test_ids_that_are_allowed_stay_and_different_ones_stay_different() -> None:
    assert allowed_name("toolu_01-A") == "toolu_01-A"
    assert len({allowed_name(name) for name in ("a.b", "a:b", "a_b")}) == 3


def test_a_strict_tool_is_strict() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "object"}}, "required": ["a"]}
    [tool] = body_of(tools=(Tool("f", parameters=schema, is_strict=True),))["tools"]
    assert tool["strict"] is True
    assert tool["input_schema"]["additionalProperties"] is False
    assert tool["input_schema"]["properties"]["a"] == {"type": "object", "additionalProperties": False}


def schema_of(schema: dict[str, Any]) -> Any:
    sent = body_of(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})
    return sent["output_config"]["format"]["schema"]


def test_schemas_are_closed_and_bounds_are_told_in_words() -> None:
    sent = schema_of(
        {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "minimum": 1, "description": "A number."},
                "b": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/c"}},
                "d": {"anyOf": [{"type": "object", "properties": {}}, {"type": "null"}]},
                "minimum": {"type": "string", "minLength": 3},
            },
            "$defs": {"c": {"type": "object", "properties": {"e": {"type": "string"}}}},
        }
    )
    closed = {"additionalProperties": False}
    assert sent == {
        "type": "object",
        **closed,
        "properties": {
            "a": {"type": "integer", "description": 'A number. {"minimum":1}'},
            "b": {"type": "array", "items": {"$ref": "#/$defs/c"}, "description": '{"minItems":2}'},
            "d": {"anyOf": [{"type": "object", "properties": {}, **closed}, {"type": "null"}]},
            "minimum": {"type": "string", "description": '{"minLength":3}'},
        },
        "$defs": {"c": {"type": "object", "properties": {"e": {"type": "string"}}, **closed}},
    }


@pytest.mark.parametrize("members", [True, {"type": "string"}])
def test_an_object_whose_members_have_any_name_is_refused_by_its_path(members: object) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": members}}}
    with pytest.raises(UpstreamRejected) as refused:
        schema_of(schema)
    assert refused.value.param == "response_format.json_schema.schema.properties.a.additionalProperties"


@pytest.mark.parametrize("name", ["not", "if", "then", "else", "contains", "propertyNames", "items", "anyOf", "allOf"])
def test_objects_are_closed_wherever_a_schema_lies(name: str) -> None:
    inner = {"type": ["object", "null"]}
    closed = {"type": ["object", "null"], "additionalProperties": False}
    is_list = name in ("anyOf", "allOf")
    sent = schema_of({"type": "array", name: [inner] if is_list else inner})
    assert sent[name] == ([closed] if is_list else closed)


@pytest.mark.parametrize("name", ["properties", "patternProperties", "dependentSchemas", "$defs", "definitions"])
def test_objects_are_closed_wherever_schemas_have_names(name: str) -> None:
    assert schema_of({"type": "array", name: {"not": {"properties": {}}}})[name] == {
        "not": {"properties": {}, "additionalProperties": False}
    }


def test_json_without_a_schema_is_asked_for_in_words() -> None:
    asked = {"type": "json_object"}
    told = "Answer with one JSON object, and with nothing before or after it."
    assert body_of(response_format=asked)["system"] == told
    assert (
        body_of(ChatMessage("system", "Be brief."), *HELLO, response_format=asked)["system"] == f"Be brief.\n\n{told}"
    )
    assert "output_config" not in body_of(response_format=asked)


def test_a_pdf_is_a_document() -> None:
    part = FilePart("data:application/pdf;base64,JVBERi0=", "a.pdf")
    assert body_of(ChatMessage("user", (TextPart("Sum up."), part)))["messages"][0]["content"] == [
        text("Sum up."),
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            "title": "a.pdf",
        },
    ]
    with pytest.raises(UpstreamRejected) as refused:
        body_of(ChatMessage("user", (FilePart("data:text/csv;base64,YQ=="),)))
    assert refused.value.param == "messages"


def test_of_many_cache_hints_the_last_four_stay() -> None:
    hint = {"type": "ephemeral"}
    parts = tuple(TextPart(str(number), cache=hint) for number in range(4))
    body = body_of(
        ChatMessage("system", (TextPart("s", cache=hint),)), ChatMessage("user", parts), tools=(Tool("f", cache=hint),)
    )

    assert "cache_control" not in body["tools"][0] | body["system"][0]
    assert all(block["cache_control"] == hint for block in body["messages"][0]["content"])

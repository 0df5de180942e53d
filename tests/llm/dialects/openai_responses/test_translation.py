from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from llm.dialects.anthropic_messages.request import request_body
from llm.dialects.openai_responses.translation import to_chat as translate
from llm.dialects.openai_responses.wire import OPENAI_RESPONSES
from llm.errors import InvalidRequest
from llm.types import (
    ChatMessage,
    ChatRequest,
    ChatResponse,
    FinishReason,
    ImagePart,
    StreamEnd,
    StreamItem,
    TextPart,
    Thinking,
    ThinkingDelta,
    TokenCounts,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
)

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
SPAWN = {"type": "function", "name": "spawn", "parameters": SCHEMA}
AGENTS = {"type": "namespace", "name": "agents", "description": "d", "tools": [SPAWN]}
COUNTS = TokenCounts(9, 4, cache_read_tokens=3, reasoning_tokens=1)


def to_chat(**fields: Any) -> ChatRequest:
    request = OPENAI_RESPONSES.parse(orjson.dumps({"input": "Hello", **fields}))
    return OPENAI_RESPONSES.to_chat(request, upstream_model="m")


# --- Requests ---------------------------------------------------------------------------------------------------------


def test_a_text_and_instructions() -> None:
    chat = to_chat(
        instructions="Be brief.",
        max_output_tokens=50,
        temperature=0.5,
        top_p=0.9,
        user="u",
        reasoning={"effort": "low", "summary": "auto"},
        store=True,
        include=["reasoning.encrypted_content"],
        metadata={"a": "b"},
    )
    assert chat == ChatRequest(
        model="m",
        messages=(ChatMessage("system", "Be brief."), ChatMessage("user", "Hello")),
        max_tokens=50,
        temperature=0.5,
        top_p=0.9,
        reasoning_effort="low",
        user="u",
    )


def test_a_conversation_with_tools_and_images() -> None:
    chat = to_chat(
        input=[
            {"role": "developer", "content": "Rules."},
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is it?"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
                ],
            },
            {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"x":1}'},
            {"type": "function_call", "call_id": "c2", "name": "look", "arguments": ""},
            {"type": "function_call_output", "call_id": "c1", "output": "a cat"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "a dog"}]},
            {"type": "function_call", "call_id": "c3", "name": "look", "arguments": "{}"},
        ]
    )
    assert chat.messages == (
        ChatMessage("developer", "Rules."),
        ChatMessage("user", (TextPart("What is it?"), ImagePart("data:image/png;base64,AA==", "low"))),
        ChatMessage(
            "assistant",
            (TextPart("Let me see."),),
            tool_calls=(ToolCall("c1", "look", '{"x":1}'), ToolCall("c2", "look", "{}")),
        ),
        ChatMessage("tool", "a cat", tool_call_id="c1"),
        ChatMessage("tool", (TextPart("a dog"),), tool_call_id="c2"),
        ChatMessage("assistant", tool_calls=(ToolCall("c3", "look", "{}"),)),
    )


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        ("auto", None, ToolChoice()),
        ("required", False, ToolChoice("required", parallel=False)),
        (None, False, ToolChoice(parallel=False)),
        ({"type": "function", "name": "look"}, None, ToolChoice("tool", "look")),
    ],
)
def test_tools(choice: Any, parallel: Any, expected: ToolChoice | None) -> None:
    tool = {"type": "function", "name": "look", "description": "d", "parameters": SCHEMA, "strict": True}
    chat = to_chat(tools=[tool], tool_choice=choice, parallel_tool_calls=parallel)
    assert (chat.tools, chat.tool_choice) == ((Tool("look", "d", SCHEMA, is_strict=True),), expected)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True},
            {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
        ),
    ],
)
def test_structured_output(sent: Any, expected: Any) -> None:
    assert to_chat(text={"format": sent, "verbosity": "medium"}).response_format == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"include": ["message.output_text.logprobs"]}, "include[0]"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"text": "x"}, "text"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools[0].type"),
        ({"tools": [{"type": "namespace", "name": "x"}]}, "tools[0].tools"),
        ({"tools": [{"type": "namespace", "tools": [{"type": "custom"}]}]}, "tools[0].tools[0].type"),
        ({"tools": [{"type": "namespace", "tools": [{"type": "namespace", "tools": []}]}]}, "tools[0].tools[0].type"),
        ({"tools": [AGENTS, {"type": "function", "name": "spawn"}]}, "tools"),
        ({"tools": [AGENTS, {**AGENTS, "name": "others"}]}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"input": [{"role": "critic", "content": "x"}]}, "input[0].role"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}]},
            "input[0].content[0].file_url",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].image_url"),
        ({"input": [{"type": "function_call", "call_id": "c", "arguments": {}, "name": "x"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
    ],
)
def test_what_cannot_be_carried_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        to_chat(**fields)
    assert refused.value.param == param


# --- Replies ----------------------------------------------------------------------------------------------------------


def whole(response: ChatResponse, **fields: Any) -> Response:
    request = OPENAI_RESPONSES.parse(orjson.dumps({"input": "Hello", **fields}))
    body = OPENAI_RESPONSES.render_whole(response, request, request_id="req_ab", created=7)
    return TypeAdapter(Response).validate_json(body)


def test_a_whole_reply() -> None:
    reply = whole(ChatResponse("Hi", "m", COUNTS, tool_calls=(ToolCall("c1", "look", "{}"),)), metadata={"a": "b"})
    assert (reply.id, reply.status, reply.model, reply.created_at) == ("resp_ab", "completed", "m", 7)
    assert (reply.output_text, reply.metadata, reply.to_dict()["store"]) == ("Hi", {"a": "b"}, False)
    message, call = reply.output
    assert (message.type, call.type) == ("message", "function_call")
    assert call.to_dict()["call_id"] == "c1"
    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.total_tokens) == (9, 4, 13)
    assert reply.usage.input_tokens_details.cached_tokens == 3
    assert reply.usage.output_tokens_details.reasoning_tokens == 1


@pytest.mark.parametrize(("finish", "why"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_a_reply_that_was_cut_short_says_why(finish: FinishReason, why: str) -> None:
    reply = whole(ChatResponse("Hi", "m", COUNTS, finish_reason=finish))
    assert reply.incomplete_details is not None
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", why)


def streamed(*items: StreamItem, finish: FinishReason = "stop", cost: str | None = None, **fields: Any) -> list[Any]:
    """The events, each valid as the SDK has it."""
    request = OPENAI_RESPONSES.parse(orjson.dumps({"input": "Hello", "stream": True, **fields}))
    writer = OPENAI_RESPONSES.stream_writer(request, model="m", request_id="req_ab", created=7)
    text = writer.start() + b"".join(writer.item(item) for item in (*items, StreamEnd("m")))
    text += writer.finish(ChatResponse("", "m", COUNTS, finish_reason=finish), cost=cost)
    datas = [event.split(b"\ndata: ")[1] for event in text.split(b"\n\n")[:-1]]
    events: list[Any] = [TypeAdapter[Any](ResponseStreamEvent).validate_json(data) for data in datas]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events


def test_a_streamed_text() -> None:
    events = streamed("Hel", "lo")
    assert [event.type.removeprefix("response.") for event in events] == [
        *("created", "in_progress", "output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.delta", "output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert events[-1].response.output_text == "Hello"
    assert events[-1].response.usage.total_tokens == 13


def test_streamed_calls_may_be_mixed() -> None:
    events = streamed(
        "Hi",
        ToolCallDelta(0, "c1", "look"),
        ToolCallDelta(1, "c2", "see"),
        ToolCallDelta(0, arguments='{"x"'),
        ToolCallDelta(1, arguments="{}"),
        ToolCallDelta(0, arguments=":1}"),
        finish="tool_calls",
    )
    message, first, second = events[-1].response.output
    assert message.content[0].text == "Hi"
    assert (first.call_id, first.name, first.arguments) == ("c1", "look", '{"x":1}')
    assert (second.call_id, second.name, second.arguments) == ("c2", "see", "{}")
    added = [event.item for event in events if event.type == "response.output_item.added"]
    assert [(item.id, item.status) for item in added] == [(item.id, "in_progress") for item in (message, first, second)]
    done = [event.output_index for event in events if event.type == "response.output_item.done"]
    assert done == [0, 1, 2]


def test_functions_of_a_namespace_stand_beside_the_others_and_their_calls_name_it() -> None:
    tools = [AGENTS, {"type": "function", "name": "look", "parameters": SCHEMA}]
    assert to_chat(tools=tools).tools == (Tool("spawn", "", SCHEMA), Tool("look", "", SCHEMA))
    calls = (ToolCall("c1", "spawn", "{}"), ToolCall("c2", "look", "{}"))
    last = streamed(*(ToolCallDelta(i, call.id, call.name) for i, call in enumerate(calls)), tools=tools)[-1]
    for reply in (whole(ChatResponse("", "m", COUNTS, tool_calls=calls), tools=tools), last.response):
        assert [item.to_dict().get("namespace") for item in reply.output] == ["agents", None]
        asked = [{"role": "user", "content": "Hello"}, *(item.to_dict() for item in reply.output)]
        assert to_chat(input=asked, tools=tools).messages[1].tool_calls == calls


def test_a_call_without_arguments_has_empty_ones() -> None:
    events = streamed(ToolCallDelta(0, "c1", "look"))
    assert events[-1].response.output[0].arguments == "{}"


def test_a_stream_that_was_cut_short_and_its_cost() -> None:
    last = streamed("Hi", finish="length", cost="0.25")[-1]
    assert (last.type, last.response.incomplete_details.reason) == ("response.incomplete", "max_output_tokens")
    assert last.response.usage.cost == 0.25


def test_a_stream_without_a_word_is_a_response_without_items() -> None:
    assert streamed()[-1].response.output == []


# --- Thinking ---------------------------------------------------------------------------------------------------------

SIGNED = Thinking("hm", "s")
THOUGHT = (SIGNED, Thinking("", "s2"), Thinking(data="x"), Thinking("unsigned"))


def test_a_whole_reply_has_its_thinking_first() -> None:
    calls = (ToolCall("c1", "look", "{}"),)
    reply = whole(ChatResponse("Hi", "m", COUNTS, tool_calls=calls, thinking=(SIGNED, Thinking(data="x"))))
    items = [item.to_dict() for item in reply.output]
    assert [item["type"] for item in items] == ["reasoning", "reasoning", "message", "function_call"]
    assert len({item["id"] for item in items}) == 4
    assert items[0] == {
        "id": "rs_ab0000",
        "type": "reasoning",
        "status": "completed",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "llm-gateway.signature:s",
    }
    assert (items[1]["summary"], items[1]["encrypted_content"]) == ([], "llm-gateway.data:x")


def test_thinking_comes_back_as_it_went_out() -> None:
    reply = whole(ChatResponse("Hi", "m", COUNTS, thinking=THOUGHT))
    assert to_chat(input=[item.to_dict() for item in reply.output]).messages == (
        ChatMessage("assistant", (TextPart("Hi"),), thinking=THOUGHT),
    )


def test_thinking_belongs_to_the_turn_that_follows() -> None:
    [first], [second] = (
        [item.to_dict() for item in thoughts] for thoughts in (reasoning(SIGNED), reasoning(THOUGHT[2]))
    )
    foreign = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}], "encrypted_content": "gAAA"}
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "a cat"}
    chat = to_chat(input=[first, foreign, call, output, second, call, output, first, {"role": "user", "content": "Hi"}])
    assert [message.thinking for message in chat.messages] == [(SIGNED,), (), (THOUGHT[2],), (), ()]


def reasoning(*thinking: Thinking) -> list[Any]:
    return whole(ChatResponse("", "m", COUNTS, thinking=thinking)).output


def test_a_stream_of_thinking() -> None:
    events = streamed(
        *(
            ThinkingDelta(0, "h"),
            ThinkingDelta(0, "m"),
            ThinkingDelta(0, signature="s"),
            ThinkingDelta(1, signature="s2"),
        ),
        *(ThinkingDelta(2, data="x"), "Hi", ToolCallDelta(0, "c1", "look"), ThinkingDelta(3, "unsigned")),
    )
    assert [(event.type.removeprefix("response."), event.output_index) for event in events[2:11]] == [
        *(("output_item.added", 0), ("reasoning_summary_part.added", 0), ("reasoning_summary_text.delta", 0)),
        *(("reasoning_summary_text.delta", 0), ("reasoning_summary_text.done", 0), ("reasoning_summary_part.done", 0)),
        *(("output_item.done", 0), ("output_item.added", 1), ("output_item.done", 1)),
    ]
    added, part, *_ = events[2:]
    assert (added.item.summary, part.part.text, part.summary_index, part.item_id) == ([], "", 0, added.item.id)
    output = events[-1].response.output
    assert [item.type for item in output] == [
        *("reasoning", "reasoning", "reasoning", "message", "function_call", "reasoning"),
    ]
    done = {event.output_index: event.item for event in events if event.type == "response.output_item.done"}
    assert [done[index].to_dict() for index in range(6)] == [item.to_dict() for item in output]
    back = to_chat(input=[item.to_dict() for item in output[:5]]).messages[0]
    assert back.thinking == THOUGHT[:3]


def test_a_text_after_redacted_thinking_is_an_item_of_its_own() -> None:
    output = streamed(ThinkingDelta(0, data="x"), ThinkingDelta(0, "hm"), ThinkingDelta(0, data="y"))[
        -1
    ].response.output
    assert [(len(item.summary), item.encrypted_content) for item in output] == [
        *((0, "llm-gateway.data:x"), (1, "llm-gateway.signature:"), (0, "llm-gateway.data:y")),
    ]


@pytest.mark.parametrize(
    ("part", "source"),
    [
        (
            {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
            {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
        ),
        ({"file_url": "https://example.com/a.pdf"}, {"type": "url", "url": "https://example.com/a.pdf"}),
    ],
)
def test_a_pdf_becomes_a_document_of_claudes(part: dict[str, Any], source: dict[str, str]) -> None:
    chat = translate(
        {"input": [{"role": "user", "content": [{"type": "input_file", **part}]}]}, model="claude-sonnet-4-6"
    )
    sent = orjson.loads(request_body(chat, is_stream=False))
    title = {"title": part["filename"]} if "filename" in part else {}
    assert sent["messages"][0]["content"] == [{"type": "document", "source": source, **title}]


def test_a_file_without_its_content_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="file_data") as refused:
        translate({"input": [{"role": "user", "content": [{"type": "input_file", "filename": "a"}]}]}, model="m")
    assert refused.value.param == "input[0].content[0]"

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm.dialects.anthropic_messages.wire import ANTHROPIC_MESSAGES
from llm.dialects.openai_chat.client import check_request
from llm.dialects.openai_chat.client import request_body as chat_body
from llm.errors import InvalidRequest, UpstreamRejected
from llm.types import ChatMessage, ChatRequest, FilePart, ImagePart, TextPart, Thinking, Tool, ToolCall, ToolChoice

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"name": "weather", "description": "d", "input_schema": {"type": "object"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


def to_chat(**fields: Any) -> ChatRequest:
    raw = orjson.dumps({"model": "public", "max_tokens": 100, "messages": HELLO, **fields})
    return ANTHROPIC_MESSAGES.to_chat(ANTHROPIC_MESSAGES.parse(raw), upstream_model="gpt-4o")


def messages(*messages: dict[str, Any]) -> tuple[ChatMessage, ...]:
    return to_chat(messages=messages).messages


def test_everything_that_has_an_equivalent_is_carried() -> None:
    request = to_chat(
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}, _text("Be kind.")],
        temperature=0.5,
        top_p=0.9,
        stop_sequences=["END"],
        tools=[TOOL, {"type": "custom", **TOOL}],
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        output_config={"effort": "max", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        metadata={"user_id": "u1"},
        thinking={"type": "enabled", "budget_tokens": 1024},
    )
    assert request == ChatRequest(
        model="gpt-4o",
        messages=(ChatMessage("system", "Be brief.\n\nBe kind."), ChatMessage("user", "Hello")),
        max_tokens=100,
        temperature=0.5,
        top_p=0.9,
        stop=("END",),
        tools=(Tool("weather", "d", {"type": "object"}),) * 2,
        tool_choice=ToolChoice("tool", "weather", parallel=False),
        response_format={"type": "json_schema", "json_schema": {"name": "reply", "schema": {"type": "object"}}},
        reasoning_effort="xhigh",
        user="u1",
    )


@pytest.mark.parametrize(("sent", "carried"), [(-1, None), (None, None), (0, 1), (1000.0, 1000)])
def test_an_odd_maximum_counts_as_what_it_means(sent: object, carried: int | None) -> None:
    assert to_chat(max_tokens=sent).max_tokens == carried


@pytest.mark.parametrize(
    ("choice", "carried"),
    [
        ({"type": "auto"}, ToolChoice()),
        ({"type": "any"}, ToolChoice("required")),
        ({"type": "none"}, ToolChoice("none")),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolChoice(parallel=False)),
        (None, None),
    ],
)
def test_the_choice_of_a_tool(choice: object, carried: ToolChoice | None) -> None:
    assert to_chat(tools=[TOOL], tool_choice=choice).tool_choice == carried


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def test_a_conversation_with_parallel_tools_and_thinking() -> None:
    assert messages(
        {"role": "user", "content": [_text("How is it?"), IMAGE]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                _text("Let me see."),
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Lisbon"}},
                {"type": "tool_use", "id": "t2", "name": "weather", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "content": [_text("a"), IMAGE, _text("b")],
                    "is_error": True,
                },
                _text("And now?"),
            ],
        },
    ) == (
        ChatMessage("user", (TextPart("How is it?"), ImagePart("data:image/png;base64,AAAA"))),
        ChatMessage(
            "assistant",
            "Let me see.",
            tool_calls=(ToolCall("t1", "weather", '{"city":"Lisbon"}'), ToolCall("t2", "weather", "{}")),
            thinking=(Thinking("hm", "s"), Thinking(data="x")),
        ),
        ChatMessage("tool", "sunny", tool_call_id="t1"),
        ChatMessage("tool", "Error: a\nb", tool_call_id="t2"),
        ChatMessage("user", (ImagePart("data:image/png;base64,AAAA"), TextPart("And now?"))),
    )


@pytest.mark.parametrize(
    "block",
    [{"type": "thinking"}, {"type": "thinking", "thinking": 7, "signature": []}, {"type": "redacted_thinking"}],
)
def test_thinking_that_is_none_is_left_out(block: dict[str, Any]) -> None:
    assert messages({"role": "assistant", "content": [block, _text("Hi")]}) == (ChatMessage("assistant", "Hi"),)


@pytest.mark.parametrize(
    "management",
    [None, {}, {"edits": []}, {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}],
)
def test_wishes_about_thinking_in_the_context_are_left_out(management: object) -> None:
    """Claude Code sends one with every request; other providers get no thinking of Anthropic's anyway."""
    assert to_chat(context_management=management) == to_chat()


def test_results_alone_need_no_message_of_the_users() -> None:
    assert messages({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1"}]}) == (
        ChatMessage("tool", "", tool_call_id="t1"),
    )


def test_an_image_by_its_url() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    [message] = messages({"role": "user", "content": [image]})
    assert message.content == (ImagePart("https://example.com/a.png"),)


def _user(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_k": 5}, "top_k"),
        ({"mcp_servers": [{"url": "https://x"}]}, "mcp_servers"),
        ({"container": {"skills": []}}, "container"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management"),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015"}, "all"]}}, "context_management"),
        ({"context_management": {"edits": [], "new": 1}}, "context_management"),
        ({"context_management": [1]}, "context_management"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"speed": "fast"}, "speed"),
        ({"tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}]}, "tools[1].type"),
        ({"tools": [{"name": "x"}]}, "tools[0].input_schema"),
        ({"tools": [7]}, "tools[0]"),
        ({"tools": "all"}, "tools"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        (_user({"type": "document", "source": {"type": "base64"}}), "messages[0].content[0].source"),
        (
            _user({"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": True}}),
            "messages[0].content[0].citations",
        ),
        (_user({"type": "search_result"}), "messages[0].content[0].type"),
        (_user(7), "messages[0].content[0]"),
        (_user({"type": "text"}), "messages[0].content[0].text"),
        (_user({"type": "image", "source": {"type": "x"}}), "messages[0].content[0].source"),
        (_user({"type": "tool_result"}), "messages[0].content[0].tool_use_id"),
        (
            _user({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "document"}]}),
            "messages[0].content[0].content[0].source",
        ),
        ({"system": 7}, "system"),
        ({"system": [IMAGE]}, "system[0].type"),
        ({"stop_sequences": [7]}, "stop_sequences"),
        ({"temperature": "hot"}, "temperature"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
        ({"output_format": {"type": "json_schema"}}, "output_format"),
        ({"output_config": 7}, "output_config"),
        ({"metadata": {"user_id": 7}}, "user_id"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        to_chat(**fields)
    assert refusal.value.param == param


def test_documents_are_files_and_texts_elsewhere() -> None:
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}
    text = {"type": "document", "title": "T", "context": "C", "source": {"type": "text", "data": "D"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "See."}, pdf]}
    chat = to_chat(messages=[{"role": "user", "content": [result, {**pdf, "title": "a.pdf"}, text]}])
    file = "data:application/pdf;base64,AAAA"
    assert chat.messages == (
        ChatMessage("tool", "See.", tool_call_id="t"),
        ChatMessage("user", (FilePart(file), FilePart(file, "a.pdf"), TextPart("T\n\nC\n\nD"))),
    )
    sent = orjson.loads(chat_body(chat, is_stream=False))["messages"][1]["content"]
    assert sent[1] == {"type": "file", "file": {"filename": "a.pdf", "file_data": file}}


def test_a_chat_server_gets_no_file_by_its_address() -> None:
    source = {"type": "url", "url": "https://example.com/a.pdf"}
    chat = to_chat(messages=[{"role": "user", "content": [{"type": "document", "source": source}]}])
    with pytest.raises(UpstreamRejected, match="by their address"):
        check_request(chat)

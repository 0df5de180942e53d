from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from openai.types.chat import ChatCompletion

from llm.dialects.base import ParsedRequest, PassThrough, Server
from llm.dialects.json_text import find_members
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.enums import Dialect
from llm.errors import InvalidRequest, UpstreamFailed
from llm.types import ChatResponse, Reading, Service, Thinking, TokenCounts, ToolCall

MESSAGES = [{"role": "user", "content": "Hello"}]


def parse(**fields: Any) -> ParsedRequest:
    return OPENAI_CHAT.parse(orjson.dumps({"messages": MESSAGES, **fields}))


def test_it_is_a_pass_through_format() -> None:
    wire: PassThrough = OPENAI_CHAT

    assert wire.dialect == Dialect.OPENAI_CHAT
    assert wire.path == "/chat/completions"


def test_a_request_is_parsed_as_far_as_the_gateway_needs() -> None:
    raw = (
        b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}],"stream":true,'
        b'"stream_options":{"include_usage":true},"n":3,"max_tokens":50,"max_completion_tokens":40,"unknown":{"x":1.0}}'
    )

    request = OPENAI_CHAT.parse(raw)

    assert request == ParsedRequest(
        dialect=Dialect.OPENAI_CHAT,
        body=orjson.loads(raw),
        raw=raw,
        model="gpt-4o",
        is_stream=True,
        wants_stream_usage=True,
        max_output_tokens=50,
        choices=3,
    )


@pytest.mark.parametrize("fields", [{}, {"model": None, "stream": None, "n": None, "max_tokens": None}])
def test_what_is_left_out_has_defaults(fields: dict[str, Any]) -> None:
    request = parse(**fields)

    assert (request.model, request.is_stream, request.choices) == ("", False, 1)
    assert request.max_output_tokens is None
    assert not request.wants_stream_usage


def test_usage_is_not_wanted_on_a_reply_that_is_no_stream() -> None:
    assert not parse(stream_options={"include_usage": True}).wants_stream_usage


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [*MESSAGES, {"content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": 7}]}, "messages[0].role"),
        ({"model": ""}, "model"),
        ({"model": 4}, "model"),
        ({"model": "a\nb"}, "model"),
        ({"model": "a\x7fb"}, "model"),
        ({"model": "m" * 201}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream": True, "stream_options": []}, "stream_options"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": True}, "n"),
        ({"n": 1.5}, "n"),
    ],
)
def test_a_request_at_fault_is_refused_by_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(**fields)

    assert refused.value.param == param


def test_a_body_that_needs_no_change_goes_up_byte_for_byte() -> None:
    raw = b'{ "messages" : [{"role":"user","content":"\\u00fc"}], "model":"gpt-4o", "seed": 1.0e3 }'

    assert OPENAI_CHAT.upstream_body(OPENAI_CHAT.parse(raw), upstream_model="gpt-4o") == raw
    request = parse(model="gpt-4o", stream=True, stream_options={"include_usage": True})
    assert OPENAI_CHAT.upstream_body(request, upstream_model="gpt-4o") == request.raw


def test_only_the_documented_touches_change_a_body() -> None:
    raw = (
        b'{"messages":[{"role":"user","content":"\\u00fc"}],"model":"mine","temperature":1.0,"top_k":9007199254740993,'
        b'"stream":true,"stream_options":{"include_obfuscation":false},"unknown":[null]}'
    )

    body = OPENAI_CHAT.upstream_body(OPENAI_CHAT.parse(raw), upstream_model="gpt-4o", max_output_tokens=100)

    assert (
        body
        == (
            '{"messages":[{"role":"user","content":"ü"}],"model":"gpt-4o","temperature":1.0,"top_k":9007199254740993,'
            '"stream":true,"stream_options":{"include_obfuscation":false,"include_usage":true},"unknown":[null],'
            '"max_completion_tokens":100}'
        ).encode()
    )


def test_what_is_added_leaves_the_rest_of_a_body_as_its_bytes() -> None:
    raw = b'{ "messages" : [{"role":"user","content":"\\u00fc}"}], "model":"m", "stream" : true, "seed": 1.0e3 \n} \n'

    body = OPENAI_CHAT.upstream_body(OPENAI_CHAT.parse(raw), upstream_model="m", max_output_tokens=100)

    assert body == raw.rstrip()[:-1] + b',"stream_options":{"include_usage":true},"max_completion_tokens":100}'
    assert orjson.loads(body)["seed"] == 1000


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({}, {"max_completion_tokens": 100}),
        ({"max_completion_tokens": None}, {"max_completion_tokens": 100}),
        ({"max_tokens": 500}, {"max_tokens": 100}),
        ({"max_completion_tokens": 500}, {"max_completion_tokens": 100}),
        ({"max_tokens": 50}, {"max_tokens": 50}),
        ({"max_tokens": 500, "max_completion_tokens": 50}, {"max_tokens": 100, "max_completion_tokens": 50}),
    ],
)
def test_a_maximum_is_lowered_and_never_raised(fields: dict[str, Any], sent: dict[str, int]) -> None:
    body = orjson.loads(
        OPENAI_CHAT.upstream_body(parse(model="m", **fields), upstream_model="m", max_output_tokens=100)
    )

    assert body == {"messages": MESSAGES, "model": "m", **sent}


def test_a_missing_model_is_filled_in() -> None:
    assert orjson.loads(OPENAI_CHAT.upstream_body(parse(), upstream_model="gpt-4o"))["model"] == "gpt-4o"


def test_a_whole_reply_is_read() -> None:
    body = (
        b'{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o-2024-08-06","service_tier":"default","choices":'
        b'[{"index":0,"message":{"role":"assistant","content":"Hi"}}],"usage":{"prompt_tokens":8,"completion_tokens":1}}'
    )

    assert OPENAI_CHAT.read_whole(body) == Reading(
        counts=TokenCounts(prompt_tokens=8, completion_tokens=1),
        model="gpt-4o-2024-08-06",
        response_id="chatcmpl-1",
        service=Service("default"),
        is_final=True,
    )


def test_a_whole_reply_without_usage_is_no_reply_of_zero_tokens() -> None:
    assert OPENAI_CHAT.read_whole(b'{"choices":[],"usage":null}').counts is None
    assert OPENAI_CHAT.read_whole(b'{"choices":[]}').counts is None


def test_absurd_usage_of_a_whole_reply_is_kept_aside() -> None:
    reading = OPENAI_CHAT.read_whole(b'{"choices":[],"usage":{"prompt_tokens":-8,"completion_tokens":1}}')

    assert reading.counts is None
    assert reading.absurd_usage == {"prompt_tokens": -8, "completion_tokens": 1}


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"choices":{}}', b'{"error":{"message":"sk-secret"}}']
)
def test_garbage_is_no_reply(body: bytes) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        OPENAI_CHAT.read_whole(body)

    assert failed.value.may_have_worked
    assert "sk-secret" not in failed.value.message


def test_the_cost_goes_into_the_bytes_of_a_whole_reply() -> None:
    body = b'{\n  "choices": [],\n  "usage": {\n    "prompt_tokens": 8\n  }\n}\n'

    assert OPENAI_CHAT.with_cost(body, "0.0000325") == (
        b'{\n  "choices": [],\n  "usage": {"cost": 0.0000325, \n    "prompt_tokens": 8\n  }\n}\n'
    )


def test_the_text_of_a_whole_reply_holds_everything_generated() -> None:
    message = {
        "role": "assistant",
        "content": "a",
        "reasoning_content": "b",
        "refusal": "c",
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "d", "arguments": "e"}}],
        "function_call": {"name": "f", "arguments": "g"},
        "audio": {"id": "x", "transcript": "h"},
    }
    choices = [{"message": message}, {"message": {"content": "i"}}, {"message": None}, None]

    assert OPENAI_CHAT.whole_text(orjson.dumps({"choices": choices})) == "abcdefghi"


def test_the_text_of_a_prompt_holds_messages_tools_and_schema() -> None:
    request = parse(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "name": "Ann", "content": [{"type": "text", "text": "What"}, {"type": "image_url"}, 7]},
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "42"},
            {"role": "user", "content": {"odd": 1}},
        ],
        tools=[{"type": "function", "function": {"name": "f"}}],
        response_format={"type": "json_object"},
    )

    assert OPENAI_CHAT.prompt_text(request) == (
        'Be brief.\nAnn What\nf{}\n42\n\n[{"type":"function","function":{"name":"f"}}]\n{"type":"json_object"}'
    )


RESPONSE = ChatResponse(reply="Hi", model="claude", usage=TokenCounts(prompt_tokens=8, completion_tokens=2))


def render(response: ChatResponse, **fields: Any) -> ChatCompletion:
    body = OPENAI_CHAT.render_whole(response, parse(**fields), request_id="r1", created=1700000000)
    return ChatCompletion.model_validate_json(body, strict=True)


def test_a_translated_reply_is_a_chat_completion() -> None:
    completion = render(RESPONSE)

    assert completion.id == "chatcmpl-r1"
    assert completion.model == "claude"
    assert completion.created == 1700000000
    assert completion.choices[0].message.content == "Hi"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 10


TOOL_RESPONSE = ChatResponse(
    reply="",
    model="claude",
    usage=TokenCounts(),
    finish_reason="tool_calls",
    tool_calls=(ToolCall("c1", "look", '{"at":1}'),),
)


def test_a_translated_reply_carries_tool_calls() -> None:
    choice = render(TOOL_RESPONSE, tools=[{}]).choices[0]

    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].model_dump() == {
        "id": "c1",
        "type": "function",
        "function": {"name": "look", "arguments": '{"at":1}'},
    }


def test_a_translated_reply_carries_thinking() -> None:
    thinking = (Thinking("h", "s"), Thinking("m"), Thinking(data="x"))
    message: Any = render(ChatResponse("Hi", "claude", TokenCounts(), thinking=thinking)).choices[0].message
    assert (message.content, message.reasoning_content) == ("Hi", "hm")
    assert message.reasoning_details == [
        {"type": "reasoning.text", "text": "h", "signature": "s", "index": 0},
        {"type": "reasoning.text", "text": "m", "index": 1},
        {"type": "reasoning.encrypted", "data": "x", "index": 2},
    ]


def test_thinking_without_a_text_has_details_alone() -> None:
    message = render(ChatResponse("Hi", "claude", TokenCounts(), thinking=(Thinking("", "s"),))).choices[0].message
    assert message.model_extra == {
        "reasoning_details": [{"type": "reasoning.text", "text": "", "signature": "s", "index": 0}]
    }


def test_a_caller_of_the_old_functions_gets_a_function_call() -> None:
    choice = render(TOOL_RESPONSE, functions=[{"name": "look"}]).choices[0]

    assert choice.finish_reason == "function_call"
    assert choice.message.tool_calls is None
    assert choice.message.function_call is not None
    assert choice.message.function_call.model_dump() == {"name": "look", "arguments": '{"at":1}'}


def test_a_tool_of_the_callers_own_may_be_of_either_kind() -> None:
    tools = [{"type": "custom", "custom": {"name": "f"}}, {"type": "function", "name": "g", "parameters": {}}]
    choice = {"type": "custom", "custom": {"name": "f"}}
    request = OPENAI_CHAT.parse(
        orjson.dumps({"messages": [{"role": "user", "content": "Hi"}], "tools": tools, "tool_choice": choice})
    )
    assert OPENAI_CHAT.extent(request).unbounded == ""


# --- Servers that differ ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_apart", [False, True])
def test_a_server_that_knows_no_developer_gets_a_system_message(is_apart: bool) -> None:
    raw = (
        b'{"model": "m", "messages": [{"role":"developer","content":"Be brief.","x":1.0},'
        b'{"role":"user","content":"\\u00fc"}], "y": 2.50}'
    )
    request = OPENAI_CHAT.parse(raw)
    if is_apart:
        request = replace(request, members=find_members(raw))
    body = OPENAI_CHAT.upstream_body(request, upstream_model="n", server=Server(developer_role="system"))
    sent = orjson.loads(body)
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert (sent["messages"][0]["x"], sent["model"], sent["y"]) == (1.0, "n", 2.5)
    assert OPENAI_CHAT.upstream_body(request, upstream_model="m") == raw


def test_a_server_that_refuses_to_be_asked_for_usage_is_not_asked() -> None:
    request = parse(model="m", stream=True)
    server = Server(takes_stream_options=False)
    assert OPENAI_CHAT.upstream_body(request, upstream_model="m", server=server) == request.raw

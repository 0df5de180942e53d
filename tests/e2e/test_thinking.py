"""Thinking through the official SDKs: out in the caller's dialect, and back to the provider that wrote it.

The fake upstream refuses what Anthropic refuses: thinking that was changed, and a tool loop that thinks on without its
beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from llm.enums import UsageSource
from tests.books import closed_usage
from tests.e2e.callers import Application, assert_nothing_happened, error_of, events_of
from tests.e2e.test_openai_sdk import WEATHER
from tests.e2e.test_unpriced import make_route
from tests.fakes import FakeUpstream, Script
from tests.fakes.anthropic_wire import redacted, signature_of
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

ASKED: list[Any] = [{"role": "user", "content": "use the tool"}]
RESULT = "It is sunny."
WAYS = pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
HOW_IT_THINKS = {
    "text": Script(thinking=["I should look it up."], reasoning_tokens=6),
    "several": Script(thinking=["First this.", "Then that."], reasoning_tokens=6),
    "withheld": Script(thinking=[""], reasoning_tokens=6),
    "redacted": Script(redacted_thinking=["unseen"], reasoning_tokens=6),
    "all": Script(thinking=["I see.", ""], redacted_thinking=["unseen", "too"], reasoning_tokens=6),
}
KINDS = pytest.mark.parametrize("script", HOW_IT_THINKS.values(), ids=HOW_IT_THINKS.keys())


def blocks_of(script: Script) -> list[Any]:
    written = [{"type": "thinking", "thinking": text, "signature": signature_of(text)} for text in script.thinking]
    return [*written, *({"type": "redacted_thinking", "data": redacted(text)} for text in script.redacted_thinking)]


def sent_turn(upstream: FakeUpstream) -> list[Any]:
    """The blocks of the assistant's turn in the last request that the upstream got."""
    content: list[Any] = upstream.ledger.entries()[-1].body["messages"][1]["content"]
    return content


def assert_settled(calls: int) -> None:
    assert [row.usage_source for row in closed_usage(calls)] == [UsageSource.REPORTED] * calls


# --- Chat completions behind Claude -----------------------------------------------------------------------------------


@pytest.fixture
def sdk(before_anthropic: Gateway, api_key: str, http: httpx2.Client) -> openai.OpenAI:
    return openai.OpenAI(api_key=api_key, base_url=before_anthropic.openai_base_url, max_retries=0, http_client=http)


def ask(sdk: openai.OpenAI, messages: list[Any], *, is_stream: bool = False) -> Any:
    """The message that the SDK makes of the reply."""
    asked: Any = {"model": "claude-test", "messages": messages, "tools": [WEATHER], "reasoning_effort": "high"}
    if not is_stream:
        return sdk.chat.completions.create(**asked).choices[0].message
    with sdk.chat.completions.stream(**asked) as stream:
        return stream.get_final_completion().choices[0].message


def next_turn(message: Any, **thinking: Any) -> list[Any]:
    call = message.tool_calls[0]
    function = {"name": call.function.name, "arguments": call.function.arguments}
    calls = [{"id": call.id, "type": "function", "function": function}]
    answered = {"role": "assistant", "content": None, "tool_calls": calls, **thinking}
    return [*ASKED, answered, {"role": "tool", "tool_call_id": call.id, "content": RESULT}]


@KINDS
@WAYS
def test_a_chat_sends_thinking_back_as_it_came(
    sdk: openai.OpenAI, upstream: FakeUpstream, script: Script, is_stream: bool
) -> None:
    upstream.enqueue(script)
    message = ask(sdk, ASKED, is_stream=is_stream)
    assert (getattr(message, "reasoning_content", None) or "") == "".join(script.thinking)
    again = ask(sdk, next_turn(message, reasoning_details=message.reasoning_details), is_stream=is_stream)
    assert again.content
    assert sent_turn(upstream)[:-1] == blocks_of(script)
    assert "thinking" not in upstream.ledger.entries()[-1].body
    assert_settled(2)


@pytest.mark.parametrize("ends_with", ["the result", "a question"])
def test_thinking_that_comes_back_without_an_effort_does_not_end_a_loop(
    application: Application, before_anthropic: Gateway, upstream: FakeUpstream, ends_with: str
) -> None:
    """Claude refuses a loop that has thinking while thinking is off, as it is without an effort."""
    details = [
        {"type": "reasoning.text", "text": "I see.", "signature": signature_of("I see."), "index": 0},
        {"type": "reasoning.encrypted", "data": redacted("unseen"), "index": 1},
    ]
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    answered = {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_details": details}
    messages = [*ASKED, answered, {"role": "tool", "tool_call_id": "c1", "content": RESULT}]
    if ends_with == "a question":
        messages.append({"role": "user", "content": "And tomorrow?"})
    reply = application.at(before_anthropic).chat("claude-test", messages=messages, tools=[WEATHER])
    assert reply.status_code == 200, reply.text
    [entry] = upstream.ledger.entries()
    assert "thinking" not in entry.body
    assert [block["type"] for block in entry.body["messages"][1]["content"]] == ["tool_use"]
    assert_settled(1)


def test_the_details_of_a_whole_reply(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    upstream.enqueue(HOW_IT_THINKS["all"])
    message: Any = ask(sdk, ASKED)
    assert message.reasoning_details == [
        {"type": "reasoning.text", "text": "I see.", "signature": signature_of("I see."), "index": 0},
        {"type": "reasoning.text", "text": "", "signature": signature_of(""), "index": 1},
        {"type": "reasoning.encrypted", "data": redacted("unseen"), "index": 2},
        {"type": "reasoning.encrypted", "data": redacted("too"), "index": 3},
    ]
    assert message.model_dump()["reasoning_content"] == "I see."
    closed_usage(1)


def test_pieces_of_a_stream_may_come_back_as_they_were_collected(
    sdk: openai.OpenAI, upstream: FakeUpstream, application: Application, before_anthropic: Gateway
) -> None:
    upstream.enqueue(HOW_IT_THINKS["all"])
    there = application.at(before_anthropic)
    events = events_of(there.chat("claude-test", messages=ASKED, tools=[WEATHER], reasoning_effort="high", stream=True))
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    pieces = [piece for delta in deltas for piece in delta.get("reasoning_details", ())]
    assert len(pieces) == 6
    upstream.enqueue(Script())
    ask(sdk, next_turn(ask(sdk, ASKED), reasoning_details=pieces))
    assert sent_turn(upstream)[:-1] == blocks_of(HOW_IT_THINKS["all"])
    closed_usage(3)


def test_blocks_in_the_form_of_litellm_go_back_too(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    script = HOW_IT_THINKS["all"]
    upstream.enqueue(script)
    ask(sdk, next_turn(ask(sdk, ASKED), thinking_blocks=blocks_of(script)))
    assert sent_turn(upstream)[:-1] == blocks_of(script)
    closed_usage(2)


@WAYS
def test_a_caller_who_drops_the_thinking_completes_its_tool_loop(
    sdk: openai.OpenAI, upstream: FakeUpstream, is_stream: bool
) -> None:
    upstream.enqueue(HOW_IT_THINKS["text"])
    turns = next_turn(ask(sdk, ASKED, is_stream=is_stream))
    assert ask(sdk, turns, is_stream=is_stream).content
    assert upstream.ledger.entries()[-1].body["thinking"] == {"type": "disabled"}
    assert [block["type"] for block in sent_turn(upstream)] == ["tool_use"]
    # Once the user speaks again, it thinks again.
    turns += [{"role": "assistant", "content": "Sunny."}, {"role": "user", "content": "And tomorrow?"}]
    ask(sdk, turns, is_stream=is_stream)
    last = upstream.ledger.entries()[-1].body
    assert ("thinking" in last, last["output_config"]) == (False, {"effort": "high"})
    assert_settled(3)


@pytest.mark.parametrize(
    ("model", "fields", "thinking", "config"),
    [
        ("claude-sonnet-4-5", {}, {"type": "enabled", "budget_tokens": 32_000}, None),
        ("claude-sonnet-4-5", {"max_completion_tokens": 4096}, {"type": "enabled", "budget_tokens": 3276}, None),
        ("claude-opus-4-6", {"temperature": 0.2}, {"type": "adaptive"}, {"effort": "high"}),
        ("claude-opus-5-5", {}, {"type": "adaptive", "display": "summarized"}, {"effort": "high"}),
        ("claude-opus-5", {"tool_choice": "required"}, {"type": "disabled"}, {"effort": "high"}),
    ],
)
def test_an_effort_turns_claudes_thinking_on(
    sdk: openai.OpenAI, upstream: FakeUpstream, model: str, fields: dict[str, Any], thinking: Any, config: Any
) -> None:
    asked: Any = {"model": model, "messages": ASKED, "tools": [WEATHER], "reasoning_effort": "high", **fields}
    sdk.chat.completions.create(**asked)
    body = upstream.ledger.entries()[-1].body
    assert (body["thinking"], body.get("output_config")) == (thinking, config)
    assert_settled(1)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [*ASKED, {"role": "assistant", "content": "{"}]}, "messages"),
        ({"messages": [{"role": "tool", "tool_call_id": "c1", "content": "42"}]}, "messages"),
        ({"messages": ASKED, "tool_choice": "required"}, "tool_choice"),
    ],
)
def test_what_a_model_of_claudes_refuses_is_refused_by_name_before_it_is_sent(
    sdk: openai.OpenAI, upstream: FakeUpstream, fields: dict[str, Any], param: str
) -> None:
    asked: Any = {"model": "claude-opus-5-5", "tools": [WEATHER], **fields}
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(**asked)
    assert refused.value.param == param
    assert_nothing_happened(upstream)


def test_thinking_that_was_changed_is_the_providers_to_refuse(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    upstream.enqueue(HOW_IT_THINKS["text"])
    message = ask(sdk, ASKED)
    [detail] = message.reasoning_details
    with pytest.raises(openai.BadRequestError, match="signature"):
        ask(sdk, next_turn(message, reasoning_details=[{**detail, "text": "I never said that."}]))
    closed_usage(2)


STRANGE: list[Any] = [
    [],
    [{}],
    [{"type": None}],
    [{"type": ["reasoning.text"]}],
    [{"type": "reasoning.text"}],
    [{"type": "reasoning.text", "text": 7, "signature": []}],
    [{"type": "reasoning.encrypted", "data": {}}],
    [{"type": "reasoning.text", "text": "x", "signature": "s", "format": "google-gemini-v1"}],
    [{"type": "reasoning.video", "data": "x"}],
]


@pytest.mark.parametrize("details", STRANGE)
@pytest.mark.parametrize("name", ["reasoning_details", "thinking_blocks"])
def test_details_that_say_nothing_pass_for_none(
    application: Application, before_anthropic: Gateway, upstream: FakeUpstream, name: str, details: Any
) -> None:
    said = [{"role": "assistant", "content": "Hi.", name: details}]
    reply = application.at(before_anthropic).chat("claude-test", messages=[*ASKED, *said, *ASKED])
    assert reply.status_code == 200
    assert [block["type"] for block in sent_turn(upstream)] == ["text"]
    closed_usage(1)


@pytest.mark.parametrize("details", ["x", 7, {}, {"type": "reasoning.text"}, ["x"], [[]], [None]])
def test_details_that_are_no_list_of_objects_are_refused_by_name(
    application: Application, before_anthropic: Gateway, upstream: FakeUpstream, details: Any
) -> None:
    said = [{"role": "assistant", "content": "Hi.", "reasoning_details": details}]
    reply = application.at(before_anthropic).chat("claude-test", messages=[*ASKED, *said, *ASKED])
    assert (reply.status_code, error_of(reply)["param"]) == (400, "messages[1].reasoning_details")
    assert not upstream.ledger.entries()


def test_the_gateways_own_format_leaves_thinking_out(
    application: Application, before_anthropic: Gateway, upstream: FakeUpstream
) -> None:
    there = application.at(before_anthropic)
    upstream.enqueue(Script(thinking=["Hm."], text="Hello."), Script(thinking=["Hm."], text="Hello."))
    whole = there.chat("claude-test", path="/api/chat").json()
    assert (whole["reply"], whole.keys()) == ("Hello.", {"reply", "model", "usage"})
    events = events_of(there.chat("claude-test", path="/api/chat", stream=True))
    assert [event.keys() for event in events] == [{"delta"}, {"model", "usage"}]
    closed_usage(2)


def test_thinking_counts_where_nobody_reports(
    application: Application, before_anthropic: Gateway, upstream: FakeUpstream
) -> None:
    there = application.at(before_anthropic)
    texts = [Script(text="Hello.", omits_usage=True), Script(text="Hello.", thinking=["one two "], omits_usage=True)]
    upstream.enqueue(*texts, *texts)
    for is_stream in (False, True):
        for _ in texts:
            there.chat("claude-test", stream=is_stream)
    tokens = [row.completion_tokens for row in closed_usage(4)]
    assert [tokens[1] - tokens[0], tokens[3] - tokens[2]] == [2, 2]


# --- Messages behind servers of chat completions ----------------------------------------------------------------------


@pytest.fixture
def across(gateway: Gateway, api_key: str, http: httpx2.Client) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key=api_key, base_url=gateway.url, max_retries=0, http_client=http)


@WAYS
def test_messages_show_the_thinking_of_a_chat_server(
    across: anthropic.Anthropic, upstream: FakeUpstream, is_stream: bool
) -> None:
    upstream.enqueue(Script(thinking=["Let me see. ", "Yes."], text="Hello.", reasoning_tokens=4))
    asked: Any = {"model": "gpt-4o", "max_tokens": 100, "messages": ASKED}
    if is_stream:
        with across.messages.stream(**asked) as stream:
            message: anthropic.types.Message = stream.get_final_message()
    else:
        message = across.messages.create(**asked)
    assert [block.to_dict() for block in message.content] == [
        {"type": "thinking", "thinking": "Let me see. Yes.", "signature": ""},
        {"type": "text", "text": "Hello."},
    ]
    turns = [*ASKED, {"role": "assistant", "content": message.content}, {"role": "user", "content": "And now?"}]
    across.messages.create(**{**asked, "messages": turns})
    assert upstream.ledger.entries()[-1].body["messages"][1] == {"role": "assistant", "content": "Hello."}
    assert_settled(2)


def test_a_fallback_to_anthropic_gets_no_thinking_of_others(
    across: anthropic.Anthropic, upstream: FakeUpstream
) -> None:
    make_route("smart", ("openai", "gpt-4o"), ("anthropic", "claude-1"))
    upstream.enqueue(Script(thinking=["Let me see."], text="Hello."))
    asked: Any = {"model": "smart", "max_tokens": 100, "messages": ASKED}
    message = across.messages.create(**asked)
    upstream.enqueue(Script(status=404))
    turns = [*ASKED, {"role": "assistant", "content": message.content}, {"role": "user", "content": "And now?"}]
    across.messages.create(**{**asked, "messages": turns})
    assert [block["type"] for block in sent_turn(upstream)] == ["text"]
    closed_usage(3)


# --- Responses behind Claude ------------------------------------------------------------------------------------------

TOOL: Any = {"type": "function", **WEATHER["function"], "strict": False}


def respond(sdk: openai.OpenAI, asked: list[Any], *, is_stream: bool) -> Any:
    fields: Any = {"model": "claude-test", "input": asked, "tools": [TOOL], "reasoning": {"effort": "high"}}
    if not is_stream:
        return sdk.responses.create(**fields)
    with sdk.responses.stream(**fields) as stream:
        return stream.get_final_response()


@KINDS
@WAYS
def test_a_response_sends_thinking_back_as_it_came(
    sdk: openai.OpenAI, upstream: FakeUpstream, script: Script, is_stream: bool
) -> None:
    upstream.enqueue(script)
    first = respond(sdk, ASKED, is_stream=is_stream)
    *reasoning, call = first.output
    assert [item.type for item in reasoning] == ["reasoning"] * len(blocks_of(script))
    texts = [part.text for item in reasoning for part in item.summary]
    assert texts == [text for text in script.thinking if text]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": RESULT}
    items = [item.to_dict() for item in first.output]
    assert respond(sdk, [*ASKED, *items, result], is_stream=is_stream).output_text
    assert sent_turn(upstream)[:-1] == blocks_of(script)
    assert_settled(2)


@WAYS
def test_a_response_without_its_reasoning_completes_its_tool_loop(
    sdk: openai.OpenAI, upstream: FakeUpstream, is_stream: bool
) -> None:
    upstream.enqueue(HOW_IT_THINKS["text"])
    [*_, call] = respond(sdk, ASKED, is_stream=is_stream).output
    foreign = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": RESULT}
    assert respond(sdk, [*ASKED, foreign, call.to_dict(), result], is_stream=is_stream).output_text
    assert upstream.ledger.entries()[-1].body["thinking"] == {"type": "disabled"}
    assert_settled(2)


def test_a_fallback_to_openai_gets_no_reasoning_of_ours(
    start_gateway: Callable[..., Gateway], api_key: str, http: httpx2.Client, upstream: FakeUpstream
) -> None:
    gateway = start_gateway(LLM_PROVIDER="openai")
    sdk = openai.OpenAI(api_key=api_key, base_url=gateway.openai_base_url, max_retries=0, http_client=http)
    make_route("claude-test", ("anthropic", "claude-1"), ("openai", "gpt-4o"))
    upstream.enqueue(HOW_IT_THINKS["all"])
    first = respond(sdk, ASKED, is_stream=False)
    *reasoning, call = first.output
    assert [item.type for item in reasoning] == ["reasoning"] * 4
    result = {"type": "function_call_output", "call_id": call.call_id, "output": RESULT}
    upstream.enqueue(Script(status=404))
    respond(sdk, [*ASKED, *(item.to_dict() for item in first.output), result], is_stream=False)
    kinds = [item.get("type") for item in upstream.ledger.entries()[-1].body["input"]]
    assert kinds == [None, "function_call", "function_call_output"]
    closed_usage(3)

"""Responses in front of providers of another dialect, through the official SDK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from pydantic import BaseModel

from llm.enums import Dialect, UsageSource, UsageStatus
from tests.books import closed_usage
from tests.e2e.callers import Application, assert_nothing_happened, error_of
from tests.e2e.test_responses import RESPONSES, respond
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


@pytest.fixture(params=["anthropic", "openai_compatible", "echo"])
def provider(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def said(provider: str) -> str:
    return "Echo: hello there" if provider == "echo" else "You said: hello there"


@pytest.fixture
def translating(start_gateway: Callable[..., Gateway], upstream: FakeUpstream, provider: str) -> Gateway:
    return start_gateway(LLM_PROVIDER=provider, LLM_BASE_URL=upstream.openai_base_url)


@pytest.fixture
def client(translating: Gateway, api_key: str, http: httpx2.Client) -> openai.OpenAI:
    return openai.OpenAI(api_key=api_key, base_url=translating.openai_base_url, max_retries=0, http_client=http)


def assert_booked(provider: str, tokens: int) -> None:
    [row] = closed_usage()
    assert (row.dialect, row.provider, row.total_tokens) == (Dialect.OPENAI_RESPONSES, provider, tokens)
    assert (row.status, row.usage_source) == (UsageStatus.SETTLED, UsageSource.REPORTED)


def test_a_whole_response(client: openai.OpenAI, provider: str, said: str) -> None:
    reply = client.responses.create(model="m", input="hello there", instructions="Be brief.", max_output_tokens=100)
    assert (reply.output_text, reply.status, reply.model) == (said, "completed", "m")
    assert reply.usage is not None
    assert_booked(provider, reply.usage.total_tokens)


def test_a_streamed_response(client: openai.OpenAI, provider: str, said: str) -> None:
    with client.responses.stream(model="m", input="hello there") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == said
    assert final.usage is not None
    assert_booked(provider, final.usage.total_tokens)


def test_a_loop_with_a_tool(client: openai.OpenAI, provider: str) -> None:
    asked: list[Any] = [{"role": "user", "content": "use the tool"}]
    first = client.responses.create(model="m", input=asked, tools=[WEATHER])
    [call] = [item for item in first.output if item.type == "function_call"]
    assert call.name == "weather"
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    again: Any = [*asked, *(item.to_dict() for item in first.output), *results]
    second = client.responses.create(model="m", input=again, tools=[WEATHER])
    assert second.output_text
    with client.responses.stream(model="m", input=asked, tools=[WEATHER]) as stream:
        final = stream.get_final_response()
    [streamed] = [item for item in final.output if item.type == "function_call"]
    assert (streamed.name, streamed.arguments) == (call.name, call.arguments)
    closed_usage(3)


class Verdict(BaseModel):
    answer: str
    confidence: float


def test_structured_output(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    upstream.set_default(Script(text='{"answer": "yes", "confidence": 1}'))
    reply = client.responses.parse(model="m", input="hello there", text_format=Verdict)
    assert reply.output_parsed is not None
    assert reply.output_parsed.answer in ("yes", "echo")


def test_what_cannot_be_carried_is_named_before_anything_is_sent(
    application: Application, translating: Gateway, upstream: FakeUpstream
) -> None:
    refused = respond(application.at(translating), tools=[{"type": "web_search"}])
    assert (refused.status_code, error_of(refused)["param"]) == (400, "tools[0].type")
    assert_nothing_happened(upstream)


def test_nothing_is_kept(application: Application, translating: Gateway) -> None:
    there = application.at(translating)
    made = respond(there).json()
    assert made["store"] is False
    [row] = closed_usage()
    for each in (made["id"], row.upstream_response_id or "msg_none"):
        assert respond(there, previous_response_id=each).status_code == 400
        assert there.send("GET", f"{RESPONSES}/{each}").status_code == 404
    closed_usage(1)


@pytest.mark.parametrize("provider", ["anthropic"])
def test_a_stream_that_breaks_off_is_an_error_and_an_estimate(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(cut_after_events=5))
    with pytest.raises(openai.APIError):
        list(client.responses.create(model="m", input="hello there", stream=True))
    assert closed_usage()[0].status == UsageStatus.ESTIMATED

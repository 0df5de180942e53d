"""What a call may use at most, in every dialect: where nobody can say, a limit refuses."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm.dialects.anthropic_messages.wire import ANTHROPIC_MESSAGES
from llm.dialects.base import PassThrough
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.dialects.openai_completions.wire import OPENAI_COMPLETIONS
from llm.dialects.openai_embeddings.wire import OPENAI_EMBEDDINGS
from llm.dialects.openai_responses.wire import OPENAI_RESPONSES
from llm.limits.admission import ReservationEstimate
from llm.limits.reservation import estimate_reservation
from llm.prices.catalog import Target
from tests.llm.calls.test_settlement import price_of

HELLO = {"messages": [{"role": "user", "content": "x"}]}
REQUESTS: list[tuple[PassThrough, dict[str, Any]]] = [
    (OPENAI_CHAT, {**HELLO, "max_tokens": 10}),
    (OPENAI_COMPLETIONS, {"prompt": "x", "max_tokens": 10}),
    (OPENAI_EMBEDDINGS, {"input": "x"}),
    (OPENAI_RESPONSES, {"input": "x", "max_output_tokens": 10}),
    (ANTHROPIC_MESSAGES, {**HELLO, "max_tokens": 10}),
]
with_every_dialect = pytest.mark.parametrize(("wire", "body"), REQUESTS)


def estimate(wire: PassThrough, body: dict[str, Any], **fields: Any) -> ReservationEstimate:
    request = wire.parse(orjson.dumps({"model": "m", **body, **fields}))
    price = price_of({"input": 1, "output": 2})
    return estimate_reservation(wire, request, Target("openai", "m", price), requests=1)


@with_every_dialect
def test_a_text_is_bounded_by_its_bytes(wire: PassThrough, body: dict[str, Any]) -> None:
    reserved = estimate(wire, body)
    assert (reserved.why_unpriced, reserved.why_uncounted) == ("", "")
    assert 0 < (reserved.input_tokens or 0) < 1_000
    assert reserved.output_tokens == (0 if wire is OPENAI_EMBEDDINGS else 10)


@pytest.mark.parametrize("fields", [{"models": ["dear"]}, {"provider": {"order": ["x"]}}, {"litellm_params": {}}])
@with_every_dialect
def test_where_callers_choose_who_serves_no_price_is_known(
    wire: PassThrough, body: dict[str, Any], fields: dict[str, Any]
) -> None:
    reserved = estimate(wire, body, **fields)
    assert reserved.why_unpriced == "it asks for a choice of models or providers, whose cost can't be known in advance"
    assert reserved.input_pico is None


@pytest.mark.parametrize(
    "fields", [{"plugins": [{"id": "web"}]}, {"web_search_options": {}}, {"mcp_servers": [{"url": "https://x"}]}]
)
@pytest.mark.parametrize(("wire", "body"), [each for each in REQUESTS if each[0] is not OPENAI_EMBEDDINGS])
def test_what_a_provider_adds_by_itself_has_no_bound(
    wire: PassThrough, body: dict[str, Any], fields: dict[str, Any]
) -> None:
    reserved = estimate(wire, body, **fields)
    assert reserved.input_tokens is None
    assert reserved.why_uncounted.startswith("it asks for ")
    assert reserved.why_uncounted.endswith(", whose tokens can't be known in advance")


@pytest.mark.parametrize("kind", ["function", "custom", None])
@pytest.mark.parametrize(
    ("wire", "body"), [(OPENAI_CHAT, HELLO), (OPENAI_RESPONSES, {"input": "x"}), (ANTHROPIC_MESSAGES, HELLO)]
)
def test_a_second_kind_inside_a_tool_has_no_bound(wire: PassThrough, body: dict[str, Any], kind: str | None) -> None:
    tool = {"name": "f", **({} if kind is None else {"type": kind})}
    seconds: list[dict[str, Any]] = [{"googleSearch": {}}, {"web_search": {}}, {"server_url": "https://x"}]
    for second in seconds:
        assert estimate(wire, body, tools=[{**tool, **second}]).why_uncounted
        assert estimate(wire, body, tools=[{**tool, **second}]).why_unpriced


@pytest.mark.parametrize("tools", [{"type": "function"}, [{"type": "namespace", "tools": {"type": "web_search"}}], "x"])
def test_tools_that_are_no_list_have_no_bound(tools: Any) -> None:
    assert estimate(OPENAI_RESPONSES, {"input": "x"}, tools=tools).why_uncounted


@pytest.mark.parametrize("sent", [10**30, 2**64, 1e30])
@with_every_dialect
def test_a_maximum_that_no_server_reads_bounds_nothing(wire: PassThrough, body: dict[str, Any], sent: Any) -> None:
    names = ("max_tokens", "max_output_tokens")
    raw = orjson.dumps({"model": "m", **body, **dict.fromkeys(names, 7)}).replace(b":7", f":{sent!r}".encode())
    maximum = wire.parse(raw).max_output_tokens
    assert maximum == (0 if wire is OPENAI_EMBEDDINGS else None)

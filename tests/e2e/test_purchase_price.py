"""What an upstream says of its own prices reaches nobody; what a limit of cost says reaches who may see costs."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import orjson
import pytest
from django.core.management import call_command

from llm.models import Account
from tests.books import closed_usage
from tests.e2e.callers import Application, error_of, events_of
from tests.e2e.test_unpriced import set_price
from tests.fakes import FakeUpstream, Recording, Script

pytestmark = pytest.mark.e2e

TOKENS = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
MONEY = {
    "cost": 0.0123,
    "cost_details": {"upstream_inference_cost": 0.01, "discounts": [1, {"a": "}"}]},
    "is_byok": False,
    "market_cost": "0.02",
}
ANSWER = {"role": "assistant", "content": 'It has a "cost": 7 and a "price" of {"cost": 7}.'}
"""What the model wrote stays, whatever it looks like."""
WHOLE = {
    "id": "gen-1",
    "model": "gpt-4o",
    "cost": 1,
    "choices": [
        {
            "index": 0,
            "message": {
                **ANSWER,
                "tool_calls": [{"function": {"name": "buy", "arguments": {"cost": 7}}}],
                "provider_metadata": {"gateway": {"marketCost": "0.02", "routing": {"attempts": 1}}},
            },
            "finish_reason": "stop",
        }
    ],
    "usage": {**MONEY, **TOKENS, "estimated_cost": 1, "cost_in_usd_ticks": 5},
    "_hidden_params": {"response_cost": 0.3, "model_id": "m"},
}
KEPT = {
    "id": "gen-1",
    "model": "gpt-4o",
    "choices": [
        {
            "index": 0,
            "message": {
                **ANSWER,
                "tool_calls": [{"function": {"name": "buy", "arguments": {"cost": 7}}}],
                "provider_metadata": {"gateway": {"routing": {"attempts": 1}}},
            },
            "finish_reason": "stop",
        }
    ],
    "usage": TOKENS,
    "_hidden_params": {"model_id": "m"},
}


def a_stream(*chunks: dict[str, Any]) -> Script:
    events = [b"data: " + orjson.dumps({"id": "gen-1", "model": "gpt-4o", **chunk}) + b"\n\n" for chunk in chunks]
    return Script(
        recording=Recording(
            id="priced",
            dialect="openai.chat",
            is_stream=True,
            path="/v1/chat/completions",
            request={},
            status=200,
            headers={"content-type": "text/event-stream"},
            body=b"".join(events) + b"data: [DONE]\n\n",
        )
    )


def delta(content: str, finish: str | None = None) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]


@pytest.mark.parametrize("indent", [0, orjson.OPT_INDENT_2])
def test_a_whole_reply_comes_without_the_upstreams_prices(
    application: Application, upstream: FakeUpstream, indent: int
) -> None:
    upstream.enqueue(Script(body=orjson.dumps(WHOLE, option=indent)))
    reply = application.chat()
    assert reply.json() == KEPT
    if not indent:
        assert reply.content == orjson.dumps(KEPT)
    [row] = closed_usage()
    assert (row.upstream_cost, row.total_tokens) == (Decimal("0.0123"), 13)


@pytest.mark.parametrize("wants_usage", [False, True])
def test_a_stream_comes_without_the_upstreams_prices_in_any_chunk(
    application: Application, upstream: FakeUpstream, wants_usage: bool
) -> None:
    upstream.enqueue(
        a_stream(
            {"choices": delta('"cost": 1')},
            {"choices": delta("b"), "usage": {**MONEY, **TOKENS}},
            {"choices": delta("", "stop"), "usage": {**TOKENS, **MONEY}, "x_provider": {"price": 1}},
            {"choices": [], "usage": {**TOKENS, **MONEY, "cost": 0.5}},
        )
    )
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if wants_usage else {}
    reply = application.chat(stream=True, **options)
    for word in ("0.0123", "cost_details", "is_byok", "market_cost", '"price"'):
        assert word not in reply.text
    first, second, third, *rest = events_of(reply)
    assert first["choices"] == delta('"cost": 1')
    assert (second["usage"], third["usage"], third["x_provider"]) == (TOKENS, TOKENS, {})
    assert [event["usage"] for event in rest[:-1]] == ([TOKENS] if wants_usage else [])
    [row] = closed_usage()
    assert (row.upstream_cost, row.total_tokens) == (Decimal("0.5"), 13)


@pytest.mark.usefixtures("show_cost")
@pytest.mark.parametrize("is_stream", [False, True])
def test_who_may_see_costs_sees_ours_alone(application: Application, upstream: FakeUpstream, is_stream: bool) -> None:
    set_price(input="1", output="2")
    usage = {**TOKENS, **MONEY}
    whole = Script(body=orjson.dumps({**WHOLE, "usage": usage}))
    upstream.enqueue(a_stream({"choices": delta("a", "stop"), "usage": usage}) if is_stream else whole)
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if is_stream else {}
    reply = application.chat(stream=is_stream, **options)
    told = events_of(reply)[-2] if is_stream else reply.json()
    assert told["usage"] == {"cost": 0.000017, **TOKENS}
    assert "0.0123" not in reply.text
    [row] = closed_usage()
    assert (row.cost, row.upstream_cost) == (Decimal("0.000017"), Decimal("0.0123"))


@pytest.mark.parametrize(
    ("usage", "cost", "flags"),
    [
        ({"cost": 0.00016620000000000002}, "0.0001662", "upstream_cost_rounded"),
        ({"cost": {"total_cost": 0.25, "input_tokens_cost": 0.2}}, "0.25", ""),
        ({"cost_in_usd_ticks": 37_756_000}, "0.0037756", ""),
        ({"estimated_cost": 1e-06}, "0.000001", ""),
        ({"cost": "0.25"}, "0.25", ""),
        ({"cost": -1}, None, ""),
        ({"cost": "much"}, None, ""),
        ({"cost": True}, None, ""),
        ({}, None, ""),
    ],
)
def test_the_providers_own_figure_is_kept(
    application: Application, upstream: FakeUpstream, usage: dict[str, Any], cost: str | None, flags: str
) -> None:
    upstream.enqueue(Script(usage={**TOKENS, **usage}))
    assert application.chat().json()["usage"] == TOKENS
    [row] = closed_usage()
    assert (row.upstream_cost, row.flags) == (None if cost is None else Decimal(cost), flags)


def test_the_providers_own_figure_is_kept_of_a_translated_reply(
    application: Application, upstream: FakeUpstream
) -> None:
    upstream.enqueue(Script(usage={**TOKENS, **MONEY}), Script(usage={**TOKENS, **MONEY}))
    replies = [application.chat(path="/api/chat", stream=is_stream) for is_stream in (False, True)]
    assert all("cost" not in reply.text for reply in replies)
    assert [row.upstream_cost for row in closed_usage(2)] == [Decimal("0.0123")] * 2


# --- Limits of cost ---------------------------------------------------------------------------------------------------


def limit_cost(account: Account, amount: str) -> None:
    call_command("set_limit", account.name, "cost", "day", amount, stdout=io.StringIO())


def test_a_lowered_maximum_under_a_limit_of_cost_is_not_told(
    application: Application, upstream: FakeUpstream, account: Account
) -> None:
    set_price(input="1", output="10")
    limit_cost(account, "1")
    reply = application.chat()
    assert reply.status_code == 200
    assert "x-llm-max-output-tokens" not in reply.headers
    assert (upstream.ledger.entries()[0].body or {})["max_tokens"] > 0


@pytest.mark.usefixtures("show_cost")
def test_a_lowered_maximum_is_told_to_who_may_see_costs(application: Application, account: Account) -> None:
    set_price(input="1", output="10")
    limit_cost(account, "0.01")
    assert int(application.chat().headers["x-llm-max-output-tokens"]) < 1000


@pytest.mark.parametrize("shows_cost", [False, True])
def test_a_spent_limit_of_cost_is_told_with_its_amount_only_to_who_may_see_costs(
    application: Application, account: Account, shows_cost: bool
) -> None:
    set_price(input="1", output="10")
    Account.objects.filter(pk=account.pk).update(shows_cost=shows_cost)
    limit_cost(account, "0")
    reply = application.chat()
    assert reply.status_code == 429
    assert ("$0" in error_of(reply)["message"]) is shows_cost
    assert ("cost limit per day" in error_of(reply)["message"]) is not shows_cost

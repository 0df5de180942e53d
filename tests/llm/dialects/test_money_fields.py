"""Which names tell a price, and that cutting them leaves JSON that says all the rest."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.dialects.money_fields import event_without_money, read_upstream_cost, tells_a_price, without_money


@pytest.mark.parametrize(
    "name",
    [
        *("cost", "COST", "totalcost", "TotalCost", "total-cost", "costusd", "costInUsd", "marketCost", "is_byok"),
        *("total_price", "prices", "pricePer1k", "upstream_inference_cost", "cost_in_usd_ticks", "cacheDiscount"),
        *("credits_used", "fee", "platformFee", "basefee", "usdTotal", "totalUSD", "remaining_balance", "charged"),
    ],
)
def test_names_that_tell_a_price(name: str) -> None:
    assert tells_a_price(name)


@pytest.mark.parametrize(
    "name",
    [
        *("usage", "prompt_tokens_details", "reasoning_content", "system_fingerprint", "choices", "audio_tokens"),
        *("feedback", "coffee", "suspended", "accredited", "load_balancer", "charger", "europe", "percent", "recents"),
        *("statusDetails", "us_data", "topic_ostrich", "top_rice"),
    ],
)
def test_names_that_tell_none(name: str) -> None:
    assert not tells_a_price(name)


NAMES = st.sampled_from(["a", "cost", "usage", "content", "totalPrice", "choices", "message", "arguments", "fee"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", '"cost":1', "}", "\\", "a,b", "data: x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def stripped(value: Any) -> Any:
    if isinstance(value, list):
        return [stripped(each) for each in value]
    if isinstance(value, dict):
        return {name: stripped(each) for name, each in value.items() if not tells_a_price(name)}
    return value


@pytest.mark.slow
@given(document=st.dictionaries(NAMES.filter(lambda name: name != "choices"), JSON, max_size=4), indent=st.booleans())
def test_all_else_stays(document: dict[str, Any], indent: bool) -> None:
    # Under `usage` nothing is the model's own, whatever it is called.
    text = orjson.dumps({"usage": document}, option=orjson.OPT_INDENT_2 if indent else 0)
    assert orjson.loads(without_money(text)) == {"usage": stripped(document)}


@pytest.mark.slow
@given(document=st.dictionaries(NAMES, JSON, max_size=4))
def test_of_any_document_json_remains(document: dict[str, Any]) -> None:
    once = without_money(orjson.dumps(document))
    assert isinstance(orjson.loads(once), dict)
    assert without_money(once) == once


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_keeps_its_other_fields(end: bytes) -> None:
    lines = [b"event: x", b": cost 1", b": ping", b'data: {"cost":', b'data:1,"a":2}', b"id: 7", b"", b""]
    assert event_without_money(end.join(lines)) == end.join(
        [b"event: x", b": ping", b'data: {"a":2}', b"id: 7", b"", b""]
    )


@pytest.mark.parametrize(
    ("usage", "pico"),
    [
        # OpenRouter with a key of ours: its fee, and the provider's own bill.
        ({"is_byok": True, "cost": 0.0005, "cost_details": {"upstream_inference_cost": 0.01}}, 10_500_000_000),
        ({"is_byok": True, "cost": 0, "cost_details": {"upstream_inference_cost": "0.01"}}, 10_000_000_000),
        ({"is_byok": True, "cost_details": {"upstream_inference_cost": 0.01}}, 10_000_000_000),
        # Vercel's gateway.
        ({"is_byok": True, "cost": "0", "market_cost": "0.02"}, 20_000_000_000),
        # The fee alone is no figure of what the call costs.
        ({"is_byok": True, "cost": 0.0005}, None),
        ({"is_byok": True, "cost": 0.0005, "cost_details": {"upstream_inference_cost": None}}, None),
        ({"is_byok": True, "cost": -1, "cost_details": {"upstream_inference_cost": 0.01}}, None),
        ({"is_byok": True, "cost": 0.0005, "cost_details": {"upstream_inference_cost": True}}, None),
        # Credits of the gateway's: what it paid itself is its own affair.
        ({"is_byok": False, "cost": 0.0105, "cost_details": {"upstream_inference_cost": 0.01}}, 10_500_000_000),
        ({"cost": 0.95, "cost_details": {"upstream_inference_cost": 19}}, 950_000_000_000),
        ({"cost": "1e999999"}, None),
    ],
)
def test_with_a_key_of_ours_at_the_provider_the_cost_is_its_bill_and_the_gateways_fee(
    usage: dict[str, Any], pico: int | None
) -> None:
    cost = read_upstream_cost({"usage": usage})
    assert (None if cost is None else cost.pico) == pico

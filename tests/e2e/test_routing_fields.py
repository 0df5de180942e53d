"""A key, a limit and a price stand on the one field `model`: nothing else in a request may choose who serves it."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import orjson
import pytest
from django.core.management import call_command

from llm.keys import create_key
from llm.models import Account, LimitWindow, ModelRoute
from llm.rerating import rerate
from llm.verification import verify
from tests.books import closed_usage
from tests.e2e.callers import CHAT, HELLO, Application, assert_nothing_happened, error_of, hello
from tests.e2e.test_purchase_price import TOKENS, a_stream, delta
from tests.e2e.test_unpriced import make_route, set_price
from tests.fakes import FakeUpstream, Script

pytestmark = pytest.mark.e2e

# --- Keys in another case ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"MODEL": "expensive"}, "model"),
        ({"Max_Tokens": 9}, "max_tokens"),
        ({"N": 64}, "n"),
        ({"Stream": True}, "stream"),
        ({"Models": ["expensive"]}, "models"),
        ({"me\u017f\u017fages": []}, "messages"),
        ({"stream": True, "stream_options": {"Include_Usage": False}}, "stream_options.include_usage"),
        ({"messages": [{"role": "user", "Content": "x"}]}, "messages.content"),
        ({"messages": [{"role": "user", "content": [{"Type": "text"}]}]}, "messages.content.type"),
        ({"tools": [{"TYPE": "web_search"}]}, "tools.type"),
        ({"response_format": {"Type": "json_object"}}, "response_format.type"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
def test_a_key_that_equals_a_known_one_but_for_case_is_refused(
    application: Application, upstream: FakeUpstream, body: dict[str, Any], param: str, path: str
) -> None:
    sent = orjson.dumps({"model": "cheap", "messages": HELLO, **body})
    reply = application.send("POST", path, body=sent)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_request")
    assert "case-sensitive" in reply.json()["error"]["message"]
    if path == CHAT:
        assert error_of(reply)["param"] == param
    assert_nothing_happened(upstream)


def test_a_restricted_key_calls_no_other_model_in_capitals(
    application: Application, account: Account, upstream: FakeUpstream
) -> None:
    _, secret = create_key(account, name="cheap only", allowed_models=["cheap"])
    body = b'{"model":"cheap","messages":[{"role":"user","content":"hi"}],"MODEL":"expensive"}'
    assert application.using(secret).send("POST", CHAT, body=body).status_code == 400
    assert_nothing_happened(upstream)


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {"Model": "x", "MODELS": "y"}, "top_K": 3},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"Type": "x", "TYPE": "y"}}}]},
        {"a_field_of_tomorrow": {"Model": "x"}},
    ],
)
def test_what_we_do_not_read_may_have_any_keys(
    application: Application, upstream: FakeUpstream, fields: dict[str, Any]
) -> None:
    fields = {name: value for name, value in fields.items() if name != "top_K"}
    assert application.chat(**fields).status_code == 200
    [entry] = upstream.ledger.entries()
    assert {name: (entry.body or {})[name] for name in fields} == fields


# --- Fields that choose who serves ------------------------------------------------------------------------------------

ROUTING: dict[str, Any] = {
    "models": ["expensive"],
    "route": "fallback",
    "provider": {"order": ["x"]},
    "plugins": [{"id": "web"}],
    "preset": "mine",
    "transforms": ["middle-out"],
    "fallbacks": ["expensive"],
    "extra_body": {"model": "expensive"},
    "providerOptions": {"gateway": {"models": ["expensive"]}},
    "api_base": "https://elsewhere.example.com",
    "litellm_credential_name": "other",
}


@pytest.mark.parametrize("field", list(ROUTING))
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_field_that_chooses_who_serves_is_refused_by_name(
    application: Application, upstream: FakeUpstream, field: str, provider: str
) -> None:
    make_route("smart", (provider, "cheap"))
    reply = application.chat("smart", **{field: ROUTING[field]})
    assert (reply.status_code, error_of(reply)["code"], error_of(reply)["param"]) == (400, "invalid_request", field)
    assert f"'{field}'" in error_of(reply)["message"]
    assert_nothing_happened(upstream)


@pytest.mark.parametrize("field", list(ROUTING))
def test_a_route_may_allow_such_fields(application: Application, upstream: FakeUpstream, field: str) -> None:
    make_route("smart", ("openai", "cheap"))
    ModelRoute.objects.update(allows_provider_routing=True)
    assert application.chat("smart", **{field: ROUTING[field]}).status_code == 200
    [entry] = upstream.ledger.entries()
    assert (entry.body or {})[field] == ROUTING[field]


@pytest.mark.parametrize("field", list(ROUTING))
def test_where_a_limit_of_cost_binds_no_route_allows_them(
    application: Application, upstream: FakeUpstream, account: Account, field: str
) -> None:
    make_route("smart", ("openai", "cheap"))
    ModelRoute.objects.update(allows_provider_routing=True)
    set_price("cheap", input="1", output="1")
    call_command("set_limit", account.name, "cost", "day", "5", stdout=io.StringIO())
    reply = application.chat("smart", **{field: ROUTING[field]})
    assert (reply.status_code, error_of(reply)["code"]) == (400, "limit_not_applicable")
    assert_nothing_happened(upstream)


def test_null_asks_for_nothing(application: Application) -> None:
    assert application.chat(models=None, provider=None).status_code == 200


@pytest.mark.parametrize(
    "model", ["a/b:online", "a/b:NITRO", "a/b:free", "a/b:free:online", "gpt-4o@preset/x", "q:cheapest"]
)
def test_a_variant_of_a_model_needs_a_route(application: Application, upstream: FakeUpstream, model: str) -> None:
    reply = application.chat(model)
    assert (reply.status_code, error_of(reply)["param"]) == (400, "model")
    assert_nothing_happened(upstream)


def test_a_route_or_a_price_of_its_own_makes_a_variant_callable(
    application: Application, upstream: FakeUpstream
) -> None:
    make_route("searching", ("openai", "a/b:online"))
    set_price("a/c:free", free=True)
    assert [application.chat(model).status_code for model in ("searching", "a/c:free")] == [200, 200]
    assert [entry.model for entry in upstream.ledger.entries()] == ["a/b:online", "a/c:free"]


@pytest.mark.parametrize(
    "model", ["llama3:8b", "qwen3:30b-a3b-thinking-2507", "ft:gpt-4.1-2025-04-14:acme::id2", "ft:gpt-4o:free:online:x"]
)
def test_tags_and_fine_tuned_names_are_no_variants(
    application: Application, upstream: FakeUpstream, model: str
) -> None:
    assert application.chat(model).status_code == 200
    assert [entry.model for entry in upstream.ledger.entries()] == [model]


# --- Fields with a fee ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"web_search_options": {}},
        {"search_parameters": {"mode": "on"}},
        {"enable_search": True},
        {"tools": [{"type": "web_search"}]},
        {"prediction": {"type": "content", "content": "x"}},
        {"service_tier": "priority"},
        {"speed": "fast"},
        {"inference_geo": "us"},
    ],
)
def test_what_costs_a_fee_is_refused_where_a_limit_of_cost_binds(
    application: Application, upstream: FakeUpstream, account: Account, fields: dict[str, Any]
) -> None:
    set_price(input="1", output="1")
    call_command("set_limit", account.name, "cost", "day", "5", stdout=io.StringIO())
    reply = application.chat(**fields)
    assert (reply.status_code, error_of(reply)["code"]) == (400, "limit_not_applicable")
    assert_nothing_happened(upstream)


@pytest.mark.parametrize("tier", ["auto", "default", "standard"])
def test_a_standard_tier_is_bounded(application: Application, account: Account, tier: str) -> None:
    set_price(input="1", output="1")
    call_command("set_limit", account.name, "cost", "day", "5", stdout=io.StringIO())
    assert application.chat(service_tier=tier).status_code == 200


def test_a_tier_with_rates_of_its_own_is_bounded_and_priced(
    application: Application, upstream: FakeUpstream, account: Account
) -> None:
    set_price(input="1", output="1")
    set_price(input="2", output="2", service_tier="priority")
    call_command("set_limit", account.name, "cost", "day", "5", stdout=io.StringIO())
    upstream.enqueue(Script(body=a_reply(service_tier="priority")))
    assert application.chat(service_tier="priority").status_code == 200
    assert closed_usage()[0].cost == Decimal("0.000026")


@pytest.mark.parametrize("fields", [{"service_tier": "priority"}, {"speed": "fast"}, {"inference_geo": "us"}])
def test_what_was_asked_for_counts_where_the_upstream_says_nothing_of_it(
    application: Application, upstream: FakeUpstream, fields: dict[str, Any]
) -> None:
    set_price(input="1", output="1")
    upstream.enqueue(Script(body=a_reply()))
    assert application.chat(**fields).status_code == 200
    [row] = closed_usage()
    assert (row.cost, row.is_unpriced, row.flags) == (None, True, "tier_unpriced")


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_region_that_costs_more_is_unpriced_without_rates_of_its_own(
    application: Application, upstream: FakeUpstream, is_stream: bool
) -> None:
    make_route("smart", ("anthropic", "claude-sonnet-4-6"))
    set_price("claude-sonnet-4-6", provider="anthropic", input="3", output="15")
    usage = {"input_tokens": 1000, "output_tokens": 100}
    for geo in ("us", "global"):
        told = {**usage, "inference_geo": geo}
        upstream.enqueue(Script(usage=told, start_usage=told))
        assert application.chat("smart", stream=is_stream, max_tokens=100).status_code == 200
    us, anywhere = closed_usage(2)
    assert (us.cost, us.inference_geo, us.flags) == (None, "us", "tier_unpriced")
    assert (anywhere.cost, anywhere.inference_geo, anywhere.flags) == (Decimal("0.0045"), "global", "")


# --- Who has served ---------------------------------------------------------------------------------------------------


def a_reply(model: str = "gpt-4o", **fields: Any) -> bytes:
    message = {"role": "assistant", "content": "You said: hello there"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return orjson.dumps({"id": "chatcmpl-1", "model": model, "choices": choices, "usage": TOKENS, **fields})


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_model_with_another_price_of_its_own_is_priced_as_reported_and_flagged(
    application: Application, upstream: FakeUpstream, account: Account, is_stream: bool
) -> None:
    set_price("cheap", input="1", output="1")
    set_price("expensive", input="100", output="100")
    call_command("set_limit", account.name, "cost", "day", "5", stdout=io.StringIO())
    chunks = {"model": "expensive", "choices": delta("hi", "stop"), "usage": TOKENS}
    upstream.enqueue(a_stream(chunks) if is_stream else Script(body=a_reply("expensive")))
    assert application.chat("cheap", stream=is_stream).status_code == 200
    [row] = closed_usage()
    assert (row.upstream_model, row.reported_model) == ("cheap", "expensive")
    assert (row.cost, row.flags) == (Decimal("0.0013"), "priced_as_reported")
    assert LimitWindow.objects.values_list("used", "held").get() == (1300, 0)
    assert verify().problems == 0


@pytest.mark.parametrize("reported", ["cheap-2026-01-01", "/models/cheap.gguf", "CHEAP", "", "cheap@latest"])
def test_a_name_without_a_price_of_its_own_is_an_alias(
    application: Application, upstream: FakeUpstream, reported: str
) -> None:
    set_price("cheap", input="1", output="1")
    upstream.enqueue(Script(body=a_reply(reported)))
    assert application.chat("cheap").status_code == 200
    [row] = closed_usage()
    assert (row.reported_model, row.cost, row.flags) == (reported, Decimal("0.000013"), "")


def test_a_name_that_the_same_price_covers_is_an_alias_whatever_staff_have_set(
    application: Application, upstream: FakeUpstream
) -> None:
    """Staff's own price of `gpt-4o` holds although the list has one for all that begin so."""
    call_command("import_prices", stdout=io.StringIO())
    set_price("gpt-4o", input="1", output="1")
    upstream.enqueue(Script(body=a_reply("gpt-4o-2024-08-06")))
    assert application.chat("gpt-4o").status_code == 200
    [row] = closed_usage()
    assert (row.cost, row.flags) == (Decimal("0.000013"), "")


def test_the_same_rates_under_another_name_are_no_other_price(application: Application, upstream: FakeUpstream) -> None:
    set_price("a", input="1", output="1")
    set_price("b", input="1", output="1")
    upstream.enqueue(Script(body=a_reply("b")))
    assert application.chat("a").status_code == 200
    assert closed_usage()[0].flags == ""


def test_a_call_that_was_priced_as_reported_stays_so_when_it_is_rated_again(
    application: Application, upstream: FakeUpstream
) -> None:
    set_price("cheap", input="1", output="1")
    set_price("expensive", input="100", output="100")
    upstream.enqueue(Script(body=a_reply("expensive")))
    application.chat("cheap")
    [row] = closed_usage()
    report = rerate("openai", "cheap", first_day=row.local_day, last_day=row.local_day, reason="A check.")
    assert (report.calls, report.changed) == (1, 0)


def test_a_body_with_known_fields_alone_goes_up_as_it_was(application: Application, upstream: FakeUpstream) -> None:
    body = hello(temperature=0.5, top_k=3, user="u")
    application.send("POST", CHAT, body=body)
    assert upstream.ledger.entries()[0].raw == body

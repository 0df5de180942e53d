"""A key, a limit and a price stand on the one field `model`: nothing else in a request may choose who serves it."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import orjson
import pytest
from django.core.management import call_command

from llm.audit import verify
from llm.books.rerating import rerate
from llm.enums import Meter
from llm.keys import create_key
from llm.models import Account, LimitWindow, ModelRoute
from llm.prices import staff
from tests.books import closed_usage
from tests.e2e.callers import CHAT, HELLO, Application, assert_nothing_happened, error_of, hello
from tests.e2e.test_purchase_price import TOKENS, a_stream, delta
from tests.e2e.test_unpriced import make_route, set_price
from tests.fakes import FakeUpstream, Script

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

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
    "base_url": "https://elsewhere.example.com",
    "api_key": "another's",
    "litellm_credential_name": "other",
    "prompt": {"id": "pmpt_1", "version": "2"},
    "prompt_id": "pmpt_1",
    "specific_deployment": "expensive",
    "deployment_id": "expensive",
    "tags": ["paid"],
    "metadata": {"tags": ["paid"]},
    "region_name": "eu-west-1",
    "aws_region_name": "eu-west-1",
    "vertex_project": "p",
    "azure_ad_token": "t",
    "organization": "org-1",
    "fallback_models": ["expensive"],
    "model_group": "expensive",
    "model_override": "expensive",
    "model_info": {"id": "expensive"},
    "custom_llm_provider": "openrouter",
    "provider_specific_header": {"custom_llm_provider": "x"},
    "mock_response": "Hi.",
    "mock_testing_fallbacks": True,
    "input_cost_per_token": 0,
    "group": "vip",
    "adapter_id": "expensive",
}
NAMED_AS = {"metadata": "metadata.tags"}


@pytest.mark.parametrize("field", list(ROUTING))
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_field_that_chooses_who_serves_is_refused_by_name(
    application: Application, upstream: FakeUpstream, field: str, provider: str
) -> None:
    make_route("smart", (provider, "cheap"))
    reply = application.chat("smart", **{field: ROUTING[field]})
    named = NAMED_AS.get(field, field)
    assert (reply.status_code, error_of(reply)["code"], error_of(reply)["param"]) == (400, "invalid_request", named)
    assert f"'{named}'" in error_of(reply)["message"]
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


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {"tags": "a, b", "model": "x", "api_base": "y"}},
        {"prompt": "Say hello."},
        {"user": "u", "top_k": 3, "seed": 1, "min_p": 0.1, "guided_json": {"tags": []}, "stop": ["tags"]},
    ],
)
def test_what_chooses_nobody_passes(application: Application, upstream: FakeUpstream, fields: dict[str, Any]) -> None:
    assert application.chat(**fields).status_code == 200
    [entry] = upstream.ledger.entries()
    assert {name: (entry.body or {})[name] for name in fields} == fields


@pytest.mark.parametrize(
    "name", ["Tags", "SPECIFIC_DEPLOYMENT", "Web_Search", "Best_Of", "AWS_region_name", "Mock_Response"]
)
def test_such_fields_in_another_case_are_refused_too(
    application: Application, upstream: FakeUpstream, name: str
) -> None:
    assert application.chat(**{name: "x"}).status_code == 400
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
        {"web_search": True},
        {"web_search": {"enable": True}},
        {"enable_web_search": True},
        {"mcp_servers": [{"url": "https://example.com"}]},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "FUNCTION", "function": {"name": "f"}}]},
        {"tools": [{"type": "function", "function": {"name": "f"}, "web_search": {}}]},
        {"tools": [{"type": "function", "web_search": {}}]},
        {"tools": [{"function": {"name": "f"}}]},
        {"tools": {"type": "web_search"}},
        {"tools": "web_search"},
        {"tools": [{"type": "function", "function": {"name": "f"}}, "web_search"]},
        {"tool_choice": {"type": "web_search_preview"}},
        {"modalities": ["image", "text"]},
        {"modalities": "image"},
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


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "web_search"}, "cache_control": {"type": "ephemeral"}}]},
        {"tools": [], "modalities": ["text"], "web_search": False, "enable_search": None},
    ],
)
def test_what_costs_tokens_alone_is_bounded(application: Application, account: Account, fields: dict[str, Any]) -> None:
    set_price(input="1", output="1")
    call_command("set_limit", account.name, "cost", "day", "5", stdout=io.StringIO())
    assert application.chat(**fields).status_code == 200


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


# --- Tools that the provider runs -------------------------------------------------------------------------------------


def a_search_price(model: str = "gpt-4o", **units: str) -> None:
    set_price(model, input="1", output="1", per_thousand=[f"{name}={usd}" for name, usd in units.items()])


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "meters"),
    [
        ({"web_search_options": {}}, {"web_searches": 1}),
        ({"enable_search": True}, {"unreported_tools": 1}),
        ({"search_parameters": {"mode": "on"}}, {"unreported_tools": 1}),
        ({"mcp_servers": [{"url": "https://example.com"}]}, {"unreported_tools": 1}),
        ({"tools": [{"type": "web_search"}]}, {"unreported_tools": 1}),
        ({"tool_choice": {"type": "web_search_preview"}}, {"unreported_tools": 1}),
        ({"web_search_options": {}, "tools": [{"type": "mcp"}]}, {"web_searches": 1, "unreported_tools": 1}),
    ],
)
def test_tools_of_the_provider_are_never_priced_at_their_tokens_alone(
    application: Application, upstream: FakeUpstream, is_stream: bool, fields: dict[str, Any], meters: dict[str, int]
) -> None:
    set_price(input="1", output="1")
    chunks = {"choices": delta("hi", "stop"), "usage": TOKENS}
    upstream.enqueue(a_stream(chunks) if is_stream else Script(body=a_reply()))
    assert application.chat(stream=is_stream, **fields).status_code == 200
    [row] = closed_usage()
    assert (row.extra_meters, row.cost, row.is_unpriced, row.flags) == (meters, None, True, "tools_unreported")
    assert verify().sentences == []


def test_a_model_that_always_searches_is_never_priced_at_its_tokens_alone(
    application: Application, upstream: FakeUpstream, account: Account
) -> None:
    set_price("gpt-4o-search-preview", input="2.5", output="10")
    upstream.enqueue(Script(body=a_reply("gpt-4o-search-preview-2025-03-11")))
    assert application.chat("gpt-4o-search-preview").status_code == 200
    [row] = closed_usage()
    assert (row.extra_meters, row.cost, row.flags) == ({"web_searches": 1}, None, "tools_unreported")
    call_command("set_limit", account.name, "cost", "day", "5", stdout=io.StringIO())
    refused = application.chat("gpt-4o-search-preview")
    assert (refused.status_code, error_of(refused)["code"]) == (400, "limit_not_applicable")
    assert "web searches" in error_of(refused)["message"]


def test_a_search_that_is_not_reported_costs_one_where_the_price_knows_what_one_costs(
    application: Application, upstream: FakeUpstream
) -> None:
    a_search_price("gpt-4o-search-preview", web_searches="25")
    upstream.enqueue(Script(body=a_reply("gpt-4o-search-preview")))
    assert application.chat("gpt-4o-search-preview", web_search_options={}).status_code == 200
    [row] = closed_usage()
    # 13 tokens at 1 USD a million, one search at 25 USD a thousand.
    assert (row.extra_meters, row.cost, row.flags) == ({"web_searches": 1}, Decimal("0.025013"), "tools_unreported")
    assert verify().sentences == []


def test_a_call_with_unreported_tools_gets_its_cost_once_the_price_has_a_rate_for_them(
    application: Application, upstream: FakeUpstream
) -> None:
    set_price(input="1", output="1")
    upstream.enqueue(Script(body=a_reply()))
    assert application.chat(tools=[{"type": "mcp"}]).status_code == 200
    [row] = closed_usage()
    staff.set_price(
        *("openai", "gpt-4o"),
        rates={Meter.INPUT: Decimal(1), Meter.OUTPUT: Decimal(1)},
        per_thousand={"unreported_tools": Decimal(0)},
        effective_from=row.opened_at,
    )
    report = rerate("openai", "gpt-4o", first_day=row.local_day, last_day=row.local_day, reason="MCP is free")
    assert (report.changed, report.after_pico) == (1, 13_000_000)
    assert verify().sentences == []


@pytest.mark.parametrize("searches", [0, 3])
def test_units_that_are_reported_count_as_they_are(
    application: Application, upstream: FakeUpstream, searches: int
) -> None:
    a_search_price(web_searches="10")
    usage = {**TOKENS, "server_tool_use": {"web_search_requests": searches}}
    upstream.enqueue(Script(body=a_reply(usage=usage)))
    assert application.chat(tools=[{"type": "openrouter:web_search"}]).status_code == 200
    [row] = closed_usage()
    assert (row.cost, row.flags) == (Decimal("0.000013") + searches * Decimal("0.01"), "")
    assert row.extra_meters == ({"web_searches": searches} if searches else {})


def test_a_counter_that_nobody_knows_makes_a_call_unpriced(application: Application, upstream: FakeUpstream) -> None:
    make_route("smart", ("anthropic", "claude-sonnet-4-6"))
    set_price("claude-sonnet-4-6", provider="anthropic", input="3", output="15")
    usage = {"input_tokens": 1000, "output_tokens": 100, "server_tool_use": {"web_fetch_requests": 2, "dreams": 4}}
    upstream.enqueue(Script(usage=usage))
    assert application.chat("smart", max_tokens=100).status_code == 200
    [row] = closed_usage()
    assert (row.extra_meters, row.cost, row.is_unpriced) == ({"dreams": 4}, None, True)


def test_functions_of_the_caller_are_no_tools_of_the_provider(application: Application, upstream: FakeUpstream) -> None:
    set_price(input="1", output="1")
    upstream.enqueue(Script(body=a_reply()))
    tools = [{"type": "function", "function": {"name": "web_search"}}]
    assert (
        application.chat(tools=tools, web_search=False, prediction={"type": "content", "content": "x"}).status_code
        == 200
    )
    [row] = closed_usage()
    assert (row.extra_meters, row.cost, row.flags) == ({}, Decimal("0.000013"), "")


# --- Free models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"web_search_options": {}},
        {"tools": [{"type": "web_search"}]},
        {"enable_search": True},
        {"service_tier": "priority"},
        {"speed": "fast"},
    ],
)
def test_what_costs_a_fee_is_refused_of_a_free_model_too_where_a_limit_of_cost_binds(
    application: Application, upstream: FakeUpstream, account: Account, fields: dict[str, Any]
) -> None:
    set_price("llama-3:free", free=True)
    call_command("set_limit", account.name, "cost", "day", "5", stdout=io.StringIO())
    reply = application.chat("llama-3:free", **fields)
    assert (reply.status_code, error_of(reply)["code"]) == (400, "limit_not_applicable")
    assert_nothing_happened(upstream)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"service_tier": "default"},
        {"modalities": ["image", "text"]},
        {"prediction": {"type": "content", "content": "x"}},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}]},
    ],
)
def test_any_number_of_tokens_of_a_free_model_fits_a_limit_of_cost(
    application: Application, account: Account, fields: dict[str, Any]
) -> None:
    set_price(free=True)
    call_command("set_limit", account.name, "cost", "day", "5", stdout=io.StringIO())
    assert application.chat(**fields).status_code == 200
    assert closed_usage()[0].cost == 0


def test_searches_of_a_free_model_are_unpriced_not_free(application: Application, upstream: FakeUpstream) -> None:
    set_price("llama-3:free", free=True)
    upstream.enqueue(Script(body=a_reply(usage={**TOKENS, "num_search_queries": 2})))
    assert application.chat("llama-3:free").status_code == 200
    [row] = closed_usage()
    assert (row.cost, row.is_unpriced, row.extra_meters) == (None, True, {"web_searches": 2})
    assert verify().sentences == []

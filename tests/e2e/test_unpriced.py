"""Models without a price: served and shown, unless the setting or a limit of cost forbids it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.utils import timezone

from llm.admin.usage_summaries import unpriced_models
from llm.models import Account, ModelRoute, Usage
from tests.books import closed_usage
from tests.e2e.callers import CHAT, Application, assert_nothing_happened, error_of
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = pytest.mark.e2e


@pytest.fixture
def calls(application: Application, strict: Gateway) -> Application:
    """Calls the gateway that has no policy of its own for models without a price."""
    return application.at(strict)


@pytest.fixture
def refusing(application: Application, start_gateway: Callable[..., Gateway]) -> Application:
    """Calls a gateway that refuses models without a price."""
    return application.at(start_gateway(LLM_UNPRICED_MODELS="refuse"))


def set_price(model: str = "gpt-4o", *, provider: str = "openai", **options: object) -> None:
    call_command("set_price", provider, model, **options, stdout=io.StringIO())


def make_route(name: str, *targets: tuple[str, str]) -> ModelRoute:
    route = ModelRoute.objects.create(name=name)
    for position, (provider, upstream_model) in enumerate(targets):
        route.targets.create(position=position, provider=provider, upstream_model=upstream_model)
    return route


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
def test_the_setting_refuses_a_model_without_a_price_before_anything_is_sent(
    refusing: Application, upstream: FakeUpstream, path: str, is_stream: bool
) -> None:
    reply = refusing.chat(path=path, stream=is_stream)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "model_not_priced")
    assert "gpt-4o" in reply.json()["error"]["message"]
    assert_nothing_happened(upstream)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_hosted_model_without_a_price_is_served_and_listed(
    calls: Application, upstream: FakeUpstream, provider: str, is_stream: bool
) -> None:
    make_route("new", (provider, "a-model-of-today"))
    assert calls.chat("new", stream=is_stream).status_code == 200
    [row] = closed_usage()
    assert (row.status, row.cost, row.price_id, row.is_unpriced, row.total_tokens) == ("settled", None, None, True, 13)
    assert [(model.provider, model.model, model.calls) for model in unpriced_models()] == [
        (provider, "a-model-of-today", 1)
    ]


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_model_without_a_price_is_refused_where_a_limit_of_cost_binds(
    calls: Application, upstream: FakeUpstream, account: Account, is_stream: bool
) -> None:
    call_command("set_limit", account.name, "cost", "day", "5", stdout=io.StringIO())
    reply = calls.chat(stream=is_stream)
    assert (reply.status_code, error_of(reply)["code"]) == (400, "limit_not_applicable")
    assert error_of(reply)["message"] == (
        "This request can't be sent under this account's cost limit per day: no price is known for this model."
    )
    assert_nothing_happened(upstream)


def test_where_a_limit_of_cost_binds_a_route_goes_on_to_a_model_with_a_price(
    calls: Application, upstream: FakeUpstream, account: Account
) -> None:
    call_command("set_limit", account.name, "cost", "day", "5", stdout=io.StringIO())
    make_route("smart", ("openai", "a-model-of-today"), ("openai", "gpt-4o"))
    set_price(input="1", output="1")
    assert calls.chat("smart").status_code == 200
    assert [row.upstream_model for row in closed_usage()] == ["gpt-4o"]
    assert [entry.model for entry in upstream.ledger.entries()] == ["gpt-4o"]


def test_a_price_that_is_set_acts_on_the_next_call_of_a_running_gateway(refusing: Application) -> None:
    assert refusing.chat().status_code == 400
    set_price(input="2.50", output="10")
    assert refusing.chat().status_code == 200
    assert closed_usage()[0].cost == (9 * Decimal("2.50") + 4 * 10) / 1_000_000


def test_a_price_that_replaces_another_acts_on_the_next_call_and_on_no_earlier_one(calls: Application) -> None:
    set_price(input="1", output="1")
    calls.chat()
    set_price(input="2", output="2")
    calls.chat()
    first, second = closed_usage(2)
    assert [row.cost for row in (first, second)] == [Decimal("0.000013"), Decimal("0.000026")]
    assert first.price_id != second.price_id


def test_a_price_of_the_future_is_not_in_force_yet(refusing: Application, upstream: FakeUpstream) -> None:
    set_price(input="2.50", output="10", moment=(timezone.now() + timedelta(days=1)).isoformat())
    reply = refusing.chat()
    assert (reply.status_code, error_of(reply)["code"]) == (400, "model_not_priced")
    assert_nothing_happened(upstream)


def test_a_price_begins_at_its_moment_although_the_gateway_read_it_before(calls: Application) -> None:
    set_price(input="1", output="1")
    begins_at = timezone.now() + timedelta(seconds=3)
    set_price(input="3", output="3", moment=begins_at.isoformat())
    calls.chat()
    time.sleep((begins_at - timezone.now()).total_seconds())
    calls.chat()
    rows = closed_usage(2)
    assert [row.cost for row in rows] == [Decimal("0.000013"), Decimal("0.000039")]
    assert rows[0].opened_at < begins_at <= rows[1].opened_at


def test_a_free_model_is_served_and_costs_nothing(calls: Application) -> None:
    set_price(free=True)
    assert calls.chat().status_code == 200
    [row] = closed_usage()
    assert (row.cost, row.total_tokens, row.rate_set_id, row.is_unpriced) == (Decimal(0), 13, None, False)
    assert row.price is not None


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_call_that_used_what_has_no_price_is_unpriced_not_cheaper(
    calls: Application, upstream: FakeUpstream, is_stream: bool
) -> None:
    set_price(input="2.50", output="10")
    upstream.enqueue(Script(audio_output_tokens=30))
    assert calls.chat(stream=is_stream).status_code == 200
    [row] = closed_usage()
    assert (row.status, row.cost, row.is_unpriced, row.audio_output_tokens) == ("settled", None, True, 30)
    assert Usage.objects.unpriced().count() == 1


def test_a_refused_call_of_a_priced_model_costs_nothing(calls: Application) -> None:
    set_price("fake-400", input="2.50", output="10")
    assert calls.chat("fake-400").status_code == 400
    assert closed_usage()[0].cost == 0


@pytest.mark.parametrize("is_stream", [False, True])
def test_with_the_policy_flag_it_is_served_and_recorded_as_unpriced(application: Application, is_stream: bool) -> None:
    assert application.chat(stream=is_stream).status_code == 200
    [row] = closed_usage()
    assert (row.status, row.cost, row.price_id, row.is_unpriced, row.total_tokens) == ("settled", None, None, True, 13)


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_model_of_a_compatible_server_is_served_and_recorded_as_unpriced(calls: Application, is_stream: bool) -> None:
    make_route("llama", ("openai_compatible", "llama3"))
    assert calls.chat("llama", stream=is_stream).status_code == 200
    [row] = closed_usage()
    assert (row.provider, row.cost, row.is_unpriced, row.total_tokens) == ("openai_compatible", None, True, 13)


def test_one_command_makes_a_compatible_servers_model_free(calls: Application) -> None:
    make_route("llama", ("openai_compatible", "llama3"))
    calls.chat("llama")
    set_price("llama3", provider="openai_compatible", free=True)
    calls.chat("llama")
    assert [row.cost for row in closed_usage(2)] == [None, 0]


def test_the_setting_leaves_out_a_fallback_without_a_price(refusing: Application, upstream: FakeUpstream) -> None:
    make_route("smart", ("openai", "fake-401"), ("openai", "gpt-4o"))
    set_price("fake-401", input="1", output="1")
    assert refusing.chat("smart").status_code == 502
    assert [row.upstream_model for row in closed_usage()] == ["fake-401"]
    assert len(upstream.ledger.entries()) == 1


def test_a_cost_that_would_break_the_books_is_none_of_this_worlds(calls: Application, account: Account) -> None:
    """900 million tokens at about the dearest price that a column holds: kept as unpriced, not cut off."""
    set_price("fake-cached-900000000", input="9000000", output="9000000")
    assert calls.chat("fake-cached-900000000").status_code == 200
    [row] = closed_usage()
    assert (row.cost, row.prompt_tokens) == (None, 900_000_009)

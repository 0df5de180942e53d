"""Embeddings: through to the provider and back, to the byte, with the tokens of their inputs on the books."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import openai
import orjson
import pytest

from llm.enums import CallOutcome, Dialect, LimitMetric, LimitPer, UsageSource, UsageStatus
from llm.limits.changes import set_limit
from llm.models import Account, ModelRoute, Usage
from tests.books import closed_usage
from tests.e2e.callers import Application, assert_nothing_happened, error_of
from tests.e2e.test_unpriced import make_route, set_price
from tests.fakes import FakeUpstream, Script
from tests.fakes.embeddings_wire import vector_of
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

EMBEDDINGS = "/v1/embeddings"
MODEL = "text-embedding-3-small"


@pytest.fixture
def embedding_price() -> None:
    set_price(MODEL, input="0.02")


def embed(application: Application, **fields: Any) -> Any:
    body = orjson.dumps({"model": MODEL, "input": "hello there", **fields})
    return application.send("POST", EMBEDDINGS, body=body)


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [("hello there", 2), (["a b", "c"], 3), ([1, 2, 3], 3), ([[1, 2], [3]], 3), ([f"t{n}" for n in range(2048)], 2048)],
    ids=["text", "texts", "tokens", "lists of tokens", "2,048 texts"],
)
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_the_sdk_gets_vectors_and_the_books_their_tokens(
    sdk: openai.OpenAI, upstream: FakeUpstream, asked: Any, tokens: int, encoding: Any
) -> None:
    reply = sdk.embeddings.create(model=MODEL, input=asked, dimensions=32, encoding_format=encoding)
    inputs = [asked] if isinstance(asked, str) or isinstance(asked[0], int) else asked
    if encoding == "float":
        assert [item.embedding for item in reply.data] == [vector_of(each, 32) for each in inputs]
    else:
        assert all(isinstance(item.embedding, str) for item in reply.data)
    [row] = closed_usage()
    [entry] = upstream.ledger.entries()
    assert entry.path == EMBEDDINGS
    assert (row.dialect, row.provider, row.model) == (Dialect.OPENAI_EMBEDDINGS, "openai", MODEL)
    assert (row.status, row.usage_source, row.outcome) == (UsageStatus.SETTLED, UsageSource.REPORTED, CallOutcome.OK)
    assert (row.prompt_tokens, row.completion_tokens) == (entry.prompt_tokens, 0) == (tokens, 0)


def test_a_long_list_of_tokens_is_served(sdk: openai.OpenAI) -> None:
    """As LangChain sends them: up to 300,000 numbers."""
    lists = [list(range(3_000)) for _ in range(100)]
    reply = sdk.embeddings.create(model=MODEL, input=lists, dimensions=8)
    assert len(reply.data) == 100
    [row] = closed_usage()
    assert row.prompt_tokens == 300_000


def test_request_and_reply_pass_to_the_byte(application: Application, upstream: FakeUpstream) -> None:
    reply = (
        b'{ "object":"list", "data":[{"embedding":[1.50, -2e-3],"index":0}], "model":"m-1", "new": {"x": 1.0},'
        b' "usage":{"prompt_tokens":2,"total_tokens":2}}\n'
    )
    upstream.enqueue(Script(body=reply))
    sent = b'{ "input" : ["hello"], "model":"text-embedding-3-small", "unknown": 1.0e3 }'
    got = application.send("POST", EMBEDDINGS, body=sent)
    assert got.content == reply
    [entry] = upstream.ledger.entries()
    assert entry.raw == sent
    [row] = closed_usage()
    assert (row.prompt_tokens, row.reported_model) == (2, "m-1")


def test_prices_of_the_upstream_go_and_ours_come(
    application: Application, upstream: FakeUpstream, show_cost: None, embedding_price: None
) -> None:
    upstream.enqueue(Script(body=b'{"data":[],"usage":{"prompt_tokens":2,"total_tokens":2,"cost":0.5},"is_byok":true}'))
    got = embed(application)
    [row] = closed_usage()
    assert row.cost == Decimal("0.00000004")
    assert got.content == b'{"data":[],"usage":{"cost": 0.00000004, "prompt_tokens":2,"total_tokens":2}}'
    assert got.headers["x-llm-cost"] == "0.00000004"
    assert row.upstream_cost == Decimal("0.5")


def test_a_server_that_reports_totals_alone(application: Application, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(usage={"total_tokens": 7}))
    embed(application)
    [row] = closed_usage()
    assert (row.prompt_tokens, row.completion_tokens, row.usage_source) == (7, 0, UsageSource.REPORTED)


def test_without_usage_the_inputs_are_counted(application: Application, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(omits_usage=True))
    embed(application, input=["hello there", "and again"])
    [row] = closed_usage()
    assert (row.status, row.usage_source) == (UsageStatus.ESTIMATED, UsageSource.ESTIMATED)
    assert (row.prompt_tokens > 3, row.completion_tokens) == (True, 0)


def test_what_is_no_reply_is_a_502_and_a_refusal_keeps_its_status(
    application: Application, upstream: FakeUpstream
) -> None:
    upstream.enqueue(Script(body=b'{"object":"list"}'))
    assert embed(application).status_code == 502
    upstream.enqueue(Script(status=400))
    assert embed(application).status_code == 400
    assert [row.outcome for row in closed_usage(2)] == [CallOutcome.UPSTREAM_FAILED, CallOutcome.UPSTREAM_REFUSED]


def test_the_sdk_maps_errors_to_its_classes(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(status=400))
    with pytest.raises(openai.BadRequestError):
        sdk.embeddings.create(model=MODEL, input="x")
    with pytest.raises(openai.BadRequestError, match="control character"):
        sdk.embeddings.create(model="a\nb", input="x")
    stranger = sdk.with_options(api_key="llm_nobody")
    with pytest.raises(openai.AuthenticationError):
        stranger.embeddings.create(model=MODEL, input="x")


@pytest.mark.parametrize("provider", ["anthropic", "echo"])
def test_a_provider_without_embeddings_is_named(
    application: Application, start_gateway: Callable[..., Gateway], upstream: FakeUpstream, provider: str
) -> None:
    refused = embed(application.at(start_gateway(LLM_PROVIDER=provider)))
    assert refused.status_code == 400
    error = error_of(refused)
    assert error["param"] == "model"
    assert (
        f"The provider “{provider}” of this model does not serve embeddings (POST /v1/embeddings)" in error["message"]
    )
    assert_nothing_happened(upstream)


def test_a_compatible_server_has_embeddings_unless_the_operator_says_otherwise(
    application: Application, start_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    served = {"LLM_PROVIDER": "openai_compatible", "LLM_BASE_URL": upstream.openai_base_url}
    assert embed(application.at(start_gateway(**served))).status_code == 200
    [row] = closed_usage()
    assert row.provider == "openai_compatible"
    refused = embed(application.at(start_gateway(**served, LLM_COMPATIBLE_DIALECTS="chat")))
    assert (refused.status_code, Usage.objects.count()) == (400, 1)


@pytest.mark.parametrize("field", ["extra_body", "api_base", "fallbacks"])
def test_fields_that_choose_another_model_are_refused(
    application: Application, upstream: FakeUpstream, field: str
) -> None:
    refused = embed(application, **{field: {"x": 1}})
    assert (refused.status_code, error_of(refused)["param"]) == (400, field)
    assert_nothing_happened(upstream)


# --- Limits -----------------------------------------------------------------------------------------------------------


def test_a_limit_reserves_the_inputs_and_no_output(application: Application, account: Account) -> None:
    set_limit(account, None, LimitMetric.TOKENS, LimitPer.DAY, 1_000, None)
    assert embed(application).status_code == 200
    assert embed(application, input=[list(range(900))]).status_code == 200
    closed_usage(2)
    refused = embed(application, input=[list(range(900))])
    assert (refused.status_code, error_of(refused)["code"]) == (429, "insufficient_quota")
    too_large = embed(application, input="x" * 2_000)
    assert (too_large.status_code, error_of(too_large)["code"]) == (400, "limit_too_small")
    closed_usage(2)


def test_a_limit_of_cost_refuses_a_choice_of_models(
    application: Application, account: Account, embedding_price: None, upstream: FakeUpstream
) -> None:
    """Also where the route leaves it to callers: another model may cost a thousand times as much."""
    route = make_route(MODEL, ("openai", MODEL))
    ModelRoute.objects.filter(pk=route.pk).update(allows_provider_routing=True)
    set_limit(account, None, LimitMetric.COST, LimitPer.DAY, 100, None)
    refused = embed(application, models=["dear"])
    assert (refused.status_code, error_of(refused)["code"]) == (400, "limit_not_applicable")
    assert_nothing_happened(upstream)


def test_a_limit_of_cost_holds_what_the_inputs_may_cost(
    application: Application, account: Account, embedding_price: None
) -> None:
    set_limit(account, None, LimitMetric.COST, LimitPer.DAY, 100, None)
    assert embed(application, input=[[1] * 1_000] * 4).status_code == 200
    assert embed(application, input=[[1] * 1_000] * 4).status_code == 429
    [row] = closed_usage()
    assert row.cost == Decimal("0.00008")

"""`POST /v1/messages/count_tokens` and `/v1/responses/input_tokens`: counted by the provider, else estimated; never for
money.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from django.core.management import call_command

from llm.models import Account, ModelRoute, Usage
from llm.providers.counting import IMAGE_TOKENS
from tests.books import closed_usage
from tests.e2e.callers import assert_nothing_happened
from tests.e2e.test_anthropic_across import IMAGE
from tests.e2e.test_anthropic_sdk import HELLO, WEATHER
from tests.e2e.test_endings import Ending, ending_of
from tests.e2e.test_unpriced import set_price
from tests.fakes import FakeUpstream, Script
from tests.fakes.wire import TOOL_TOKENS
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

ASKED: Any = {"model": "claude-test", "messages": HELLO}


@pytest.fixture
def sdk(gateway: Gateway, api_key: str, http: httpx2.Client) -> anthropic.Anthropic:
    """In front of OpenAI's models."""
    return anthropic.Anthropic(api_key=api_key, base_url=gateway.url, max_retries=0, http_client=http)


@pytest.fixture
def limit(account: Account) -> Callable[..., None]:
    def set_limit(metric: str, amount: str) -> None:
        call_command("set_limit", account.name, metric, "day", amount, stdout=io.StringIO())

    return set_limit


def assert_free(row: Usage) -> None:
    assert (row.dialect, row.is_stream, row.is_billable, row.flags) == ("anthropic.messages", False, False, "")
    assert (row.total_tokens, row.cost, row.rate_set_id, row.extra_meters) == (0, Decimal(0), None, {})


def test_anthropic_counts_for_its_own_models(claude: anthropic.Anthropic, upstream: FakeUpstream) -> None:
    set_price("claude-test", provider="anthropic", input="3", output="15")
    assert claude.messages.count_tokens(**ASKED).input_tokens == 9
    assert claude.beta.messages.count_tokens(**ASKED, betas=["b-1"]).input_tokens == 9
    entry = upstream.ledger.entries()[1]
    assert (entry.path, entry.headers["anthropic-beta"]) == (
        "/v1/messages/count_tokens",
        "b-1,token-counting-2024-11-01",
    )
    for row in closed_usage(2):
        assert ending_of(row) == Ending("settled", "reported", "ok", (0, 0))
        assert_free(row)


def test_openai_counts_for_its_own_models(
    sdk: anthropic.Anthropic, gateway: Gateway, api_key: str, upstream: FakeUpstream
) -> None:
    """Whether it is asked in its own dialect or in Anthropic's."""
    asked: Any = {**ASKED, "model": "gpt-4o"}
    assert sdk.messages.count_tokens(**asked, tools=[WEATHER]).input_tokens == 9 + TOOL_TOKENS
    [entry] = upstream.ledger.entries()
    assert (entry.path, entry.body["model"]) == ("/v1/responses/input_tokens", "gpt-4o")
    with openai.OpenAI(api_key=api_key, base_url=gateway.openai_base_url, max_retries=0) as own:
        counted = own.responses.input_tokens.count(model="gpt-4o", input="Hello there")
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", 9)
    for row in closed_usage(2):
        assert ending_of(row) == Ending("settled", "reported", "ok", (0, 0))


def test_anthropic_is_asked_by_callers_of_openais(
    before_anthropic: Gateway, api_key: str, upstream: FakeUpstream, http: httpx2.Client
) -> None:
    own = openai.OpenAI(api_key=api_key, base_url=before_anthropic.openai_base_url, max_retries=0, http_client=http)
    tool: Any = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
    counted = own.responses.input_tokens.count(model="claude-sonnet-4-5", input="Hello there", tools=[tool])
    assert counted.input_tokens == 9 + TOOL_TOKENS
    [entry] = upstream.ledger.entries()
    assert (entry.path, set(entry.body)) == ("/v1/messages/count_tokens", {"model", "messages", "tools"})
    [row] = closed_usage(1)
    assert (row.dialect, row.is_billable, row.total_tokens, row.cost) == ("openai.responses", False, 0, Decimal(0))


def test_for_servers_that_cannot_count_it_is_our_estimate(api_key: str, gateway: Gateway, http: httpx2.Client) -> None:
    sdk = anthropic.Anthropic(api_key=api_key, base_url=gateway.url, max_retries=0, http_client=http)
    ModelRoute.objects.create(name="echo-model").targets.create(provider="echo", upstream_model="echo", position=0)
    asked: Any = {**ASKED, "model": "echo-model"}
    plain = sdk.messages.count_tokens(**asked).input_tokens
    assert plain == 4 + 2
    assert sdk.messages.count_tokens(**asked, tools=[WEATHER]).input_tokens > plain
    pictured: Any = {**asked, "messages": [{"role": "user", "content": [IMAGE]}]}
    assert sdk.messages.count_tokens(**pictured).input_tokens == 4 + IMAGE_TOKENS
    for row in closed_usage(3):
        assert row.provider == "echo"
        assert_free(row)


def test_it_counts_for_limits_of_requests_alone(
    claude: anthropic.Anthropic, limit: Callable[..., None], upstream: FakeUpstream
) -> None:
    limit("requests", "2")
    limit("tokens", "1")
    limit("cost", "0.000001")
    for _ in range(2):
        claude.messages.count_tokens(**ASKED)
    with pytest.raises(anthropic.APIStatusError) as refusal:
        claude.messages.count_tokens(**ASKED)
    assert (refusal.value.status_code, refusal.value.type) == (402, "billing_error")
    assert len(upstream.ledger.entries()) == len(closed_usage(2)) == 2


@pytest.mark.parametrize(
    ("script", "kind", "status"),
    [
        (Script(status=400), anthropic.BadRequestError, "settled"),
        (Script(status=500), anthropic.InternalServerError, "estimated"),
        (Script(body=b"{}"), anthropic.InternalServerError, "estimated"),
        (Script(hangs_up=True), anthropic.InternalServerError, "estimated"),
    ],
)
def test_a_failure_costs_nothing_either(
    claude: anthropic.Anthropic,
    upstream: FakeUpstream,
    script: Script,
    kind: type[anthropic.APIStatusError],
    status: str,
) -> None:
    upstream.enqueue(script)
    with pytest.raises(kind):
        claude.messages.count_tokens(**ASKED)
    [row] = closed_usage()
    assert (row.status, row.total_tokens, row.cost) == (status, 0, Decimal(0))


def test_what_a_message_may_not_name_a_count_may_not_either(
    claude: anthropic.Anthropic, upstream: FakeUpstream
) -> None:
    block: Any = {"type": "document", "source": {"type": "file", "file_id": "file_011"}}
    with pytest.raises(anthropic.BadRequestError, match="file_id"):
        claude.beta.messages.count_tokens(**{**ASKED, "messages": [{"role": "user", "content": [block]}]})
    assert_nothing_happened(upstream)


def test_the_books_are_found_right(claude: anthropic.Anthropic, sdk: anthropic.Anthropic) -> None:
    claude.messages.count_tokens(**ASKED)
    sdk.messages.count_tokens(**ASKED)
    closed_usage(2)
    call_command("verify_books", stdout=io.StringIO())

"""Limits as a caller meets them, through the real server and the official SDK."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx2
import openai
import orjson
import pytest
from django.core.management import call_command
from django.test import Client

from llm.models import Account, LimitWindow, Usage
from tests.books import all_calls, all_closed_usage, closed_usage
from tests.e2e.callers import HELLO, Application, error_of, native_error_of, read_answer
from tests.e2e.test_unpriced import make_route, set_price
from tests.fakes import FakeUpstream, Script
from tests.fakes.app import MAX_OUTPUT_TOKENS

pytestmark = pytest.mark.e2e

# "You said: hello there" costs 9 + 4 tokens; 80 bytes of request, and what a template may add, are its bound.
_TOKENS = 13
_PRICE = {"input": "1", "output": "2"}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}


@pytest.fixture
def limit(account: Account) -> Callable[..., None]:
    """Sets one of the account, as an operator does."""

    def set_limit(metric: str, per: str, amount: object) -> None:
        call_command("set_limit", account.name, metric, per, str(amount), stdout=io.StringIO())

    return set_limit


def windows() -> list[tuple[int, int]]:
    """(used, held) of each."""
    return list(LimitWindow.objects.order_by("id").values_list("used", "held"))


# --- Spent ------------------------------------------------------------------------------------------------------------


def test_a_limit_that_is_spent_for_long_is_a_quota(
    application: Application, upstream: FakeUpstream, limit: Callable[..., None]
) -> None:
    limit("requests", "day", 2)
    remaining = [application.chat().headers["x-ratelimit-remaining-requests"] for _ in range(2)]
    assert remaining == ["1", "0"]
    closed_usage(2)
    refused = application.chat()
    assert refused.status_code == 429
    assert error_of(refused)["code"] == error_of(refused)["type"] == "insufficient_quota"
    assert "limit of 2 requests per day" in error_of(refused)["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    assert refused.headers["x-ratelimit-limit-requests"] == "2"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
    assert len(upstream.ledger.entries()) == 2
    assert windows() == [(2, 0)]


def test_the_sdk_does_not_try_again_what_a_spent_quota_refuses(
    application: Application, http: httpx2.Client, limit: Callable[..., None]
) -> None:
    limit("requests", "total", 0)
    sdk = openai.OpenAI(
        api_key=application.secret, base_url=application.gateway.openai_base_url, max_retries=5, http_client=http
    )
    with pytest.raises(openai.RateLimitError) as caught:
        sdk.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "insufficient_quota"
    assert "x-ratelimit-reset-requests" not in caught.value.response.headers
    assert all_calls() == []


def test_a_limit_that_resets_soon_says_when(application: Application, limit: Callable[..., None]) -> None:
    limit("requests", "minute", 1)
    replies = [application.chat() for _ in range(3)]
    refused = [reply for reply in replies if reply.status_code == 429]
    # A minute may end between two of three calls, but only once.
    assert refused
    assert error_of(refused[0])["code"] == "rate_limit_exceeded"
    assert 0 < int(refused[0].headers["retry-after"]) <= 60
    assert int(refused[0].headers["retry-after-ms"]) <= 60_000
    assert "x-should-retry" not in refused[0].headers


def test_the_native_dialect_has_the_same_answers(application: Application, limit: Callable[..., None]) -> None:
    limit("requests", "month", 1)
    assert application.chat(path="/api/chat").headers["x-ratelimit-remaining-requests"] == "0"
    closed_usage()
    refused = application.chat(path="/api/chat")
    assert (refused.status_code, native_error_of(refused)["code"]) == (429, "insufficient_quota")
    assert refused.headers["x-should-retry"] == "false"


def test_a_changed_limit_acts_on_the_next_call(application: Application, limit: Callable[..., None]) -> None:
    limit("requests", "day", 1)
    statuses = [application.chat().status_code for _ in range(2)]
    limit("requests", "day", 3)
    statuses += [application.chat().status_code for _ in range(3)]
    limit("requests", "day", "none")
    statuses.append(application.chat().status_code)
    assert statuses == [200, 429, 200, 200, 429, 200]


# --- Tokens and money -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True])
def test_what_was_held_beyond_use_is_given_back(
    application: Application, limit: Callable[..., None], is_stream: bool
) -> None:
    limit("tokens", "month", 100_000)
    reply = application.chat(max_tokens=500, stream=is_stream)
    assert reply.headers["x-ratelimit-limit-tokens"] == "100000"
    remaining = int(reply.headers["x-ratelimit-remaining-tokens"])
    [row] = closed_usage()
    [held] = dict(row.holds or ()).values()
    assert held >= 500
    # A stream's head is sent before anybody knows what it uses; a whole reply says what is left after it.
    assert remaining == 100_000 - (held if is_stream else _TOKENS)
    assert windows() == [(_TOKENS, 0)]


def test_a_client_that_paces_itself_by_the_header_is_not_held_up(
    application: Application, limit: Callable[..., None]
) -> None:
    limit("tokens", "day", 20_000)
    remaining = [int(application.chat().headers["x-ratelimit-remaining-tokens"]) for _ in range(3)]
    assert remaining == [20_000 - _TOKENS * number for number in (1, 2, 3)]


def test_a_call_that_came_to_nothing_takes_nothing_off(
    application: Application, upstream: FakeUpstream, limit: Callable[..., None]
) -> None:
    limit("tokens", "day", 20_000)
    upstream.enqueue(Script(status=400))
    refused = application.chat(max_tokens=5000)
    assert refused.status_code == 400
    assert refused.headers["x-ratelimit-remaining-tokens"] == "20000"
    assert windows() == [(0, 0)]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_a_refusal_says_what_is_left_what_the_call_needs_and_what_fits(
    application: Application, limit: Callable[..., None], path: str
) -> None:
    limit("tokens", "day", 20_000)
    assert application.chat(max_tokens=500).status_code == 200
    refused = application.chat(path=path, max_tokens=19_900)
    read = error_of if path.startswith("/v1") else native_error_of
    message = read(refused)["message"]
    found = re.search(
        r"Left: 19,987 tokens; the request would reserve up to ([\d,]+) tokens\. It resets in \d+ \w+\. "
        r"With max_completion_tokens of at most (\d+), the request fits now\.",
        message,
    )
    assert found is not None, message
    needed, most = (int(text.replace(",", "")) for text in found.groups())
    # The maximum was lowered to what the whole limit allows, and some of that is used already.
    assert needed == 20_000
    assert 19_000 < most < 19_900
    assert application.chat(path=path, max_tokens=most + 1).status_code == 429
    assert application.chat(path=path, max_tokens=most).status_code == 200


@pytest.mark.parametrize("shows_cost", [False, True])
def test_a_refusal_under_a_limit_of_cost_tells_amounts_to_those_who_may_know_them(
    application: Application, account: Account, limit: Callable[..., None], shows_cost: bool
) -> None:
    Account.objects.update(shows_cost=shows_cost)
    set_price(**_PRICE)
    limit("cost", "month", "0.002")
    assert application.chat(max_tokens=900).status_code == 200
    closed_usage()
    refused = application.chat(max_tokens=990)
    message = error_of(refused)["message"]
    assert (refused.status_code, error_of(refused)["code"]) == (429, "insufficient_quota")
    which = "limit of $0.002 per month" if shows_cost else "cost limit per month"
    assert f"Not enough of this account's {which} is left for this request." in message
    assert message.endswith("A lower max_completion_tokens reserves less.")
    assert ("Left: $0.001983; the request would reserve up to $0.00" in message) is shows_cost
    assert message.count("$") == (3 if shows_cost else 0)
    assert windows() == [(17, 0)]


def test_what_calls_have_used_is_what_every_page_shows(
    application: Application, account: Account, limit: Callable[..., None], admin_client: Client
) -> None:
    for per in ("minute", "hour", "day", "month", "total"):
        limit("tokens", per, 1000)
    assert application.chat(max_tokens=20).status_code == 200
    assert [used for used, _ in windows()] == [_TOKENS] * 5

    listed = httpx2.get(
        f"{application.gateway.url}/api/v1/limits/", headers={"authorization": f"Bearer {application.secret}"}
    ).json()["results"]
    pages = [admin_client.get(f"/admin/llm/{page}").content.decode() for page in _pages_with_limits(account)]

    assert sorted((entry["per"], int(entry["used"])) for entry in listed) == sorted(
        (per, _TOKENS) for per in ("minute", "hour", "day", "month", "total")
    )
    # A minute may end before a page is asked for.
    assert all(page.count(f">{_TOKENS} used<") >= 4 for page in pages)


def _pages_with_limits(account: Account) -> list[str]:
    return ["limit/", f"account/{account.pk}/change/", f"apikey/{account.keys.get().pk}/change/"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_a_call_that_asks_for_more_than_the_whole_limit_gets_a_lower_maximum(
    application: Application, upstream: FakeUpstream, limit: Callable[..., None], path: str
) -> None:
    limit("tokens", "day", 1000)
    reply = application.chat(path=path, max_tokens=50_000)
    assert reply.status_code == 200
    [entry] = upstream.ledger.entries()
    maximum = entry.body["max_tokens"]
    assert 500 < maximum < 1000 - 80
    assert reply.headers["x-llm-max-output-tokens"] == str(maximum)


def test_a_call_without_a_maximum_gets_one_where_nothing_else_bounds_it(
    application: Application, upstream: FakeUpstream, limit: Callable[..., None]
) -> None:
    limit("tokens", "day", 1_000_000)
    assert application.chat("a-model-nobody-knows").status_code == 200
    limit("tokens", "day", 2000)
    assert application.chat("a-model-nobody-knows", max_tokens=5).status_code == 200
    assert [entry.body["max_tokens"] for entry in upstream.ledger.entries()] == [16_384, 5]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/v1/messages", "/v1/responses"])
@pytest.mark.parametrize(("amount", "maximum"), [(1_000_000, 16_384), (50_000, 5_000)])
def test_without_a_maximum_it_is_the_models_own_or_a_tenth_of_the_limit(
    application: Application,
    upstream: FakeUpstream,
    limit: Callable[..., None],
    path: str,
    amount: int,
    maximum: int,
) -> None:
    limit("tokens", "day", amount)
    body: dict[str, Any] = {"model": "gpt-4o", "messages": HELLO}
    if path == "/v1/responses":
        body = {"model": "gpt-4o", "input": "hello there"}
    reply = application.send("POST", path, body=orjson.dumps(body))
    assert (reply.status_code, reply.headers["x-llm-max-output-tokens"]) == (200, str(maximum))
    [entry] = upstream.ledger.entries()
    sent = entry.body["max_output_tokens" if path == "/v1/responses" else "max_tokens"]
    assert sent == maximum
    [row] = closed_usage()
    assert dict(row.holds or ()).popitem()[1] in range(maximum, maximum + 1_000)


@pytest.mark.parametrize(("amount", "maximum"), [(2_000_000, MAX_OUTPUT_TOKENS), (50_000, 5_000)])
def test_what_anthropic_says_of_its_model_is_the_bound(
    application: Application, upstream: FakeUpstream, limit: Callable[..., None], amount: int, maximum: int
) -> None:
    make_route("translated", ("anthropic", "claude-test"))
    limit("tokens", "day", amount)
    reply = application.chat("translated")
    assert (reply.status_code, reply.headers["x-llm-max-output-tokens"]) == (200, str(maximum))
    assert upstream.ledger.entries()[0].body["max_tokens"] == maximum


def test_under_a_limit_of_cost_it_is_what_a_tenth_of_it_pays_for(
    application: Application, upstream: FakeUpstream, account: Account
) -> None:
    set_price(input="1", output="10")
    limit_cost = partial(call_command, "set_limit", account.name, "cost", "day", stdout=io.StringIO())
    limit_cost("1")
    assert application.chat().status_code == 200
    limit_cost("100")
    assert application.chat().status_code == 200
    assert [entry.body["max_tokens"] for entry in upstream.ledger.entries()] == [10_000, 16_384]


def test_a_prompt_larger_than_the_whole_limit_is_the_callers_to_shorten(
    application: Application, upstream: FakeUpstream, limit: Callable[..., None]
) -> None:
    limit("tokens", "day", 1000)
    refused = application.chat(messages=[{"role": "user", "content": "word " * 1000}], max_tokens=1)
    assert refused.status_code == 400
    assert error_of(refused)["code"] == "limit_too_small"
    assert "limit of 1,000 tokens per day" in error_of(refused)["message"]
    assert upstream.ledger.entries() == ()


def test_money_is_held_at_the_dearest_rate_and_used_at_the_real_one(
    application: Application, limit: Callable[..., None]
) -> None:
    set_price(**_PRICE)
    limit("cost", "month", "1.00")
    assert application.chat(max_tokens=1000).status_code == 200
    [row] = closed_usage()
    # 9 x 1 + 4 x 2 USD a million.
    assert windows() == [(17, 0)]
    [held] = dict(row.holds or ()).values()
    assert held >= 2000 + 9


def test_money_without_a_price_is_no_bound(
    application: Application, upstream: FakeUpstream, limit: Callable[..., None]
) -> None:
    limit("cost", "month", "1.00")
    refused = application.chat("a-model-nobody-knows")
    assert refused.status_code == 400
    assert error_of(refused)["code"] == "limit_not_applicable"
    assert "no price is known" in error_of(refused)["message"]
    assert upstream.ledger.entries() == ()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"web_search_options": {}}, "web searches"),
        ({"tools": [{"type": "mcp", "server_url": "https://example.com"}]}, "tools that the provider runs"),
    ],
)
@pytest.mark.parametrize(("metric", "amount"), [("tokens", 1_000_000), ("cost", "1.00")])
def test_what_a_provider_adds_by_itself_is_refused_under_limits_that_need_a_bound(
    application: Application, limit: Callable[..., None], fields: dict[str, Any], why: str, metric: str, amount: object
) -> None:
    """It reads the prompt once more for each search or tool that it runs."""
    set_price(**_PRICE)
    limit("requests", "day", 10)
    application.chat(**fields)
    assert Usage.objects.count() == 1
    limit(metric, "day", amount)
    refused = application.chat(**fields)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "limit_not_applicable")
    assert why in error_of(refused)["message"]


def test_an_image_of_unknown_size_is_refused_where_the_context_window_is_unknown(
    application: Application, limit: Callable[..., None]
) -> None:
    limit("tokens", "day", 1_000_000)
    messages = [{"role": "user", "content": [{"type": "text", "text": "what is this"}, IMAGE]}]
    refused = application.chat("a-model-nobody-knows", messages=messages)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "limit_not_applicable")


# --- Many attempts, many at once --------------------------------------------------------------------------------------


def test_a_request_counts_once_however_often_it_is_tried(
    application: Application, upstream: FakeUpstream, limit: Callable[..., None]
) -> None:
    limit("requests", "day", 5)
    make_route("pair", ("openai", "gpt-4o"), ("openai", "gpt-4o-mini"))
    upstream.enqueue(Script(status=503), Script(status=503), Script(status=503))
    reply = application.chat("pair")
    assert reply.status_code == 200
    assert int(reply.headers["x-llm-attempts"]) > 1
    assert windows() == [(1, 0)]


def test_what_others_hold_is_worth_a_second_try(
    application: Application, upstream: FakeUpstream, limit: Callable[..., None]
) -> None:
    limit("requests", "day", 1)
    upstream.enqueue(Script(header_delay_s=1.0))
    connection = application.begin("gpt-4o")
    upstream.ledger.wait_for_open(1)
    refused = application.chat()
    assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["retry-after"] == "1"
    assert read_answer(connection).status_code == 200
    connection.close()
    closed_usage()
    assert error_of(application.chat())["code"] == "insufficient_quota"


def test_many_at_once_get_what_there_is_and_no_more(
    application: Application, upstream: FakeUpstream, limit: Callable[..., None]
) -> None:
    limit("requests", "day", 10)
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: application.chat().status_code, range(40)))
    assert sorted(set(statuses)) == [200, 429]
    assert statuses.count(200) == len(upstream.ledger.entries()) == len(all_closed_usage()) == 10
    assert windows() == [(10, 0)]


def test_a_key_and_its_account_both_bind(application: Application, account: Account) -> None:
    prefix = account.keys.get().prefix
    call_command("set_limit", account.name, "requests", "day", "5", stdout=io.StringIO())
    call_command("set_limit", prefix, "requests", "day", "1", stdout=io.StringIO())
    replies = [application.chat() for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 429]
    assert "this API key's limit" in error_of(replies[1])["message"]
    assert sorted(windows()) == [(1, 0), (1, 0)]


def test_what_is_disputed_gives_nothing_back(
    application: Application, upstream: FakeUpstream, limit: Callable[..., None]
) -> None:
    limit("tokens", "day", 100_000)
    upstream.enqueue(Script(usage={"prompt_tokens": -5, "completion_tokens": 10**15}))
    application.chat(max_tokens=700)
    [row] = closed_usage()
    [held] = dict(row.holds or ()).values()
    assert row.is_disputed
    assert windows() == [(held, 0)]


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": [{"type": ["text"], "text": "x"}]}]},
        {"messages": [{"role": "user", "content": "x", "audio": {"type": {}}}]},
        {"tools": [{"type": ["function"]}]},
    ],
)
def test_a_type_that_is_no_text_is_refused_as_what_has_no_bound(
    application: Application, limit: Callable[..., None], fields: dict[str, Any]
) -> None:
    set_price(**_PRICE)
    for metric, amount in (("tokens", 1_000_000), ("cost", "1.00")):
        limit(metric, "day", amount)
    refused = application.chat(**fields)
    assert refused.status_code == 400
    assert error_of(refused)["code"] == "limit_not_applicable"
    assert all_calls() == []

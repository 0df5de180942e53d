"""Whatever in a request multiplies or raises what is produced is held of a limit, or lowered to it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import call_command

from llm.models import Account
from tests.books import closed_usage
from tests.e2e.callers import CHAT, Application, assert_nothing_happened, error_of, hello
from tests.e2e.test_unpriced import set_price
from tests.fakes import FakeUpstream

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

MULTIPLIERS = ["n", "best_of", "num_generations", "num_return_sequences", "num_beams", "candidate_count"]
MAXIMA = ["max_output_tokens", "max_new_tokens", "max_tokens_to_sample", "n_predict", "max_length", "maxOutputTokens"]
MINIMA = ["min_tokens", "min_new_tokens", "min_length"]
THINKING: list[dict[str, Any]] = [
    {"thinking": {"type": "enabled", "budget_tokens": 5000}},
    {"reasoning": {"max_tokens": 5000}},
    {"thinking_budget": 5000},
    {"thinking_token_budget": 5000},
    {"chat_template_kwargs": {"enable_thinking": True, "thinking_budget": 5000}},
]
NO_MULTIPLIERS: list[Any] = [0, -1, 129, "2", 2.5, True, [2]]
NO_NUMBERS: list[Any] = [-1, "5", 1.5, True, {}]
NO_TOKENS: list[dict[str, Any]] = [
    *({name: odd} for name in ("max_tokens", "max_completion_tokens") for odd in NO_NUMBERS),
    *({name: odd} for name in MAXIMA for odd in (-2, "5", 1.5)),
    *({name: odd} for name in MINIMA for odd in (-1, "5", False)),
    {"thinking": {"type": "enabled", "budget_tokens": "5"}},
    {"reasoning": {"max_tokens": -2}},
    {"thinking_budget": 1.5},
    {"options": {"num_predict": "9"}},
]
"""What bounds nothing: each server makes of it what it likes."""
TEMPLATE_TOKENS = 256


def limit(account: Account, metric: str, amount: object) -> None:
    call_command("set_limit", account.name, metric, "day", str(amount), stdout=io.StringIO())


def held(application: Application, account: Account, **fields: Any) -> int:
    """Tokens that such a call holds while it runs, read from what the head of its stream says is left.

    Less those for saying that it be a stream.
    """
    limit(account, "tokens", 1_000_000)
    reply = application.chat(stream=True, **fields)
    assert reply.status_code == 200
    more = len(hello(stream=True, **fields)) - len(hello(**fields))
    return 1_000_000 - int(reply.headers["x-ratelimit-remaining-tokens"]) - more


def prompt_of(**fields: Any) -> int:
    return len(hello(**fields)) + TEMPLATE_TOKENS


@pytest.mark.parametrize("name", MULTIPLIERS)
def test_what_multiplies_the_output_multiplies_what_is_held(
    application: Application, account: Account, name: str
) -> None:
    fields = {"max_tokens": 100, name: 7}
    assert held(application, account, **fields) == prompt_of(**fields) + 700


def test_the_largest_multiplier_counts(application: Application, account: Account) -> None:
    fields = {"max_tokens": 100, "n": 2, "best_of": 5}
    assert held(application, account, **fields) == prompt_of(**fields) + 500


@pytest.mark.parametrize("name", [*MAXIMA, *MINIMA])
def test_the_largest_of_several_maxima_is_held(application: Application, account: Account, name: str) -> None:
    fields = {"max_tokens": 100, name: 5000}
    assert held(application, account, **fields) == prompt_of(**fields) + 5000


@pytest.mark.parametrize("fields", [{"options": {"num_predict": 5000}}, {"parameters": {"max_new_tokens": 5000}}])
def test_a_maximum_inside_an_object_is_held(application: Application, account: Account, fields: dict[str, Any]) -> None:
    assert held(application, account, max_tokens=100, **fields) == prompt_of(max_tokens=100, **fields) + 5000


@pytest.mark.parametrize("fields", THINKING)
def test_thinking_is_held_beside_the_answer(application: Application, account: Account, fields: dict[str, Any]) -> None:
    assert held(application, account, max_tokens=100, **fields) == prompt_of(max_tokens=100, **fields) + 5100


@pytest.mark.parametrize("fields", [{"max_new_tokens": 50}, {"max_tokens": 50, "n_predict": -1}])
def test_a_maximum_that_may_not_be_read_bounds_nothing(
    application: Application, account: Account, upstream: FakeUpstream, fields: dict[str, Any]
) -> None:
    # What the gateway holds where nobody states a maximum, and what is sent then.
    assert held(application, account, **fields) == prompt_of(**fields) + 16_384
    sent = upstream.ledger.entries()[0].body or {}
    assert sent["max_tokens"] == fields.get("max_tokens", 16_384)
    assert sent.get("n_predict", 16_384) == 16_384


@pytest.mark.parametrize("metric", ["tokens", "cost"])
@pytest.mark.parametrize("name", [*MAXIMA, *MINIMA])
def test_a_limit_lowers_each_of_them(
    application: Application, account: Account, upstream: FakeUpstream, name: str, metric: str
) -> None:
    set_price(input="1", output="1")
    limit(account, metric, 2000 if metric == "tokens" else "0.002")
    fields: dict[str, Any] = {"max_tokens": 100, name: 5000}
    assert application.chat(**fields).status_code == 200
    sent = upstream.ledger.entries()[0].body or {}
    assert (sent["max_tokens"], sent[name]) == (100, 2000 - prompt_of(**fields))
    assert {name: value for name, value in sent.items() if name != "model"}.keys() == {"messages", *fields}


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
@pytest.mark.parametrize("fields", THINKING)
def test_a_limit_lowers_thinking_too(
    application: Application, account: Account, upstream: FakeUpstream, fields: dict[str, Any], path: str
) -> None:
    limit(account, "tokens", 2000)
    sent_fields: dict[str, Any] = {"max_tokens": 4000, **fields}
    assert application.chat(path=path, **sent_fields).status_code == 200
    sent = upstream.ledger.entries()[0].body or {}
    room = 2000 - prompt_of(**sent_fields)
    if path == "/api/chat":
        assert (sent["max_tokens"], len(sent.keys() & fields.keys())) == (room, 0)
        return
    [name] = fields
    thinking = sent[name]
    if isinstance(thinking, dict):
        assert thinking.keys() == fields[name].keys()
        [thinking] = [value for value in thinking.values() if type(value) is int]
    assert (thinking, sent["max_tokens"]) == ((room - 1) // 2, room - (room - 1) // 2)


def test_thinking_that_fits_beside_a_short_answer_stays(
    application: Application, account: Account, upstream: FakeUpstream
) -> None:
    limit(account, "tokens", 2000)
    assert application.chat(max_tokens=100, thinking_budget=1500).status_code == 200
    room = 2000 - prompt_of(max_tokens=100, thinking_budget=1500)
    sent = upstream.ledger.entries()[0].body or {}
    assert (sent["max_tokens"], sent["thinking_budget"]) == (100, min(1500, room - 100))


def test_a_translated_call_keeps_its_own_lower_maximum(
    application: Application, account: Account, upstream: FakeUpstream
) -> None:
    limit(account, "tokens", 2000)
    assert application.chat(path="/api/chat", max_tokens=100, thinking_budget=9000).status_code == 200
    assert (upstream.ledger.entries()[0].body or {})["max_tokens"] == 100


def test_thinking_without_a_maximum_has_room_beside_the_usual_answer(
    application: Application, account: Account, upstream: FakeUpstream
) -> None:
    fields = {"thinking_budget": 3000}
    assert held(application, account, **fields) == prompt_of(**fields) + 16_384 + 3000
    sent = upstream.ledger.entries()[0].body or {}
    assert (sent["max_tokens"], sent["thinking_budget"]) == (16_384, 3000)


@pytest.mark.parametrize("metric", ["tokens", "cost"])
def test_a_prompt_that_is_made_elsewhere_is_refused_where_a_limit_needs_its_size(
    application: Application, account: Account, upstream: FakeUpstream, metric: str
) -> None:
    name = "chat_template"
    assert application.chat(**{name: "x"}).status_code == 200
    closed_usage()
    set_price(input="1", output="1")
    limit(account, metric, 5)
    reply = application.chat(**{name: "x"})
    assert (reply.status_code, error_of(reply)["code"]) == (400, "limit_not_applicable")
    assert len(upstream.ledger.entries()) == 1


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        *(({name: wrong}, name) for name in MULTIPLIERS for wrong in NO_MULTIPLIERS if (name, wrong) != ("best_of", 0)),
        ({"thinking": {"Budget_Tokens": 5}}, "thinking.budget_tokens"),
        ({"Best_Of": 5}, "best_of"),
    ],
)
def test_what_is_no_number_of_answers_is_refused(
    application: Application, upstream: FakeUpstream, fields: dict[str, Any], param: str, path: str
) -> None:
    reply = application.chat(path=path, **fields)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_request")
    if path == CHAT:
        assert error_of(reply)["param"] == param
    assert_nothing_happened(upstream)


@pytest.mark.parametrize(
    "fields",
    [
        {"min_tokens": 0, "thinking_budget": -1, "n_predict": -1, "best_of": None},
        {"thinking": True, "reasoning": None, "options": [1], "parameters": "x"},
        {"thinking": {"type": "disabled"}, "reasoning": {"effort": "low"}},
    ],
)
def test_without_a_limit_they_go_up_as_they_are(
    application: Application, upstream: FakeUpstream, fields: dict[str, Any]
) -> None:
    assert application.chat(**fields).status_code == 200
    assert upstream.ledger.entries()[0].raw == hello(**fields)


@pytest.mark.parametrize("fields", [*NO_TOKENS, {"max_tokens": 0}, {"max_tokens": 1000.0}, {"n": 1.0}], ids=str)
def test_a_maximum_of_any_form_goes_up_as_it_was_sent(
    application: Application, upstream: FakeUpstream, fields: dict[str, Any]
) -> None:
    assert application.chat(**fields).status_code == 200
    [entry] = upstream.ledger.entries()
    assert entry.raw == hello(**fields)


@pytest.mark.parametrize("fields", NO_TOKENS, ids=str)
def test_a_maximum_that_bounds_nothing_is_replaced_where_a_limit_binds(
    application: Application, account: Account, upstream: FakeUpstream, fields: dict[str, Any]
) -> None:
    limit(account, "tokens", 2000)
    assert application.chat(**fields).status_code == 200
    [name] = fields
    sent = upstream.ledger.entries()[0].body or {}
    value, room = sent[name], 2000 - prompt_of(**fields)
    bounds = [each for each in (value.values() if isinstance(value, dict) else [value]) if each != "enabled"]
    assert all(type(bound) is int and 0 <= bound <= room for bound in bounds)
    assert (sent.get("max_tokens") or sent["max_completion_tokens"]) <= room


@pytest.mark.parametrize(("maximum", "counted"), [(1000.0, 1000), (0, 1)])
def test_a_maximum_counts_as_the_whole_number_that_it_is(
    application: Application, account: Account, maximum: float, counted: int
) -> None:
    fields = {"max_tokens": maximum}
    assert held(application, account, **fields) == prompt_of(**fields) + counted


@pytest.mark.parametrize(("maximum", "sent"), [(-1, None), (1000.0, 1000), (0, 1), (None, None)])
def test_a_maximum_is_translated_as_the_whole_number_that_it_is(
    application: Application, upstream: FakeUpstream, maximum: float | None, sent: int | None
) -> None:
    assert application.chat(path="/api/chat", max_tokens=maximum).status_code == 200
    assert (upstream.ledger.entries()[0].body or {}).get("max_tokens") == sent

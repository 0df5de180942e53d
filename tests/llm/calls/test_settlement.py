"""From the end of a call to the row that closes it: what is exact, estimated or disputed, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.books.batches.commit import commit_batch
from llm.books.operations import CloseCall, Closed, OpenCall, void_close
from llm.calls.settlement import Ending, close_of, close_of_undone, outcome_of
from llm.dialects.usage_figures import MAX_TOKENS
from llm.enums import CallOutcome, Dialect, UsageSource, UsageStatus
from llm.errors import (
    UpstreamError,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from llm.ids import boot_id, uuid7
from llm.models import Usage
from llm.prices.pricing import STANDARD, PriceSnapshot, RateSetSnapshot
from llm.types import TOKEN_FIELDS, Reading, Service, TokenCounts
from tests.llm.books.making import a_key, an_open

OPENED = OpenCall(
    id=uuid7(),
    request_id=uuid7(),
    attempt=1,
    account_id=1,
    key_id=1,
    process_id=boot_id(),
    dialect=Dialect.OPENAI_CHAT,
    provider="openai",
    model="m",
    upstream_model="m",
    is_stream=True,
    catalog_version=0,
)
REPORTED = TokenCounts(prompt_tokens=100, completion_tokens=20, cache_read_tokens=60, reasoning_tokens=5)
ESTIMATE = TokenCounts(prompt_tokens=90, completion_tokens=33)


def price_of(rates: Mapping[str, int], *, is_free: bool = False) -> PriceSnapshot:
    rate_sets = () if is_free else (RateSetSnapshot(7, 0, STANDARD, rates),)
    return PriceSnapshot(1, "openai", "m", datetime(2026, 1, 1, tzinfo=UTC), None, is_free, rate_sets)


PRICE = price_of({"input": 2, "cache_read": 1, "output": 10})


def never() -> TokenCounts:
    raise AssertionError("what was reported needs no estimate")


def an_ending(reading: Reading, **changes: Any) -> Ending:
    ending = Ending(reading, CallOutcome.OK, is_gone=False, estimate=lambda: ESTIMATE)
    return replace(ending, **changes)


def close(reading: Reading, price: PriceSnapshot | None = PRICE, **changes: Any) -> CloseCall:
    return close_of(OPENED, price, an_ending(reading, **changes))


# --- Where the figures come from --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_final", [True, False])
@pytest.mark.parametrize("is_gone", [True, False])
@pytest.mark.parametrize("is_reported", [True, False])
def test_every_way_to_end(is_final: bool, is_gone: bool, is_reported: bool) -> None:
    reading = Reading(counts=REPORTED if is_reported else None, is_final=is_final)
    closing = close(reading, is_gone=is_gone)

    if is_reported and is_final:
        source = UsageSource.DRAINED if is_gone else UsageSource.REPORTED
        expected = (UsageStatus.SETTLED, source, REPORTED)
    elif is_reported:
        at_least = TokenCounts(100, 33, cache_read_tokens=60, reasoning_tokens=5)
        expected = (UsageStatus.ESTIMATED, UsageSource.ESTIMATED, at_least)
    else:
        expected = (UsageStatus.ESTIMATED, UsageSource.ESTIMATED, ESTIMATE)
    assert (closing.status, closing.usage_source, closing.counts) == expected
    assert (closing.is_billable, closing.is_disputed, closing.disputed_usage) == (True, False, None)


def test_what_was_reported_is_not_counted_again() -> None:
    assert close(Reading(counts=REPORTED, is_final=True), estimate=never).counts == REPORTED


def test_a_prompt_that_is_known_is_not_estimated_with_the_reply() -> None:
    reported = replace(REPORTED, prompt_tokens=70)
    for is_input_final, prompt in ((True, 70), (False, 90)):
        closing = close(Reading(counts=reported, is_input_final=is_input_final))
        assert closing.status == UsageStatus.ESTIMATED
        assert (closing.counts.prompt_tokens, closing.counts.completion_tokens) == (prompt, 33)


def test_what_is_not_charged_is_on_no_invoice() -> None:
    closing = close(Reading(is_final=True, counts=TokenCounts()), is_charged=False)
    assert (closing.status, closing.is_billable, closing.cost_pico) == (UsageStatus.SETTLED, False, 0)


def test_reported_zeros_are_figures() -> None:
    closing = close(Reading(is_final=True, counts=TokenCounts()), estimate=never)
    assert (closing.status, closing.usage_source) == (UsageStatus.SETTLED, UsageSource.REPORTED)
    assert (closing.counts, closing.cost_pico) == (TokenCounts(), 0)


counts_up_to = st.integers(0, 1000)


@st.composite
def plausible_counts(draw: st.DrawFn) -> TokenCounts:
    prompt, completion = draw(counts_up_to), draw(counts_up_to)
    return TokenCounts(
        prompt,
        completion,
        cache_read_tokens=draw(st.integers(0, prompt)),
        audio_input_tokens=draw(st.integers(0, prompt)),
        reasoning_tokens=draw(st.integers(0, completion)),
        audio_output_tokens=draw(st.integers(0, completion)),
    )


@pytest.mark.slow
@given(plausible_counts(), counts_up_to, counts_up_to)
def test_a_cut_call_is_never_below_what_was_reported_or_counted(
    reported: TokenCounts, prompt: int, completion: int
) -> None:
    estimated = TokenCounts(prompt, completion)
    counts = close(Reading(counts=reported), estimate=lambda: estimated).counts
    for name in TOKEN_FIELDS:
        assert getattr(counts, name) == max(getattr(reported, name), getattr(estimated, name))


def test_extra_meters_of_a_cut_call_stay() -> None:
    reported = TokenCounts(10, 1, extra_meters={"web_searches": 3})
    assert close(Reading(counts=reported)).counts.extra_meters == {"web_searches": 3}


# --- What it costs ----------------------------------------------------------------------------------------------------


def test_the_cost_is_exact_and_says_by_which_rates() -> None:
    closing = close(Reading(is_final=True, counts=REPORTED))
    assert (closing.cost_pico, closing.rate_set_id) == (40 * 2 + 60 * 1 + 20 * 10, 7)


def test_an_estimate_is_priced_too() -> None:
    closing = close(Reading())
    assert (closing.cost_pico, closing.rate_set_id) == (90 * 2 + 33 * 10, 7)


def test_without_a_price_a_call_is_unpriced_never_free() -> None:
    closing = close(Reading(is_final=True, counts=REPORTED), price=None)
    assert (closing.status, closing.cost_pico, closing.rate_set_id) == (UsageStatus.SETTLED, None, None)


def test_a_free_model_costs_nothing() -> None:
    closing = close(Reading(is_final=True, counts=REPORTED), price=price_of({}, is_free=True))
    assert (closing.cost_pico, closing.rate_set_id) == (0, None)


@pytest.mark.parametrize("price", [None, PRICE], ids=["unpriced", "priced"])
def test_using_nothing_costs_nothing(price: PriceSnapshot | None) -> None:
    assert close(Reading(is_final=True, counts=TokenCounts()), price=price).cost_pico == 0


def test_a_meter_without_a_rate_makes_the_call_unpriced() -> None:
    closing = close(Reading(is_final=True, counts=TokenCounts(10, 1, extra_meters={"web_searches": 1})))
    assert (closing.cost_pico, closing.rate_set_id, closing.is_billable) == (None, None, True)


def test_extra_meters_alone_are_no_reason_to_cost_nothing() -> None:
    counts = TokenCounts(extra_meters={"web_searches": 2})
    assert close(Reading(is_final=True, counts=counts), price=None).cost_pico is None
    assert close(Reading(is_final=True, counts=counts), price=price_of({"web_searches": 21})).cost_pico == 42


def test_a_service_tier_without_rates_makes_the_call_unpriced() -> None:
    closing = close(Reading(is_final=True, counts=REPORTED, service=Service("priority")))
    assert (closing.cost_pico, closing.service_tier) == (None, "priority")


@pytest.mark.parametrize(("rate", "cost"), [(2**63 - 1, 2**63 - 1), (2**63, None), (10**30, None)])
def test_a_cost_that_no_column_holds_is_unpriced(rate: int, cost: int | None) -> None:
    closing = close(Reading(is_final=True, counts=TokenCounts(1, 0)), price=price_of({"input": rate}))
    assert closing.cost_pico == cost
    assert closing.rate_set_id == (None if cost is None else 7)


# --- What can't be true -----------------------------------------------------------------------------------------------

ABSURD = [
    pytest.param({"prompt_tokens": -1}, id="negative"),
    pytest.param({"completion_tokens": MAX_TOKENS + 1}, id="beyond any call"),
    pytest.param({"completion_tokens": 2**70}, id="beyond the column"),
    pytest.param({"prompt_tokens": 1.5}, id="a fraction"),
    pytest.param({"prompt_tokens": True}, id="a truth value"),
    pytest.param({"prompt_tokens": "9"}, id="a text"),
    pytest.param({"cache_read_tokens": None}, id="nothing"),
    pytest.param({"cache_read_tokens": 60, "cache_write_5m_tokens": 30, "cache_write_1h_tokens": 11}, id="cache"),
    pytest.param({"audio_input_tokens": 101}, id="audio in"),
    pytest.param({"audio_output_tokens": 21}, id="audio out"),
    pytest.param({"reasoning_tokens": 21}, id="reasoning"),
    pytest.param({"extra_meters": {"web_searches": -1}}, id="negative extra meter"),
    pytest.param({"extra_meters": {"web_searches": 10**13}}, id="absurd extra meter"),
]


@pytest.mark.parametrize("changes", ABSURD)
@pytest.mark.parametrize("is_final", [True, False])
def test_absurd_figures_are_kept_aside_and_billed_to_nobody(changes: dict[str, Any], is_final: bool) -> None:
    absurd = replace(REPORTED, **changes)
    closing = close(Reading(counts=absurd, is_final=is_final))
    assert (closing.status, closing.usage_source) == (UsageStatus.ESTIMATED, UsageSource.ESTIMATED)
    assert (closing.counts, closing.cost_pico) == (ESTIMATE, 90 * 2 + 33 * 10)
    assert (closing.is_billable, closing.is_disputed) == (False, True)
    assert closing.disputed_usage is not None
    for name, value in changes.items():
        assert closing.disputed_usage[name] == repr(value)[:50]


def test_the_most_that_a_call_may_use_is_no_absurdity() -> None:
    assert close(Reading(is_final=True, counts=TokenCounts(MAX_TOKENS, MAX_TOKENS))).is_disputed is False


def test_figures_that_the_dialect_found_absurd_are_kept_as_they_came() -> None:
    raw = {"prompt_tokens": -5, "nested": {"completion_tokens": "many"}}
    closing = close(Reading(absurd_usage=raw))
    assert (closing.is_billable, closing.is_disputed, closing.disputed_usage) == (False, True, raw)
    assert closing.counts == ESTIMATE


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ({"prompt_tokens": -1, "note": "a\x00b"}, {"text": r'{"prompt_tokens":-1,"note":"a\u0000b"}'}),
        ({"prompt_tokens": -1, "\x00": 1}, {"text": r'{"prompt_tokens":-1,"\u0000":1}'}),
        ({"prompt_tokens": 2**70}, {"text": "{'prompt_tokens': 1180591620717411303424}"}),
        ({"prompt_tokens": -1, "note": "x" * 9000}, {"text": ('{"prompt_tokens":-1,"note":"' + "x" * 9000)[:4000]}),
        ({"prompt_tokens": -1, "note": "\ud800"}, {"text": "{'prompt_tokens': -1, 'note': '\\ud800'}"}),
    ],
    ids=["NUL", "NUL in a name", "huge number", "huge text", "surrogate"],
)
def test_disputed_figures_always_fit_into_the_books(raw: dict[str, Any], kept: dict[str, str]) -> None:
    operation = an_open(a_key())
    closing = close_of(operation, None, an_ending(Reading(absurd_usage=raw)))
    commit_batch([operation])
    assert commit_batch([closing]) == [Closed(is_new=True)]
    row = Usage.objects.get()
    assert (row.status, row.is_disputed, row.is_billable) == (UsageStatus.ESTIMATED, True, False)
    assert row.disputed_usage == kept


# --- What else the row says -------------------------------------------------------------------------------------------


def test_the_row_says_what_the_upstream_said_of_itself() -> None:
    reading = Reading(is_final=True, counts=REPORTED, model="m-2026", response_id="resp_1", service=Service("default"))
    closing = close(
        reading,
        outcome=CallOutcome.UPSTREAM_FAILED,
        error_code="upstream_error",
        upstream_status=502,
        first_byte_ms=3,
        duration_ms=9,
    )
    assert closing == CloseCall(
        id=OPENED.id,
        status=UsageStatus.SETTLED,
        outcome=CallOutcome.UPSTREAM_FAILED,
        usage_source=UsageSource.REPORTED,
        counts=REPORTED,
        cost_pico=340,
        rate_set_id=7,
        reported_model="m-2026",
        upstream_response_id="resp_1",
        service_tier="default",
        error_code="upstream_error",
        upstream_status=502,
        first_byte_ms=3,
        duration_ms=9,
        account_id=OPENED.account_id,
    )


def test_what_the_upstream_says_is_cleaned_and_cut() -> None:
    closing = close(Reading(model="m\x00" + "x" * 300, response_id="\ud800r", service=Service("t" * 60)))
    assert (closing.reported_model, closing.upstream_response_id) == ("m" + "x" * 199, "r")
    assert closing.service_tier == "t" * 50


# --- Calls that generated nothing -------------------------------------------------------------------------------------


def with_status(error: UpstreamError, status: int) -> UpstreamError:
    error.upstream_status = status
    return error


@pytest.mark.parametrize(
    ("make", "outcome", "status"),
    [
        (lambda: UpstreamRejected("no"), CallOutcome.NOT_SENT, UsageStatus.VOID),
        (lambda: with_status(UpstreamRejected("no"), 400), CallOutcome.UPSTREAM_REFUSED, UsageStatus.SETTLED),
        (lambda: with_status(UpstreamRateLimited("slow"), 429), CallOutcome.UPSTREAM_REFUSED, UsageStatus.SETTLED),
        (lambda: with_status(UpstreamFailed("down"), 503), CallOutcome.UPSTREAM_FAILED, UsageStatus.SETTLED),
        (lambda: UpstreamUnreachable("refused"), CallOutcome.UPSTREAM_UNREACHABLE, UsageStatus.VOID),
        (lambda: UpstreamTimeout("slow"), CallOutcome.TIMEOUT, UsageStatus.VOID),
    ],
)
def test_a_call_that_surely_did_nothing_costs_nothing(
    make: Callable[[], UpstreamError], outcome: CallOutcome, status: UsageStatus
) -> None:
    error = make()
    closing = close_of_undone(OPENED, error, duration_ms=12)
    assert closing == CloseCall(
        id=OPENED.id,
        status=status,
        outcome=outcome,
        cost_pico=0,
        error_code=error.code,
        upstream_status=error.upstream_status,
        duration_ms=12,
        account_id=OPENED.account_id,
    )
    assert (closing.usage_source, closing.counts) == (UsageSource.NONE, TokenCounts())


def test_a_call_that_was_never_sent_is_void() -> None:
    closing = void_close(OPENED, outcome=CallOutcome.CLIENT_GONE)
    assert closing == CloseCall(
        OPENED.id, UsageStatus.VOID, CallOutcome.CLIENT_GONE, cost_pico=0, account_id=OPENED.account_id
    )


def test_a_failure_without_a_class_of_its_own_is_a_failure() -> None:
    assert outcome_of(UpstreamError("something")) == CallOutcome.UPSTREAM_FAILED

"""Decisions on calls in doubt, and corrections that meet each other: figures, prices, limits."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from llm.books.adjusting import decide_call
from llm.books.commit import commit_batch
from llm.books.figures import Figures, figures_of
from llm.books.operations import Ask, CloseCall, Closed, Conflict, OpenCall
from llm.books.replay import commit_surely
from llm.enums import AdjustmentSource, LimitMetric, LimitPer, Meter, Outcome, UsageSource, UsageStatus
from llm.limits import set_limit
from llm.models import ApiKey, CatalogVersion, LimitWindow, Outbox, Price, Rate, RateSet, RefusedWrite, Usage
from llm.prices import set_price
from llm.rerating import ReratingReport, rerate
from llm.types import TokenCounts
from llm.verification import verify
from tests.llm.books.making import a_close, a_key, adjust_now, an_open

pytestmark = pytest.mark.django_db

ABSURD = {"prompt_tokens": -9, "completion_tokens": 10**15}


@pytest.fixture
def key() -> ApiKey:
    key = a_key()
    set_limit(key.account, None, LimitMetric.TOKENS, LimitPer.TOTAL, 1000, None)
    return key


def price_of(year: int, *, usd: int) -> Price:
    """USD per million tokens of input since then; ten times as much for output."""
    rates = {Meter.INPUT: Decimal(usd), Meter.OUTPUT: Decimal(usd * 10)}
    return set_price("openai", "upstream-name", effective_from=datetime(year, 1, 1, tzinfo=UTC), rates=rates)


def opened(key: ApiKey, price: Price | None = None) -> OpenCall:
    """A call that holds 300 tokens."""
    operation = an_open(
        key,
        ask=lambda: Ask(requests=1, input_tokens=100, output_tokens=200),
        price_id=None if price is None else price.pk,
        catalog_version=CatalogVersion.current(),
    )
    commit_batch([operation])
    return operation


def doubtful(operation: OpenCall, price: Price | None = None, **values: Any) -> CloseCall:
    """10 tokens in and 2 out, at 1 and 10 USD a million; nobody relies on them."""
    close = a_close(
        operation.id,
        status=UsageStatus.ESTIMATED,
        usage_source=UsageSource.ESTIMATED,
        counts=TokenCounts(10, 2),
        cost_pico=None if price is None else 30_000_000,
        rate_set_id=None if price is None else price.rate_sets.get(min_prompt_tokens=0).pk,
        is_billable=False,
    )
    return replace(close, **values)


def disputed(operation: OpenCall, price: Price | None = None) -> Usage:
    return closed(doubtful(operation, price, is_disputed=True, disputed_usage=ABSURD))


def lost(operation: OpenCall, price: Price | None = None) -> Usage:
    return closed(doubtful(operation, price, outcome=Outcome.LOST))


def closed(close: CloseCall) -> Usage:
    assert commit_batch([close]) == [Closed()]
    return Usage.objects.get(pk=close.id)


def known(row: Usage) -> Figures:
    return figures_of(row, row.adjustments.order_by("id"))


def decide(row: Usage, counts: TokenCounts | None = None) -> None:
    decide_call(row.pk, counts=counts, is_billable=True, reason="their log", user=None)


def used() -> int:
    window = LimitWindow.objects.get()
    assert window.held == 0
    return window.used


def rerate_all() -> ReratingReport:
    return rerate("openai", "upstream-name", first_day=date(2000, 1, 1), last_day=date(2999, 1, 1), reason="wrong")


def test_a_disputed_call_counts_with_all_that_it_held_until_staff_have_decided(key: ApiKey) -> None:
    row = disputed(opened(key))
    assert (used(), list(Usage.objects.undecided())) == (300, [row])
    decide(row, TokenCounts(40, 5))
    assert (used(), list(Usage.objects.undecided())) == (45, [])
    assert (known(row).counts.total_tokens, known(row).is_billable, known(row).is_known) == (45, True, True)
    assert verify().sentences == []


def test_a_decision_that_crosses_a_soft_threshold_tells_it_once(key: ApiKey) -> None:
    set_limit(key.account, None, LimitMetric.TOKENS, LimitPer.TOTAL, 1000, 50)
    rows = [disputed(opened(key)) for _ in range(2)]
    assert (used(), Outbox.objects.count()) == (600, 2)
    Outbox.objects.all().delete()
    LimitWindow.objects.update(is_announced=False, used=300)
    decide(rows[0], TokenCounts(90, 60))
    assert (used(), Outbox.objects.count()) == (150, 0)
    decide(rows[1], TokenCounts(600, 50))
    messages = list(Outbox.objects.order_by("kind"))
    assert [(message.kind, message.payload["used"]) for message in messages] == [("mail", 500), ("webhook", 500)]
    assert LimitWindow.objects.get().is_announced


def test_a_disputed_call_is_decided_once(key: ApiKey) -> None:
    row = disputed(opened(key))
    decide(row)
    with pytest.raises(ValueError, match="known already"):
        decide(row, TokenCounts(1, 1))
    assert (used(), row.adjustments.count()) == (12, 1)


def test_a_call_that_nobody_doubts_is_not_decided(key: ApiKey) -> None:
    operation = opened(key)
    with pytest.raises(ValueError, match="known already"):
        decide(Usage.objects.get())
    commit_batch([a_close(operation.id)])
    with pytest.raises(ValueError, match="known already"):
        decide(Usage.objects.get())
    assert not Usage.objects.get().adjustments.exists()


def test_the_same_settlement_after_the_decision_changes_nothing(key: ApiKey) -> None:
    operation = opened(key)
    row = disputed(operation)
    decide(row, TokenCounts(1, 0))
    same = doubtful(operation, is_disputed=True, disputed_usage=ABSURD)
    assert commit_batch([same]) == [Closed(is_new=False)]
    assert isinstance(commit_batch([a_close(operation.id)])[0], Conflict)
    assert (used(), row.adjustments.count()) == (1, 1)


def test_absurd_figures_that_come_late_give_nothing_back(key: ApiKey) -> None:
    """A spool of a lost call turns up, and all that it says is what its upstream said."""
    operation = opened(key)
    row = lost(operation)
    late = a_close(operation.id, is_billable=False, is_disputed=True, disputed_usage=ABSURD)
    for _ in range(2):
        assert isinstance(commit_surely([late])[0], Conflict)
    assert (used(), row.adjustments.count(), list(Usage.objects.undecided())) == (300, 0, [row])
    assert RefusedWrite.objects.get().document["disputed_usage"] == ABSURD
    decide(row, TokenCounts(7, 0))
    assert (used(), verify().sentences) == (7, [])


# --- Prices that were corrected before --------------------------------------------------------------------------------


def test_a_decision_keeps_the_price_of_a_re_rating(key: ApiKey) -> None:
    price = price_of(2020, usd=1)
    row = disputed(opened(key, price), price)
    corrected = price_of(2021, usd=2)
    assert rerate_all().changed == 1
    assert known(row).cost_pico == 60_000_000
    decide(row, TokenCounts(100, 0))
    assert (known(row).cost_pico, known(row).rate_set_id) == (200_000_000, corrected.rate_sets.get().pk)
    assert (rerate_all().changed, verify().sentences) == (0, [])


def test_a_late_settlement_keeps_the_price_of_a_re_rating(key: ApiKey) -> None:
    price = price_of(2020, usd=1)
    operation = opened(key, price)
    row = lost(operation, price)
    corrected = price_of(2021, usd=2)
    rerate_all()
    late = a_close(operation.id, counts=TokenCounts(5, 1), cost_pico=15_000_000, rate_set_id=price.rate_sets.get().pk)
    assert commit_batch([late]) == [Closed()]
    assert (known(row).cost_pico, known(row).rate_set_id) == (30_000_000, corrected.rate_sets.get().pk)
    assert commit_batch([late]) == [Closed(is_new=False)]
    assert (rerate_all().changed, verify().sentences) == (0, [])


def test_what_a_re_rating_has_made_free_stays_free(key: ApiKey) -> None:
    price = price_of(2020, usd=1)
    row = disputed(opened(key, price), price)
    set_price("openai", "upstream-name", effective_from=datetime(2021, 1, 1, tzinfo=UTC), is_free=True)
    assert [rerate_all().changed for _ in range(2)] == [1, 0]
    decide(row, TokenCounts(100, 0))
    assert (known(row).cost_pico, rerate_all().changed, verify().sentences) == (0, 0, [])


def test_a_call_without_a_price_is_decided_at_that_of_a_re_rating(key: ApiKey) -> None:
    row = disputed(opened(key))
    corrected = price_of(2021, usd=2)
    rerate_all()
    decide(row, TokenCounts(100, 0))
    assert (known(row).cost_pico, known(row).rate_set_id) == (200_000_000, corrected.rate_sets.get().pk)


def test_what_the_calls_price_cannot_price_is_not_decided(key: ApiKey) -> None:
    price = price_of(2020, usd=10**6)
    row = disputed(opened(key, price), price)
    with pytest.raises(ValueError, match="has no cost for so many tokens"):
        decide(row, TokenCounts(10**9, 0))
    assert not row.adjustments.exists()


def test_a_decision_names_the_rates_of_the_tier_that_it_reaches(key: ApiKey) -> None:
    price = price_of(2020, usd=1)
    dearer = RateSet.objects.create(price=price, min_prompt_tokens=50)
    Rate.objects.create(rate_set=dearer, meter=Meter.INPUT, amount=Decimal(3))
    row = disputed(opened(key, price), price)
    decide(row, TokenCounts(100, 0))
    assert (known(row).cost_pico, known(row).rate_set_id) == (300_000_000, dearer.pk)


# --- What `verify_books` says of it -----------------------------------------------------------------------------------


def test_a_decision_at_a_wrong_price_is_found(key: ApiKey) -> None:
    price = price_of(2020, usd=1)
    row = disputed(opened(key, price), price)
    adjust_now(
        row.pk, AdjustmentSource.DECISION, counts=TokenCounts(7, 0), cost_pico=9, is_billable=True, reason="by a bug"
    )
    wrong = "with its adjustments its cost is 9 pico-USD, but its tokens at its price cost 7000000 pico-USD"
    assert verify().sentences == [f"Call {row.pk}: {wrong}."]


def test_a_decision_on_a_call_that_nobody_doubts_is_found(key: ApiKey) -> None:
    price = price_of(2020, usd=1)
    row = closed(doubtful(opened(key, price), price))
    adjust_now(
        row.pk, AdjustmentSource.DECISION, counts=TokenCounts(10, 2), cost_pico=30_000_000, is_billable=True, reason="?"
    )
    assert verify().sentences == [f"Call {row.pk}: staff decided on it, but it is neither lost nor disputed."]

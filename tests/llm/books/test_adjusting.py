"""Decisions on calls in doubt, and corrections that meet each other: figures, prices, limits."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from llm.audit import verify
from llm.books.adjusting import decide_call
from llm.books.batches.commit import commit_batch
from llm.books.figures import EffectiveUsage, compute_figures
from llm.books.operations import CloseCall, Closed, Conflict, OpenCall
from llm.books.rerating import ReratingReport, rerate
from llm.books.spool.replay import commit_surely
from llm.enums import AdjustmentSource, CallOutcome, LimitMetric, LimitPer, Meter, UsageSource, UsageStatus
from llm.limits.admission import ReservationEstimate
from llm.limits.changes import set_limit
from llm.models import (
    ApiKey,
    CatalogVersion,
    LimitWindow,
    Outbox,
    Price,
    Rate,
    RateSet,
    RefusedWrite,
    Usage,
    UsageAdjustment,
)
from llm.models.usage import is_priced
from llm.prices.staff import set_price
from llm.types import Service, TokenCounts
from tests.books import get_call
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
        ask=lambda: ReservationEstimate(requests=1, input_tokens=100, output_tokens=200),
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
    return closed(doubtful(operation, price, outcome=CallOutcome.LOST))


def closed(close: CloseCall) -> Usage:
    assert commit_batch([close]) == [Closed()]
    return Usage.objects.get(pk=close.id)


def known(row: Usage) -> EffectiveUsage:
    return compute_figures(row, row.adjustments.order_by("id"))


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
    with pytest.raises(ValueError, match="already known"):
        decide(row, TokenCounts(1, 1))
    assert (used(), row.adjustments.count()) == (12, 1)


def test_a_call_that_nobody_doubts_is_not_decided(key: ApiKey) -> None:
    operation = opened(key)
    with pytest.raises(ValueError, match="still in flight"):
        decide(get_call(operation.id))
    commit_batch([a_close(operation.id)])
    with pytest.raises(ValueError, match="already known"):
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
    with pytest.raises(ValueError, match="doesn't cover what it used"):
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


# --- What takes a cost back -------------------------------------------------------------------------------------------

PRIORITY = Service("priority")


def of_priority(operation: OpenCall) -> CloseCall:
    """A late settlement of 5 tokens in and 1 out, served in a way that no price lists."""
    flags = ("tier_unpriced",)
    return a_close(
        operation.id, counts=TokenCounts(5, 1), cost_pico=None, service_tier=PRIORITY.service_tier, flags=flags
    )


def written(row: Usage) -> Decimal:
    costs = [row.cost, *row.adjustments.values_list("cost", flat=True)]
    return sum((cost for cost in costs if cost is not None), Decimal(0))


def words(row: Usage) -> list[str]:
    return list(row.adjustments.order_by("id").values_list("flags", flat=True))


def test_a_token_without_a_price_does_not_stand_at_the_cost_of_nothing(key: ApiKey) -> None:
    """Staff say that an unpriced call used nothing; then its own process says that it did."""
    operation = opened(key)
    row = lost(operation)
    decide(row, TokenCounts())
    assert (known(row).cost_pico, list(Usage.objects.unpriced())) == (0, [])
    late = a_close(operation.id, counts=TokenCounts(1, 0), cost_pico=None)

    assert commit_batch([late]) == [Closed()]

    assert (known(row).counts.total_tokens, known(row).cost_pico, used()) == (1, None, 1)
    assert words(row) == ["", "cost_unknown"]
    assert list(Usage.objects.unpriced()) == [row]
    assert commit_batch([late]) == [Closed(is_new=False)]
    assert verify().sentences == []


def test_a_settlement_that_no_price_covers_takes_the_cost_of_the_estimate_back(key: ApiKey) -> None:
    price = price_of(2020, usd=1)
    operation = opened(key, price)
    row = lost(operation, price)
    assert list(Usage.objects.filter(is_priced())) == [row]

    assert commit_batch([of_priority(operation)]) == [Closed()]

    assert (known(row).cost_pico, known(row).rate_set_id, written(row)) == (None, None, Decimal(0))
    assert words(row) == ["cost_unknown tier_unpriced"]
    assert list(Usage.objects.unpriced()) == list(Usage.objects.cost_taken_back()) == [row]
    assert not Usage.objects.filter(is_priced()).exists()
    assert (rerate_all().unpriced, verify().sentences) == (1, [])


def test_a_cost_that_was_taken_back_is_given_by_a_re_rating(key: ApiKey) -> None:
    price = price_of(2020, usd=1)
    operation = opened(key, price)
    row = lost(operation, price)
    commit_batch([of_priority(operation)])
    rates = {Meter.INPUT: Decimal(2), Meter.OUTPUT: Decimal(20)}
    since = datetime(2021, 1, 1, tzinfo=UTC)
    dearer = set_price("openai", "upstream-name", effective_from=since, rates=rates, service=PRIORITY)

    report = rerate_all()

    assert (report.changed, report.before_pico, report.after_pico) == (1, 0, 30_000_000)
    assert (known(row).cost_pico, written(row)) == (30_000_000, Decimal("0.00003"))
    assert known(row).rate_set_id == dearer.rate_sets.get(service_tier="priority").pk
    assert words(row) == ["cost_unknown tier_unpriced", "tier_unpriced"]
    assert not Usage.objects.unpriced().exists()
    assert (rerate_all().changed, verify().sentences) == (0, [])


def test_a_call_whose_cost_was_taken_back_can_become_free(key: ApiKey) -> None:
    """It leaves the rates that had given its estimate a cost."""
    price = price_of(2020, usd=1)
    operation = opened(key, price)
    row = lost(operation, price)
    rerate_all()
    commit_batch([replace(of_priority(operation), service_tier="", flags=("tools_unreported",))])
    assert known(row).cost_pico is None
    free = set_price("openai", "upstream-name", effective_from=datetime(2021, 1, 1, tzinfo=UTC), is_free=True)

    assert [rerate_all().changed for _ in range(2)] == [1, 0]

    assert (known(row).cost_pico, known(row).rate_set_id) == (0, free.rate_sets.get().pk)


def test_a_settlement_takes_the_cost_of_a_re_rating_back(key: ApiKey) -> None:
    price = price_of(2020, usd=1)
    operation = opened(key, price)
    row = lost(operation, price)
    price_of(2021, usd=2)
    assert rerate_all().changed == 1
    decide(row, TokenCounts(7, 0))

    commit_batch([of_priority(operation)])

    assert (known(row).cost_pico, written(row)) == (None, Decimal(0))
    assert words(row) == ["", "", "cost_unknown tier_unpriced"]
    assert (rerate_all().changed, verify().sentences) == (0, [])


def test_a_limit_of_money_holds_what_the_call_held_while_its_cost_is_unknown(key: ApiKey) -> None:
    set_limit(key.account, None, LimitMetric.COST, LimitPer.TOTAL, 1_000_000, None)
    price = price_of(2020, usd=1)
    ask = ReservationEstimate(1, 100, 200, input_pico=100_000_000, output_token_pico=10_000_000)
    operation = an_open(key, ask=lambda: ask, price_id=price.pk, catalog_version=CatalogVersion.current())
    commit_batch([operation])
    window = LimitWindow.objects.filter(limit__metric=LimitMetric.COST)
    held = window.get().held
    row = lost(operation, price)
    decide(row)
    assert (held, window.get().used) == (2100, 30)

    commit_batch([of_priority(operation)])

    assert (window.get().used, window.get().held) == (held, 0)
    rates = {Meter.INPUT: Decimal(2), Meter.OUTPUT: Decimal(20)}
    set_price("openai", "upstream-name", effective_from=datetime(2021, 1, 1, tzinfo=UTC), rates=rates, service=PRIORITY)
    rerate_all()
    assert (window.get().used, verify().sentences) == (30, [])


def test_a_cost_that_is_unknown_and_not_wholly_taken_back_is_found(key: ApiKey) -> None:
    price = price_of(2020, usd=1)
    operation = opened(key, price)
    row = lost(operation, price)
    commit_batch([of_priority(operation)])
    [taking] = row.adjustments.all()
    UsageAdjustment(
        usage=row,
        source=AdjustmentSource.PROVIDER,
        service_tier="priority",
        flags=taking.flags,
        cost=Decimal("0.000000000009"),
        is_billable=True,
        reason="by a bug",
        recorded_at=taking.recorded_at,
    ).stamp_digest().save(force_insert=True)
    assert known(row).cost_pico is None
    left = "its cost is unknown, but the books hold a cost of 9 pico-USD"
    assert verify().sentences == [f"Call {row.pk}: {left}."]

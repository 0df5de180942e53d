"""A corrected price reaches past calls by adjustments alone."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from billing.periods import BillingPeriod
from llm.admin.prices.rate_tables import rate_tables
from llm.audit import verify
from llm.books.figures import compute_figures
from llm.books.rerating import ReratingReport, rerate
from llm.enums import AdjustmentSource, Meter
from llm.models import Price, ReratingRun, Usage, UsageAdjustment
from llm.prices.staff import set_price
from llm.prices.terms import PriceTerms, content_of
from tests.billing.calls import adjust_call, make_call, make_price
from tests.billing.factories import make_account

pytestmark = pytest.mark.django_db

OCTOBER = BillingPeriod.parse("2026-10")


def rerate_month(model: str, reason: str, *, period: BillingPeriod = OCTOBER, is_dry: bool = False) -> ReratingReport:
    return rerate("openai", model, first_day=period.start, last_day=period.last_day, reason=reason, is_dry=is_dry)


def correct_price(**per_million: str) -> None:
    correct_price_on(1, **per_million)


def correct_price_on(day: int, **per_million: str) -> None:
    rates = {Meter(name): Decimal(amount) for name, amount in per_million.items()}
    set_price("openai", "gpt-4o", effective_from=datetime(2026, 10, day, tzinfo=UTC), rates=rates)


@pytest.fixture
def call() -> Usage:
    """1 M tokens in at 2 USD."""
    return make_call(make_account(), price=make_price(), prompt_tokens=1_000_000)


def test_a_corrected_price_adjusts_each_call_once(call: Usage) -> None:
    correct_price(input="3", output="8")
    report = rerate_month("gpt-4o", "the list was wrong")
    adjustment = call.adjustments.get()
    assert (report.calls, report.changed, report.unpriced) == (1, 1, 0)
    assert (adjustment.source, adjustment.cost, adjustment.prompt_tokens) == (
        AdjustmentSource.RERATING,
        Decimal(1),
        0,
    )
    assert adjustment.rate_set is not None
    assert adjustment.rate_set != call.rate_set
    run = ReratingRun.objects.get()
    assert (run.calls, run.cost_before, run.cost_after) == (1, Decimal(2), Decimal(3))
    assert run.ended_at is not None
    assert rerate_month("gpt-4o", "again").changed == 0
    assert ReratingRun.objects.count() == 1
    assert verify().sentences == []


def test_a_price_that_is_corrected_twice_leaves_two_adjustments(call: Usage) -> None:
    correct_price(input="3", output="8")
    rerate_month("gpt-4o", "first")
    set_price(
        "openai",
        "gpt-4o",
        effective_from=datetime(2026, 10, 2, tzinfo=UTC),
        rates={Meter.INPUT: Decimal("2.5"), Meter.OUTPUT: Decimal(8)},
    )
    rerate_month("gpt-4o", "second")
    assert [adjustment.cost for adjustment in call.adjustments.order_by("id")] == [Decimal(1), Decimal("-0.5")]
    assert verify().sentences == []


def test_calls_without_a_price_get_one(call: Usage) -> None:
    unpriced = make_call(call.account, model="new-1", prompt_tokens=1_000_000)
    assert list(Usage.objects.unpriced()) == [unpriced]
    make_price("new-1", input="1", output="1")
    rerate_month("new-1", "it has a price now")
    assert unpriced.adjustments.get().cost == Decimal(1)
    assert not Usage.objects.unpriced().exists()


def test_a_dry_run_writes_nothing(call: Usage) -> None:
    correct_price(input="3", output="8")
    report = rerate_month("gpt-4o", "try", is_dry=True)
    assert (report.changed, report.before_pico, report.after_pico) == (1, 2 * 10**12, 3 * 10**12)
    assert not UsageAdjustment.objects.exists()
    assert not ReratingRun.objects.exists()


def declare_free(day: int = 1) -> Price:
    return set_price("openai", "gpt-4o", effective_from=datetime(2026, 10, day, tzinfo=UTC), is_free=True)


def test_a_call_that_became_free_leaves_its_rates(call: Usage) -> None:
    """For a set without any, which belongs to the free price: the month then knows which tokens are free."""
    price = declare_free()
    assert rerate_month("gpt-4o", "try", is_dry=True).changed == 1
    assert not price.rate_sets.exists()
    assert rerate_month("gpt-4o", "it is free").changed == 1
    adjustment = call.adjustments.get()
    assert adjustment.cost == Decimal(-2)
    assert adjustment.rate_set == price.rate_sets.get()
    assert not price.rate_sets.get().rates.exists()
    declare_free(day=2)
    assert rerate_month("gpt-4o", "again").changed == 0
    assert content_of(price) == PriceTerms(rate_sets={}, is_free=True)
    assert rate_tables(price) == ()
    correct_price_on(3, input="3", output="8")
    assert rerate_month("gpt-4o", "it is not").changed == 1
    assert compute_figures(call, call.adjustments.order_by("id")).cost_pico == 3 * 10**12
    assert verify().sentences == []


def test_a_call_that_an_earlier_release_made_free_leaves_its_rates_when_priced_again(call: Usage) -> None:
    price = declare_free()
    earlier = ReratingRun.objects.create(
        provider="openai",
        model="gpt-4o",
        first_day=OCTOBER.start,
        last_day=OCTOBER.last_day,
        reason="it is free",
        started_at=timezone.now(),
    )
    adjust_call(call, AdjustmentSource.RERATING, cost=Decimal(-2), rerating=earlier)
    assert rerate_month("gpt-4o", "once more").changed == 1
    assert call.adjustments.latest("id").cost == 0
    assert call.adjustments.latest("id").rate_set == price.rate_sets.get()
    assert rerate_month("gpt-4o", "and again").changed == 0
    assert verify().sentences == []


def test_a_call_that_was_free_from_the_start_stays_as_it_is(call: Usage) -> None:
    price = declare_free()
    free = make_call(call.account, price=price, prompt_tokens=1_000_000)
    assert rerate_month("gpt-4o", "it is free").changed == 1
    assert not free.adjustments.exists()


def test_other_days_and_models_are_left_alone(call: Usage) -> None:
    correct_price(input="3", output="8")
    assert rerate_month("gpt-4o", "no", period=OCTOBER.following).calls == 0
    assert rerate_month("gpt-4", "no").calls == 0
    assert not UsageAdjustment.objects.exists()


def test_the_command_tells_the_difference(call: Usage, capsys: pytest.CaptureFixture[str]) -> None:
    correct_price(input="3", output="8")
    arguments = ("rerate", "openai", "gpt-4o", "--from", "2026-10-01", "--to", "2026-10-31", "--reason", "wrong")
    call_command(*arguments, "--dry-run")
    assert capsys.readouterr().out == "1 of 1 call would cost 3.00 USD instead of 2.00 USD.\n"
    call_command(*arguments)
    assert capsys.readouterr().out == "1 of 1 call cost 3.00 USD instead of 2.00 USD.\n"


@pytest.mark.parametrize(
    ("first", "last", "reason", "message"),
    [
        ("2026-10-32", "2026-10-31", "x", "not a valid date, e.g."),
        ("2026-10-31", "2026-10-01", "x", "is before"),
        ("2026-10-01", "2026-10-31", " ", "Give a reason"),
    ],
)
def test_the_command_refuses_nonsense(call: Usage, first: str, last: str, reason: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call_command("rerate", "openai", "gpt-4o", "--from", first, "--to", last, "--reason", reason)
    assert not ReratingRun.objects.exists()


def test_a_pattern_reaches_the_calls_of_all_its_models() -> None:
    account = make_account()
    names = ("ft:gpt-4.1-x:acme::1", "FT:gpt-4.1-x:acme::2", "gpt-4.1-x", "ft:gpt-4.1")
    calls = [make_call(account, price=None, model=name, prompt_tokens=1_000_000) for name in names]
    set_price(
        "openai", "ft:gpt-4.1-*", effective_from=datetime(2026, 10, 1, tzinfo=UTC), rates={Meter.INPUT: Decimal(3)}
    )
    report = rerate_month("ft:gpt-4.1-*", "fine-tuned models had no price")
    assert (report.calls, report.changed, report.unpriced) == (2, 2, 0)
    assert [call.adjustments.count() for call in calls] == [1, 1, 0, 0]

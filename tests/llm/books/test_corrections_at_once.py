"""Several who correct one call at the same time: none undoes what another has learned of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from llm.audit import verify
from llm.books import comparing, rerating
from llm.books.adjusting import decide_call
from llm.books.batches.commit import commit_batch
from llm.books.figures import EffectiveUsage, compute_figures
from llm.books.operations import CloseCall, Closed, Conflict
from llm.books.rerating import ReratingReport, rerate
from llm.db.triggers import install_triggers
from llm.digests import DIGEST_FIELDS
from llm.enums import AdjustmentSource, CallOutcome, Meter, PriceSource, UsageSource, UsageStatus
from llm.models import ApiKey, CatalogVersion, Price, Rate, RateSet, Usage, UsageAdjustment
from llm.prices.staff import set_price
from llm.types import TokenCounts
from tests.llm.books.making import a_close, a_key, an_open

pytestmark = pytest.mark.django_db(transaction=True)

USED = TokenCounts(100, 20)


@pytest.fixture
def key() -> ApiKey:
    install_triggers()
    return a_key()


def price_of(year: int, *, usd: int) -> Price:
    """USD per million tokens of input since then; ten times as much for output."""
    rates = {Meter.INPUT: Decimal(usd), Meter.OUTPUT: Decimal(usd * 10)}
    return set_price("openai", "upstream-name", effective_from=datetime(year, 1, 1, tzinfo=UTC), rates=rates)


def lost_call(key: ApiKey, price: Price) -> Usage:
    """10 tokens in and 2 out, at 1 and 10 USD a million; its process died."""
    operation = an_open(key, price_id=price.pk, catalog_version=CatalogVersion.current())
    close = a_close(
        operation.id,
        status=UsageStatus.ESTIMATED,
        usage_source=UsageSource.ESTIMATED,
        outcome=CallOutcome.LOST,
        counts=TokenCounts(10, 2),
        cost_pico=30_000_000,
        rate_set_id=price.rate_sets.get().pk,
        is_billable=False,
    )
    commit_batch([operation, close])
    return Usage.objects.get(pk=operation.id)


def late_close(row: Usage, price: Price, **values: Any) -> CloseCall:
    """100 tokens in and 20 out, at the price of the open."""
    given = {"counts": USED, "cost_pico": 300_000_000, "rate_set_id": price.rate_sets.get().pk, **values}
    return a_close(row.pk, **given)


def decide(row: Usage, counts: TokenCounts = USED) -> None:
    decide_call(row.pk, counts=counts, is_billable=True, reason="their log", user=None)


def known(row: Usage) -> EffectiveUsage:
    return compute_figures(row, row.adjustments.order_by("id"))


def rerate_all() -> ReratingReport:
    return rerate("openai", "upstream-name", first_day=date(2000, 1, 1), last_day=date(2999, 1, 1), reason="wrong")


def in_a_thread(work: Callable[[], object]) -> None:
    """As another process would, on a connection of its own; raises what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # it is raised in the test's thread
            raised.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def first(work: Callable[[], object], then: Callable[..., Any]) -> Callable[..., Any]:
    """`then`, with the work done once by somebody else just before."""
    left = [work]

    def do(*args: Any, **values: Any) -> Any:
        if left:
            in_a_thread(left.pop())
        return then(*args, **values)

    return do


def decision(row: Usage, _price: Price) -> None:
    decide(row)


def settlement(row: Usage, price: Price) -> None:
    assert commit_batch([late_close(row, price)]) == [Closed()]


@pytest.mark.parametrize("learn", [decision, settlement])
def test_a_re_rating_keeps_what_was_learned_while_it_ran(
    key: ApiKey, monkeypatch: pytest.MonkeyPatch, learn: Callable[[Usage, Price], None]
) -> None:
    price = price_of(2020, usd=1)
    row = lost_call(key, price)
    price_of(2021, usd=2)
    monkeypatch.setattr(rerating, "_begin", first(lambda: learn(row, price), rerating._begin))

    report = rerate_all()

    figures = known(row)
    assert (figures.counts, figures.is_billable, figures.is_known) == (USED, True, True)
    assert figures.cost_pico == 600_000_000
    assert (report.calls, report.changed, report.before_pico, report.after_pico) == (1, 1, 300_000_000, 600_000_000)
    assert rerate_all().changed == 0
    assert verify().sentences == []


def test_a_re_rating_that_another_has_done_meanwhile_changes_nothing(
    key: ApiKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = lost_call(key, price_of(2020, usd=1))
    price_of(2021, usd=2)
    monkeypatch.setattr(rerating, "_adjust", first(rerate_all, rerating._adjust))

    report = rerate_all()

    assert (report.calls, report.changed) == (1, 0)
    assert [each.source for each in row.adjustments.all()] == [AdjustmentSource.RERATING]
    assert known(row).cost_pico == 60_000_000


def test_a_late_settlement_has_the_price_of_a_re_rating_that_came_just_before(
    key: ApiKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    price = price_of(2020, usd=1)
    row = lost_call(key, price)
    price_of(2021, usd=2)
    monkeypatch.setattr(comparing, "_correct", first(rerate_all, comparing._correct))

    assert commit_batch([late_close(row, price)]) == [Closed()]

    assert (known(row).counts, known(row).cost_pico) == (USED, 600_000_000)
    assert verify().sentences == []


def test_one_settlement_that_comes_late_by_two_ways_counts_once(key: ApiKey, monkeypatch: pytest.MonkeyPatch) -> None:
    price = price_of(2020, usd=1)
    row = lost_call(key, price)
    close = late_close(row, price)
    monkeypatch.setattr(comparing, "_correct", first(lambda: commit_batch([close]), comparing._correct))
    assert commit_batch([close]) == [Closed(is_new=False)]
    assert row.adjustments.count() == 1
    [conflict] = commit_batch([late_close(row, price, counts=TokenCounts(1, 1))])
    assert conflict == Conflict("this call was corrected with different figures")
    assert known(row).counts == USED


@pytest.mark.slow
def test_decisions_and_a_re_rating_side_by_side(key: ApiKey, monkeypatch: pytest.MonkeyPatch) -> None:
    price = price_of(2020, usd=1)
    rows = [lost_call(key, price) for _ in range(12)]
    price_of(2021, usd=2)
    monkeypatch.setattr(rerating, "_CHUNK", 4)
    start = threading.Barrier(2)

    def decide_all() -> None:
        start.wait(timeout=30)
        for number, row in enumerate(rows):
            decide(row, TokenCounts(100 + number, 20))

    with_decisions = threading.Thread(target=in_a_thread, args=(decide_all,))
    with_decisions.start()
    start.wait(timeout=30)
    rerate_all()
    with_decisions.join()

    # Whoever came first: a decision takes the price of the re-rating, a re-rating the figures of the decision.
    for number, row in enumerate(rows):
        figures = known(row)
        assert (figures.counts, figures.is_billable) == (TokenCounts(100 + number, 20), True)
        assert figures.cost_pico == 2_000_000 * (100 + number) + 20_000_000 * 20
    assert rerate_all().changed == 0
    assert verify().sentences == []


# --- All that a price depends on --------------------------------------------------------------------------------------


def bare_price(year: int) -> Price:
    since = datetime(year, 1, 1, tzinfo=UTC)
    return Price.objects.create(
        provider="openai", model="upstream-name", source=PriceSource.STAFF, effective_from=since
    )


@pytest.fixture
def rich_price() -> Price:
    """Standard and flex, and a search at 10 USD a thousand in both."""
    price = Price.objects.create(
        provider="openai",
        model="upstream-name",
        source=PriceSource.STAFF,
        effective_from=datetime(2020, 1, 1, tzinfo=UTC),
    )
    for tier, usd in (("", 4), ("flex", 2)):
        rate_set = RateSet.objects.create(price=price, service_tier=tier)
        for meter in (Meter.INPUT, Meter.OUTPUT):
            Rate.objects.create(rate_set=rate_set, meter=meter, amount=Decimal(usd))
        Rate.objects.create(rate_set=rate_set, meter="web_searches", amount=Decimal(10), per_units=1000)
    return price


def late_rich_close(row: Usage, price: Price) -> CloseCall:
    """100 + 20 tokens of the flex tier at 2 USD a million, and 3 searches."""
    return a_close(
        row.pk,
        counts=TokenCounts(100, 20, extra_meters={"web_searches": 3}),
        service_tier="flex",
        cost_pico=120 * 2_000_000 + 3 * 10_000_000_000,
        rate_set_id=price.rate_sets.get(service_tier="flex").pk,
    )


def lost_rich(key: ApiKey, price: Price) -> Usage:
    operation = an_open(key, price_id=price.pk, catalog_version=CatalogVersion.current())
    commit_batch(
        [
            operation,
            a_close(
                operation.id,
                status=UsageStatus.ESTIMATED,
                usage_source=UsageSource.ESTIMATED,
                outcome=CallOutcome.LOST,
                counts=TokenCounts(10, 2),
                cost_pico=48_000_000,
                rate_set_id=price.rate_sets.get(service_tier="").pk,
                is_billable=False,
            ),
        ]
    )
    return Usage.objects.get(pk=operation.id)


def test_a_late_settlement_keeps_all_that_its_cost_depends_on(key: ApiKey, rich_price: Price) -> None:
    row = lost_rich(key, rich_price)
    assert commit_batch([late_rich_close(row, rich_price)]) == [Closed()]
    adjustment = row.adjustments.get()
    assert (adjustment.extra_meters, adjustment.service_tier) == ({"web_searches": 3}, "flex")
    assert (adjustment.digest_version, adjustment.is_as_written) == (2, True)
    assert known(row).counts == TokenCounts(100, 20, extra_meters={"web_searches": 3})
    report = rerate_all()
    assert (report.calls, report.changed, report.incomplete, report.unpriced) == (1, 0, 0, 0)
    assert UsageAdjustment.objects.count() == 1
    assert verify().sentences == []


@pytest.mark.slow
def test_a_new_price_reaches_searches_and_tier_of_a_late_settlement(key: ApiKey, rich_price: Price) -> None:
    row = lost_rich(key, rich_price)
    commit_batch([late_rich_close(row, rich_price)])
    dearer = Price.objects.create(
        provider="openai",
        model="upstream-name",
        source=PriceSource.STAFF,
        effective_from=datetime(2021, 1, 1, tzinfo=UTC),
    )
    flex = RateSet.objects.create(price=dearer, service_tier="flex")
    for meter, usd, per_units in (("input", 3, 10**6), ("output", 3, 10**6), ("web_searches", 20, 1000)):
        Rate.objects.create(rate_set=flex, meter=meter, amount=Decimal(usd), per_units=per_units)
    assert rerate_all().changed == 1
    assert known(row).cost_pico == 120 * 3_000_000 + 3 * 20_000_000_000
    assert known(row).service.service_tier == "flex"
    assert verify().sentences == []


def late_in_version_1(row: Usage, price: Price) -> UsageAdjustment:
    """The same late settlement as an earlier release wrote it: neither searches nor tier."""
    adjustment = UsageAdjustment(
        usage=row,
        source=AdjustmentSource.SPOOL,
        prompt_tokens=90,
        completion_tokens=18,
        cost=Decimal("0.03024") - Decimal("0.000048"),
        rate_set=price.rate_sets.get(service_tier="flex"),
        is_billable=True,
        reason="late",
        recorded_at=row.recorded_at,
        digest_version=1,
    )
    for name, word in zip(DIGEST_FIELDS, adjustment.computed_digest(), strict=True):
        setattr(adjustment, name, word)
    adjustment.save(force_insert=True)
    return adjustment


def test_a_late_settlement_of_an_earlier_release_is_left_alone_and_counted(
    key: ApiKey, rich_price: Price, capsys: pytest.CaptureFixture[str]
) -> None:
    row = lost_rich(key, rich_price)
    late_in_version_1(row, rich_price)
    report = rerate_all()
    assert (report.calls, report.changed, report.unpriced, report.incomplete) == (1, 0, 0, 1)
    assert (known(row).cost_pico, UsageAdjustment.objects.count()) == (30_240_000_000, 1)
    assert verify().sentences == []
    call_command(
        *("rerate", "openai", "upstream-name", "--from", "2000-01-01", "--to", "2999-01-01", "--reason", "again")
    )
    assert "Left 1 call unchanged: an earlier release recorded neither searches" in capsys.readouterr().out


def test_what_is_declared_free_is_free_whatever_it_used(key: ApiKey, rich_price: Price) -> None:
    row = lost_rich(key, rich_price)
    late_in_version_1(row, rich_price)
    set_price("openai", "upstream-name", effective_from=datetime(2021, 1, 1, tzinfo=UTC), is_free=True)
    assert rerate_all().changed == 1
    assert known(row).cost_pico == 0

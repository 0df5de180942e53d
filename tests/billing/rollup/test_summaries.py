"""Days summed up over all accounts: whatever happens, reports say what the rows of days add up to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.models import AccountDay, DailyUsage, KeyDay, KeyThird, ModelDay, StaleDay
from billing.rollup import days_summed_wrongly, rebuild, refresh
from billing.rollup.summaries import mark_stale, summarise
from billing.usage_reports import UsageMeasures
from billing.usage_reports.measures import DAY_FIELDS
from llm.books.clock import database_now
from llm.models import ApiKey
from tests.billing.factories import make_account, make_daily_usage
from tests.billing.reported import UsageQuestion, added_by_hand, by_account, by_key, reported, usage_report
from tests.billing.rollup_histories import DAYS, FIRST_DAY
from tests.llm.admin.factories import make_key, save, usage_row

pytestmark = pytest.mark.django_db

LAST_DAY = FIRST_DAY + timedelta(days=DAYS - 1)
ALL = UsageQuestion(FIRST_DAY, LAST_DAY)
NEXT_DAY = FIRST_DAY + timedelta(days=1)
FIGURES = DAY_FIELDS

Totals = dict[Any, UsageMeasures]


@pytest.fixture
def key() -> ApiKey:
    return make_key(make_account())


def test_days_that_are_stale_are_read_from_their_rows_and_the_others_from_their_sums(key: ApiKey) -> None:
    for day in (FIRST_DAY, NEXT_DAY):
        make_daily_usage(key, day)
    summarise()
    DailyUsage.objects.update(calls=100)
    assert calls_by_day() == {FIRST_DAY: 1, NEXT_DAY: 1}
    mark_stale([NEXT_DAY])
    assert calls_by_day() == {FIRST_DAY: 1, NEXT_DAY: 100}
    assert [each.figures.calls for each in by_account(ALL)] == [101]
    summarise()
    assert calls_by_day() == {FIRST_DAY: 1, NEXT_DAY: 100}


def calls_by_day() -> dict[date, int]:
    return {each.day: each.figures.calls for each in usage_report(ALL).by_day if each.figures.calls}


@pytest.mark.parametrize(
    ("first", "last", "calls"),
    [
        pytest.param(1, 31, 3000, id="a month"),
        pytest.param(1, 20, 2000, id="two thirds"),
        pytest.param(11, 31, 2000, id="the others"),
        pytest.param(5, 25, 1200, id="a third between days"),
        pytest.param(11, 19, 100, id="a third but for a day"),
        pytest.param(2, 31, 2100, id="a month but for a day"),
        pytest.param(6, 15, 200, id="no third"),
        pytest.param(21, 30, 100, id="the last third but for a day"),
    ],
)
def test_usage_by_key_is_read_from_thirds_of_months_and_the_days_beside_them(
    key: ApiKey, first: int, last: int, calls: int
) -> None:
    sum_up_each_third(key)
    question = UsageQuestion(OCTOBER.replace(day=first), OCTOBER.replace(day=last))
    assert [each.figures.calls for each in by_key(question)] == [calls]


OCTOBER = date(2026, 10, 1)


def sum_up_each_third(key: ApiKey) -> None:
    """Each has one call, on its sixth day: 1000 according to thirds, 100 to days of keys, 10 to the rows of days."""
    for day in (6, 15, 25):
        make_daily_usage(key, OCTOBER.replace(day=day))
    summarise()
    KeyThird.objects.update(calls=1000)
    KeyDay.objects.update(calls=100)
    DailyUsage.objects.update(calls=10)


@pytest.mark.parametrize(("stale", "calls"), [(15, 2010), (16, 2100)])
def test_of_a_third_with_a_stale_day_the_others_are_read(key: ApiKey, stale: int, calls: int) -> None:
    sum_up_each_third(key)
    mark_stale([OCTOBER.replace(day=stale)])
    assert [each.figures.calls for each in by_key(UsageQuestion(OCTOBER, OCTOBER.replace(day=31)))] == [calls]


def test_what_the_sums_do_not_know_is_read_from_the_rows(key: ApiKey) -> None:
    make_daily_usage(key, FIRST_DAY)
    summarise()
    DailyUsage.objects.update(calls=100)
    of_model = replace(ALL, model="gpt", provider="openai")
    for question in (ALL, of_model):
        assert usage_report(question).total.calls == 1
    of_account, of_key = replace(ALL, account_id=key.account_id), replace(ALL, api_key_id=key.pk)
    for question in (of_account, of_key):
        assert usage_report(question).total.calls == 100
    assert [by_account(question)[0].figures.calls for question in (ALL, of_key, of_model)] == [1, 1, 100]
    assert [by_key(question)[0].figures.calls for question in (ALL, of_account, of_key, of_model)] == [1, 1, 1, 100]


def test_a_day_is_summed_up_exactly_beyond_64_bits(key: ApiKey) -> None:
    most = Decimal("9999999999999999999999999.999999999999")
    for number in range(3):
        make_daily_usage(key, FIRST_DAY, model=f"model {number}", cost=most, estimated_cost=most.copy_negate())
    summarise()
    account = AccountDay.objects.get()
    assert account.cost == Decimal("29999999999999999999999999.999999999997")
    assert account.estimated_cost == Decimal("-29999999999999999999999999.999999999997")
    assert set(ModelDay.objects.values_list("cost", flat=True)) == {most}


def test_a_refresh_sums_up_what_it_wrote_and_leaves_other_days_alone(key: ApiKey) -> None:
    call_on(key, FIRST_DAY)
    refresh()
    ModelDay.objects.update(calls=7)
    call_on(key, NEXT_DAY)
    refresh()
    assert dict(ModelDay.objects.values_list("local_day", "calls")) == {FIRST_DAY: 7, NEXT_DAY: 1}
    assert StaleDay.objects.count() == 0


def call_on(key: ApiKey, day: date) -> None:
    save(usage_row(key, local_day=day, recorded_at=database_now()))


def test_a_refresh_of_some_accounts_leaves_its_days_stale_until_that_of_all(key: ApiKey) -> None:
    call_on(key, FIRST_DAY)
    refresh(account_ids=[key.account_id])
    assert stale_days() == {FIRST_DAY}
    assert usage_report(ALL).total.calls == 1
    refresh()
    assert stale_days() == set()
    assert ModelDay.objects.get().calls == 1


def stale_days() -> Collection[date]:
    return {*StaleDay.objects.values_list("local_day", flat=True)}


def test_a_day_of_which_nothing_is_left_has_no_sums(key: ApiKey) -> None:
    make_daily_usage(key, FIRST_DAY)
    summarise()
    DailyUsage.objects.all().delete()
    mark_stale([FIRST_DAY])
    summarise()
    for summary in (ModelDay, AccountDay, KeyDay, KeyThird, StaleDay):
        assert not summary.objects.exists()


def test_a_refresh_takes_sums_away_with_rows_that_have_no_calls(key: ApiKey) -> None:
    make_daily_usage(key, FIRST_DAY)
    summarise()
    refresh()
    for model in (DailyUsage, ModelDay, AccountDay, KeyDay, KeyThird):
        assert not model.objects.exists()


@pytest.mark.slow
def test_a_rebuild_makes_sums_anew_also_where_no_row_is_left(key: ApiKey) -> None:
    for day in (FIRST_DAY, NEXT_DAY):
        call_on(key, day)
    refresh()
    ModelDay.objects.update(cost=Decimal(9))
    AccountDay.objects.filter(local_day=NEXT_DAY).delete()
    AccountDay.objects.create(account=key.account, local_day=LAST_DAY, calls=5)
    assert days_summed_wrongly(FIRST_DAY, LAST_DAY) == [FIRST_DAY, NEXT_DAY, LAST_DAY]
    assert days_summed_wrongly(NEXT_DAY, NEXT_DAY) == [NEXT_DAY]
    rebuild(first=NEXT_DAY, last=LAST_DAY, account_ids=[key.account_id])
    assert days_summed_wrongly(FIRST_DAY, LAST_DAY) == [FIRST_DAY]
    rebuild(first=FIRST_DAY, last=FIRST_DAY)
    assert days_summed_wrongly(FIRST_DAY, LAST_DAY) == []
    assert reported(ALL) == added_by_hand(ALL)
    assert AccountDay.objects.count() == 2


def test_a_third_that_is_wrong_is_named_by_its_first_day_and_made_anew_with_it(key: ApiKey) -> None:
    call_on(key, OCTOBER.replace(day=15))
    refresh()
    other = make_key(make_account("other"))
    KeyThird.objects.create(local_day=OCTOBER, account=other.account, api_key=other, calls=5)
    KeyThird.objects.update(cost=Decimal(9))
    first, second = OCTOBER, OCTOBER.replace(day=11)
    assert days_summed_wrongly(OCTOBER, OCTOBER.replace(day=31)) == [first, second]
    rebuild(first=first, last=second)
    assert days_summed_wrongly(OCTOBER, OCTOBER.replace(day=31)) == []
    assert [(third.api_key, third.local_day, third.calls) for third in KeyThird.objects.all()] == [(key, second, 1)]


def test_a_stale_day_is_not_wrong(key: ApiKey) -> None:
    make_daily_usage(key, FIRST_DAY)
    assert days_summed_wrongly(FIRST_DAY, LAST_DAY) == []

"""Usage summaries from the rollups: by day, model, account and key."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.models import DailyUsage, RollupMark
from billing.rollup import refresh
from billing.rollup.summaries import summarise
from billing.usage_reports import UsageMeasures, rolled_up_to
from llm.books.clock import database_now
from llm.models import Account, ApiKey
from tests.billing.factories import make_account, make_daily_usage
from tests.billing.reported import ModelUsage, UsageQuestion, by_account, by_key, usage_report
from tests.llm.admin.factories import make_key

pytestmark = pytest.mark.django_db

FIRST, LAST = date(2026, 11, 1), date(2026, 11, 3)
ALL = UsageQuestion(FIRST, LAST)


@pytest.fixture
def key() -> ApiKey:
    return make_key(make_account())


def make_day(key: ApiKey, day: date = FIRST, **values: Any) -> DailyUsage:
    return make_daily_usage(key, day, **{"cost": Decimal(2), **values})


def test_a_report_of_nothing_has_its_days_and_no_usage() -> None:
    report = usage_report(ALL)
    assert report.total == UsageMeasures()
    assert [(day.day, day.figures) for day in report.by_day] == [
        (FIRST + timedelta(days=offset), UsageMeasures()) for offset in range(3)
    ]
    assert (report.by_model, by_account(ALL), by_key(ALL), report.as_of) == ((), (), (), None)


def test_days_models_and_accounts_each_add_up_to_the_total(key: ApiKey) -> None:
    other = make_key(make_account("Other"))
    make_day(key)
    make_day(key, LAST, model="claude", provider="anthropic", estimated_calls=1, estimated_cost=Decimal("0.5"))
    make_day(other, LAST, cost=Decimal("7.000000000001"), calls=3, unpriced_calls=1, cache_read_tokens=4)
    report = usage_report(ALL)
    assert report.total == UsageMeasures(
        calls=5,
        estimated_calls=1,
        unpriced_calls=1,
        prompt_tokens=30,
        completion_tokens=15,
        cache_read_tokens=4,
        cost=Decimal("11.000000000001"),
        estimated_cost=Decimal("0.5"),
    )
    assert [day.figures.calls for day in report.by_day] == [1, 0, 4]
    assert [(each.provider, each.model, each.figures.calls) for each in report.by_model] == [
        ("openai", "gpt", 4),
        ("anthropic", "claude", 1),
    ]
    names = dict(Account.objects.values_list("pk", "name"))
    assert [(names[each.id], each.figures.cost) for each in by_account(ALL)] == [
        ("Other", Decimal("7.000000000001")),
        ("Acme", Decimal(4)),
    ]


def test_usage_of_one_account_by_key_has_its_keys_alone(key: ApiKey) -> None:
    second = make_key(key.account, "second")
    make_day(key, cost=Decimal(1))
    make_day(second)
    make_day(make_key(make_account("Other")))
    of_one = UsageQuestion(FIRST, LAST, account_id=key.account_id)
    assert [(each.id, each.figures.cost) for each in by_key(of_one)] == [(second.pk, Decimal(2)), (key.pk, Decimal(1))]
    assert [each.id for each in by_account(of_one)] == [key.account_id]
    assert usage_report(of_one).total.calls == 2


def test_calls_that_are_not_billable_are_usage_all_the_same(key: ApiKey) -> None:
    make_day(key)
    make_day(key, is_billable=False)
    assert usage_report(ALL).total.calls == 2


@pytest.mark.parametrize(
    ("narrowed", "calls"),
    [({"model": "gpt"}, 1), ({"provider": "anthropic"}, 10), ({"model": "gpt", "provider": "anthropic"}, 0)],
)
def test_a_report_is_narrowed_by_model_and_provider(key: ApiKey, narrowed: dict[str, str], calls: int) -> None:
    make_day(key)
    make_day(key, model="claude", provider="anthropic", calls=10)
    assert usage_report(UsageQuestion(FIRST, LAST, **narrowed)).total.calls == calls  # type: ignore[arg-type]  # texts only


def test_a_report_is_narrowed_by_key_and_by_days(key: ApiKey) -> None:
    second = make_key(key.account, "second")
    for number, day in enumerate((FIRST - timedelta(days=1), FIRST, LAST, LAST + timedelta(days=1))):
        make_day(key, day, calls=10**number)
    make_day(second, calls=5000)
    assert usage_report(UsageQuestion(FIRST, LAST, api_key_id=key.pk)).total.calls == 110


def test_sums_are_exact_beyond_64_bits(key: ApiKey) -> None:
    most = Decimal("99999999999999999999.999999999999")
    make_day(key, cost=most)
    make_day(key, LAST, cost=most)
    make_day(key, LAST, model="other", cost=most)
    report = usage_report(ALL)
    assert report.total.cost == Decimal("299999999999999999999.999999999997")
    assert by_account(ALL)[0].figures.cost == report.total.cost


@pytest.mark.parametrize(("is_summed", "of_report", "of_accounts"), [(False, 4, 3), (True, 3, 2)])
def test_a_report_takes_few_queries_however_many_accounts(
    key: ApiKey, django_assert_num_queries: Any, is_summed: bool, of_report: int, of_accounts: int
) -> None:
    for number in range(5):
        make_day(make_key(make_account(f"Account {number}")), LAST if number else FIRST)
    if is_summed:
        summarise()
    with django_assert_num_queries(of_report):
        assert usage_report(ALL).total.calls == 5
    with django_assert_num_queries(of_accounts):
        assert len(by_account(ALL)) == 5


def test_a_report_is_as_of_the_account_that_is_behind_the_most(key: ApiKey) -> None:
    former = refresh()
    other = make_account("Other")
    latest = refresh(account_ids=[other.pk])
    assert (rolled_up_to(), rolled_up_to(other.pk)) == (former, latest)
    RollupMark.objects.filter(account=other).update(cutoff_at=None, rolling_to=database_now())
    assert (rolled_up_to(), rolled_up_to(other.pk), rolled_up_to(key.account_id)) == (None, None, former)


def test_models_of_one_name_at_two_providers_stay_apart(key: ApiKey) -> None:
    make_day(key)
    make_day(key, provider="azure", cost=Decimal(1))
    figures = UsageMeasures(calls=1, prompt_tokens=10, completion_tokens=5, cost=Decimal(2))
    report = usage_report(ALL)
    assert report.by_model[0] == ModelUsage("openai", "gpt", figures)
    assert [each.provider for each in report.by_model] == ["openai", "azure"]

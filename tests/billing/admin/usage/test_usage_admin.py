"""The report of usage: by day, model, account and key, with its filters."""

from __future__ import annotations

import re
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from billing.models import DailyUsage
from billing.rollup.summaries import mark_stale
from llm.models import Account, ApiKey
from tests.billing.factories import make_account, make_daily_usage
from tests.llm.admin.factories import make_key, staff_with

pytestmark = pytest.mark.django_db

PAGE = "/admin/billing/dailyusage/"
OCTOBER = {"first": "2026-10-01", "last": "2026-10-03"}


def make_day(key: ApiKey, day: date, **values: Any) -> DailyUsage:
    return make_daily_usage(key, day, **{"calls": 2, "cost": Decimal(2), **values})


@pytest.fixture
def _usage() -> None:
    acme, other = make_key(make_account()), make_key(make_account("Other"))
    make_day(acme, date(2026, 10, 1))
    make_day(acme, date(2026, 10, 3), model="claude", provider="anthropic", cost=Decimal("0.5"))
    make_day(other, date(2026, 10, 3), calls=4, cost=Decimal(1), unpriced_calls=1)


def rows(client: Client, **query: str) -> list[tuple[str, str, str]]:
    """Name, calls and exact cost of each row; the total comes first."""
    response = client.get(PAGE, {**OCTOBER, **query})
    assert response.status_code == 200
    found = []
    for row in re.findall(r"<tr[^>]*><th scope=\"row\">(.*?)</tr>", response.content.decode(), re.DOTALL):
        name = re.split(r"</th>| <span", row)[0]
        numbers = re.findall(r'<span class="gw-num" title="([^"]+)"', row)
        found.append((name.partition(" (")[0], numbers[0], numbers[-1]))
    return found


@pytest.mark.usefixtures("_usage")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [("2026-10-01", "2", "$2.00"), ("2026-10-02", "0", "$0.00"), ("2026-10-03", "6", "$1.50")]),
        ({"by": "model"}, [("gpt", "6", "$3.00"), ("claude", "2", "$0.50")]),
        ({"by": "account"}, [("Acme", "4", "$2.50"), ("Other", "4", "$1.00")]),
        ({"by": "key"}, [("production", "4", "$2.50"), ("production", "4", "$1.00")]),
    ],
)
def test_each_grouping_adds_up_to_the_total(
    admin_client: Client, query: dict[str, str], expected: list[tuple[str, str, str]]
) -> None:
    assert rows(admin_client, **query) == [("Total", "8", "$3.50"), *expected]


@pytest.mark.usefixtures("_usage")
@pytest.mark.parametrize(
    ("query", "calls"),
    [
        ({"account": "acme"}, "4"),
        ({"model": "claude"}, "2"),
        ({"provider": "openai"}, "6"),
        ({"account": "Other", "key": "production"}, "4"),
        ({"last": "2026-10-02"}, "2"),
    ],
)
def test_filters_narrow_the_report(admin_client: Client, query: dict[str, str], calls: str) -> None:
    assert rows(admin_client, by="model", **query)[0][1] == calls


@pytest.mark.usefixtures("_usage")
@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ({"account": "nobody"}, "No account has this name."),
        ({"key": "production"}, "Several keys match; please be more specific."),
        ({"last": "2026-09-30"}, "This is before the start date."),
        ({"last": "2027-10-02"}, "At most 366 days."),
        ({"by": "hour"}, "Select a valid choice."),
    ],
)
def test_a_wrong_filter_shows_nothing(admin_client: Client, query: dict[str, str], complaint: str) -> None:
    page = admin_client.get(PAGE, {**OCTOBER, **query}).content.decode()
    assert complaint in page
    assert "gw-figures" not in page


def test_without_days_it_is_the_month_so_far(admin_client: Client) -> None:
    today = timezone.now().date()
    page = admin_client.get(PAGE).content.decode()
    assert f"{today.replace(day=1)} to {today}" in page


def test_the_report_is_for_who_may_see_usage() -> None:
    assert staff_with("view_usage").get(PAGE).status_code == 403


def test_a_row_of_the_rollup_has_no_page(admin_client: Client) -> None:
    row = make_day(make_key(make_account()), date(2026, 10, 1))
    assert admin_client.get(f"{PAGE}{row.pk}/change/").status_code == 404
    assert admin_client.post(f"{PAGE}add/").status_code == 403


@pytest.mark.slow
def test_a_thousand_accounts_take_few_queries(admin_client: Client, django_assert_max_num_queries: Any) -> None:
    accounts = Account.objects.bulk_create(Account(name=f"Account {number}") for number in range(1000))
    keys = ApiKey.objects.bulk_create(
        ApiKey(account=account, name="production", digest=account.name.encode()) for account in accounts
    )
    DailyUsage.objects.bulk_create(
        DailyUsage(
            account_id=key.account_id,
            api_key=key,
            local_day=date(2026, 10, 1) + timedelta(days=key.pk % 3),
            provider="openai",
            model="gpt",
            calls=1,
            cost=Decimal(1),
        )
        for key in keys
    )
    mark_stale(date(2026, 10, day) for day in (1, 2, 3))
    for by in ("day", "model", "account", "key"):
        with django_assert_max_num_queries(16):
            found = rows(admin_client, by=by)
        assert found[0] == ("Total", "1,000", "$1,000.00")
        assert len(found) == {"day": 4, "model": 2}.get(by, 201)
    assert "These are the 200 most expensive" in admin_client.get(PAGE, {**OCTOBER, "by": "key"}).content.decode()

"""Usage summaries over the management API."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine

from billing.models import DailyUsage, RollupMark
from billing.rollup.summaries import summarise
from llm.models import ApiKey
from tests.billing.api.asking import Asker, customer, staff_asker
from tests.billing.factories import make_account, make_daily_usage
from tests.llm.admin.factories import make_key

pytestmark = pytest.mark.django_db

DAY = date(2026, 10, 5)
OCTOBER = {"from": "2026-10-01", "to": "2026-10-31"}


def make_day(key: ApiKey, **values: Any) -> DailyUsage:
    defaults = {
        "day": values.pop("local_day", DAY),
        "model": "small",
        "calls": 2,
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "cost": Decimal("0.000000000001"),
    }
    return make_daily_usage(key, **{**defaults, **values})


@pytest.fixture
def staff() -> Asker:
    return staff_asker("view_dailyusage")


def test_days_are_summed_exactly(staff: Asker) -> None:
    one, other = make_key(make_account()), make_key(make_account("Other"))
    make_day(one)
    make_day(one, model="large", cost=Decimal("123456789012345.000000000002"), prompt_tokens=10**12)
    make_day(other, is_billable=False, unpriced_calls=1)
    make_day(other, local_day=date(2026, 10, 6), estimated_calls=2)
    make_day(other, local_day=date(2026, 11, 1))

    summary = staff.get("usage/", OCTOBER).json()

    assert (summary["by"], summary["first"], summary["last"]) == ("day", "2026-10-01", "2026-10-31")
    first, second = summary["results"]
    assert (first["day"], first["calls"], first["prompt_tokens"]) == ("2026-10-05", 6, 10**12 + 200)
    assert (first["cost"], first["unpriced_calls"]) == ("123456789012345.000000000004", 1)
    assert (second["day"], second["calls"], second["estimated_calls"], second["cost"]) == (
        "2026-10-06",
        2,
        2,
        "0.000000000001",
    )
    assert (summary["total"]["calls"], summary["total"]["cost"]) == (8, "123456789012345.000000000005")


@pytest.mark.parametrize(
    ("by", "names", "rows"),
    [
        ("key", ("key_name", "calls"), [("first", 4), ("second", 2)]),
        ("model", ("model", "calls"), [("large", 2), ("small", 4)]),
        ("account", ("account_name", "calls"), [("Acme", 6)]),
    ],
)
def test_what_is_summed_by_is_the_callers_choice(
    staff: Asker, by: str, names: tuple[str, ...], rows: list[tuple[Any, ...]]
) -> None:
    account = make_account()
    first, second = make_key(account, "first"), make_key(account, "second")
    for key, model in ((first, "small"), (first, "large"), (second, "small")):
        make_day(key, model=model)

    found = staff.results("usage/", {**OCTOBER, "by": by})

    assert [tuple(row[name] for name in names) for row in found] == rows


def test_filters_narrow_the_sums_and_the_total(staff: Asker) -> None:
    one, other = make_key(make_account()), make_key(make_account("Other"))
    make_day(one)
    make_day(one, model="large")
    make_day(other)

    for query, calls in (({"account": one.account_id}, 4), ({"key": other.pk}, 2), ({"model": "large"}, 2)):
        assert staff.get("usage/", {**OCTOBER, **query}).json()["total"]["calls"] == calls


def test_a_customer_sees_its_own_account_without_our_cost() -> None:
    key, asker = customer(make_account())
    make_day(key, unpriced_calls=1)
    make_day(make_key(make_account(), "another of its keys"))
    other = make_key(make_account("Other"))
    make_day(other)

    summary = asker.get("usage/", {**OCTOBER, "by": "key"}).json()

    assert summary["total"]["calls"] == 4
    assert {row["account"] for row in summary["results"]} == {key.account_id}
    for figures in (summary["total"], *summary["results"]):
        assert not {"cost", "unpriced_calls"} & set(figures)
    for query in ({"account": other.account_id}, {"account": 10**6}):
        assert asker.refusal("usage/", query) == "account: This id does not exist."
    assert asker.refusal("usage/", {"key": other.pk}) == "key: This id does not exist."


def test_an_account_that_is_shown_its_cost_sees_it() -> None:
    key, asker = customer(make_account(shows_cost=True))
    make_day(key)

    assert asker.get("usage/", OCTOBER).json()["total"]["cost"] == "0.000000000001"


@pytest.mark.slow
@pytest.mark.parametrize("query", [{}, {"model": "small"}, {"account": 0}])
@pytest.mark.parametrize("by", ["day", "model", "account", "key"])
def test_figures_are_the_same_before_and_after_days_are_summed_up(staff: Asker, by: str, query: dict[str, Any]) -> None:
    one, other = make_key(make_account()), make_key(make_account("Other"))
    asked: dict[str, Any] = {**OCTOBER, "by": by, **query}
    if "account" in query:
        asked["account"] = one.account_id
    for day in (DAY, DAY + timedelta(days=1)):
        for key, values in ((one, {}), (one, {"model": "large"}), (other, {"provider": "azure"})):
            make_day(key, local_day=day, **values)
    before = staff.get("usage/", asked).json()

    summarise()
    assert staff.get("usage/", asked).json() == before

    row = make_day(one, local_day=DAY, provider="azure")
    mixed = staff.get("usage/", asked).json()
    assert mixed["total"]["calls"] == before["total"]["calls"] + row.calls
    assert sum(group["calls"] for group in mixed["results"]) == mixed["total"]["calls"]
    summarise()
    assert staff.get("usage/", asked).json() == mixed


def test_nothing_is_zero(staff: Asker) -> None:
    summary = staff.get("usage/", OCTOBER).json()

    assert (summary["results"], summary["total"]["calls"], summary["total"]["cost"]) == ([], 0, "0.00")


@time_machine.travel(datetime(2026, 10, 20, 12, tzinfo=UTC))
def test_without_days_it_is_the_current_month(staff: Asker) -> None:
    key = make_key(make_account())
    make_day(key)
    make_day(key, local_day=date(2026, 9, 30))

    summary = staff.get("usage/").json()

    assert (summary["first"], summary["last"], summary["total"]["calls"]) == ("2026-10-01", None, 2)


def test_it_says_up_to_when_the_figures_are(staff: Asker) -> None:
    key, asker = customer(make_account())
    assert asker.get("usage/").json()["as_of"] is None

    RollupMark.objects.create(account=key.account, cutoff_at=datetime(2026, 10, 5, 13, tzinfo=UTC))
    behind = make_account("Other")
    RollupMark.objects.create(account=behind, cutoff_at=datetime(2026, 10, 5, 12, tzinfo=UTC))

    assert asker.get("usage/").json()["as_of"] == "2026-10-05T13:00:00Z"
    assert staff.get("usage/").json()["as_of"] == "2026-10-05T12:00:00Z"
    assert staff.get("usage/", {"account": key.account_id}).json()["as_of"] == "2026-10-05T13:00:00Z"

    RollupMark.objects.filter(account=behind).update(cutoff_at=None)
    assert staff.get("usage/").json()["as_of"] is None


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ({"by": "planet"}, "by: Choose one of day, key, model, account, end_user and tag:KEY."),
        ({"from": "yesterday"}, "from: Must be a date such as 2026-10-31."),
        ({"from": "10/31/2026"}, "from: Must be a date such as 2026-10-31."),
        ({"from": "0001-01-01"}, "from: Ensure this value is greater than or equal to 2000-01-01."),
        ({"to": "9999-12-31"}, "to: Ensure this value is less than or equal to 2999-12-31."),
        ({"from": "2026-10-02", "to": "2026-10-01"}, "to: This is before the start date."),
        ({"model": "x" * 201}, "model: Ensure this value has at most 200 characters (it has 201)."),
        ({"model": "a\0"}, "model: Null characters are not allowed."),
        ({"account": "Acme"}, "account: This id does not exist."),
        ({"account": "9" * 30}, "account: This id does not exist."),
        ({"acount": "1"}, "acount: Unknown parameter. Allowed: account, by, from, key, model, to."),
        ({"model": ["a", "b"]}, "model: This parameter may be given only once."),
    ],
)
def test_a_filter_that_is_wrong_says_which_and_why(staff: Asker, query: dict[str, Any], detail: str) -> None:
    assert staff.refusal("usage/", query) == detail


def test_too_many_rows_are_refused(staff: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("billing.api.usage.MAX_ROWS", 1)
    key = make_key(make_account())
    make_day(key)
    make_day(key, model="large")

    assert len(staff.results("usage/", OCTOBER)) == 1
    assert "more than 1 rows" in staff.refusal("usage/", {**OCTOBER, "by": "model"})

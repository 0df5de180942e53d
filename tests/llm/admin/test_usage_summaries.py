from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.cache import cache

from llm.admin import usage_summaries
from llm.enums import CallOutcome, UsageSource, UsageStatus
from llm.keys import revoke_key
from tests.llm.admin.factories import lost_row, make_account, make_key, on, open_row, save, usage_row

pytestmark = pytest.mark.django_db

DAY = date(2026, 11, 20)
NOW = datetime(2026, 11, 20, 15, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def test_a_day_without_calls_is_all_zeros() -> None:
    report = usage_summaries.day_report(DAY)

    assert report == usage_summaries.DayReport(day=DAY, total=usage_summaries.UsageTotals(), accounts=(), models=())
    assert report.total.failed_permille == 0


def test_a_day_sums_exactly_by_account_and_model() -> None:
    acme, other = make_key(make_account("Acme")), make_key(make_account("Other"))
    save(
        usage_row(acme, cost=Decimal("0.000000000001")),
        usage_row(acme, cost=Decimal("0.000000000002"), model="small"),
        usage_row(other, status=UsageStatus.ESTIMATED, usage_source=UsageSource.ESTIMATED, cost=Decimal(9)),
        usage_row(other, cost=None),
        usage_row(
            other,
            status=UsageStatus.VOID,
            outcome=CallOutcome.UPSTREAM_REFUSED,
            cost=None,
            prompt_tokens=0,
            completion_tokens=0,
        ),
        usage_row(other, local_day=DAY - timedelta(days=1)),
    )

    report = usage_summaries.day_report(DAY)

    assert report.total == usage_summaries.UsageTotals(
        calls=5,
        prompt_tokens=400,
        completion_tokens=80,
        cost=Decimal("9.000000000003"),
        failed=1,
        estimated=1,
        unpriced=1,
    )
    assert [(entry.name, entry.figures.calls) for entry in report.accounts] == [("Other", 3), ("Acme", 2)]
    assert [(entry.name, entry.figures.cost) for entry in report.models] == [
        ("gpt-test", Decimal("9.000000000001")),
        ("small", Decimal("0.000000000002")),
    ]


def test_a_lost_call_has_failed() -> None:
    save(lost_row(make_key(make_account()), local_day=DAY))

    assert usage_summaries.day_report(DAY).total.failed_permille == 1000


def test_one_failure_of_many_never_shows_as_none() -> None:
    assert usage_summaries.UsageTotals(calls=100_000, failed=1).failed_permille == 1


def test_days_without_calls_are_there() -> None:
    key = make_key(make_account())
    save(usage_row(key, opened_at=on(DAY)), usage_row(key, opened_at=on(DAY - timedelta(days=3)), cost=Decimal(2)))

    days = usage_summaries.daily_figures(DAY - timedelta(days=4), usage_summaries.day_report(DAY))

    assert [(figures.day.day, figures.calls, figures.cost, figures.is_known) for figures in days] == [
        (16, 0, Decimal(0), True),
        (17, 1, Decimal(2), True),
        (18, 0, Decimal(0), True),
        (19, 0, Decimal(0), True),
        (20, 1, Decimal("0.0003"), True),
    ]


def test_finished_days_are_read_once(django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # However busy the machine is: all but the first day fit into one reading.
    monkeypatch.setattr(usage_summaries, "READ_SECONDS", 600.0)
    today = usage_summaries.day_report(DAY)
    with django_assert_num_queries(2):
        usage_summaries.daily_figures(DAY - timedelta(days=13), today)

    with django_assert_num_queries(0):
        usage_summaries.daily_figures(DAY - timedelta(days=13), today)


def test_days_that_take_too_long_are_read_by_and_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_summaries, "READ_SECONDS", 0.0)
    today = usage_summaries.day_report(DAY)

    def known() -> list[int]:
        days = usage_summaries.daily_figures(DAY - timedelta(days=3), today)
        return [figures.day.day for figures in days if figures.is_known]

    assert [known(), known(), known()] == [[19, 20], [18, 19, 20], [17, 18, 19, 20]]


def test_todays_figures_are_fresh_while_they_are_cheap() -> None:
    key = make_key(make_account())
    usage_summaries.day_report(DAY)
    save(usage_row(key))

    assert usage_summaries.day_report(DAY).total.calls == 1


def test_a_slow_report_is_shown_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_summaries, "CHEAP_SECONDS", -1.0)
    key = make_key(make_account())
    usage_summaries.day_report(DAY)
    save(usage_row(key))

    assert usage_summaries.day_report(DAY).total.calls == 0


def test_the_day_is_that_of_most_active_accounts() -> None:
    late = datetime(2026, 11, 20, 23, tzinfo=UTC)
    assert usage_summaries.day_of_most_accounts(late) == DAY
    for name in ("a", "b"):
        make_account(name, time_zone="Asia/Kathmandu")
    make_account("c", time_zone="America/New_York")
    for name in ("d", "e", "f"):
        make_account(name, status="closed")

    assert usage_summaries.day_of_most_accounts(late) == date(2026, 11, 21)


def test_open_calls_are_counted_up_to_a_bound() -> None:
    key = make_key(make_account())
    save(usage_row(key), *(open_row(key) for _ in range(5)))

    assert usage_summaries.open_calls() == 5
    assert usage_summaries.open_calls(limit=3) == 4


def test_recent_calls_are_the_latest_first() -> None:
    key = make_key(make_account())
    old, new = save(usage_row(key, opened_at=NOW - timedelta(hours=1)), usage_row(key, opened_at=NOW))

    assert [call.id for call in usage_summaries.recent_calls(5)] == [new.id, old.id]
    assert [call.id for call in usage_summaries.recent_calls(1)] == [new.id]


def test_keys_that_end_soon_are_those_that_still_work() -> None:
    now = datetime.now(UTC)
    account, suspended = make_account(), make_account("Suspended", status="suspended")
    soon = make_key(account, "soon", expires_at=now + timedelta(days=2))
    later = make_key(account, "later", expires_at=now + timedelta(days=6))
    make_key(account, "far", expires_at=now + timedelta(days=8))
    make_key(account, "never")
    make_key(suspended, "suspended", expires_at=now + timedelta(days=2))
    revoke_key(make_key(account, "revoked", expires_at=now + timedelta(days=2)))

    assert usage_summaries.keys_expiring(datetime.now(UTC), within=timedelta(days=7)) == [soon, later]


def test_unpriced_models_count_calls_and_tokens() -> None:
    key = make_key(make_account())
    save(
        usage_row(key),
        open_row(key),
        *(usage_row(key, cost=None, upstream_model="llama", provider="openai_compatible") for _ in range(2)),
        usage_row(key, cost=None, upstream_model="qwen", provider="openai_compatible"),
    )

    found = usage_summaries.unpriced_models()

    assert [(entry.provider, entry.model, entry.calls, entry.total_tokens) for entry in found] == [
        ("openai_compatible", "llama", 2, 240),
        ("openai_compatible", "qwen", 1, 120),
    ]


def test_unpriced_models_look_at_the_latest_calls_only() -> None:
    key = make_key(make_account())
    save(
        usage_row(key, cost=None, upstream_model="old", opened_at=NOW - timedelta(days=1)),
        usage_row(key, cost=None, upstream_model="new", opened_at=NOW),
    )

    assert [entry.model for entry in usage_summaries.unpriced_models(looked_at=1)] == ["new"]

"""A soft threshold is alerted once per period, and of a limit per minute at most once an hour."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from llm.enums import LimitMetric, LimitPer
from llm.limits.admission import LimitRow, Window
from llm.limits.rows import window_statements
from llm.models import Outbox
from tests.llm.books.making import a_key

pytestmark = pytest.mark.django_db

START = datetime(2026, 11, 20, 12, 58, tzinfo=UTC)


def run_alerts(windows: Sequence[Window], *, now: datetime) -> None:
    for sql, params in window_statements(windows, vendor=connection.vendor, now=now):
        with connection.cursor() as cursor:
            cursor.execute(sql, params)


def alert(per: LimitPer, starts: Sequence[datetime]) -> list[str]:
    """When the windows began that were alerted, of some that each cross the threshold."""
    key = a_key()
    limit = LimitRow(3, key.account_id, None, LimitMetric.REQUESTS, per, 10, 80)
    windows = [Window(number, limit, start, 9, 0, is_announced=False) for number, start in enumerate(starts)]
    run_alerts(windows, now=START)
    alerts = Outbox.objects.filter(kind="mail").order_by("id")
    assert Outbox.objects.filter(kind="webhook").count() == len(alerts)
    return [message.payload["window_starts_at"][11:16] for message in alerts]


def test_a_limit_per_minute_is_alerted_once_an_hour() -> None:
    minutes = [START + timedelta(minutes=number) for number in range(130)]
    assert alert(LimitPer.MINUTE, minutes) == ["12:58", "13:00", "14:00", "15:00"]


@pytest.mark.parametrize(("per", "hours"), [(LimitPer.HOUR, 1), (LimitPer.DAY, 24)])
def test_a_limit_of_a_longer_period_is_alerted_in_each(per: LimitPer, hours: int) -> None:
    starts = [START + timedelta(hours=hours * number) for number in range(3)]
    assert len(alert(per, starts)) == 3


@pytest.mark.parametrize(
    ("per", "alerted"),
    [(LimitPer.MINUTE, 3), (LimitPer.HOUR, 3), (LimitPer.DAY, 2), (LimitPer.MONTH, 2), (LimitPer.TOTAL, 2)],
)
def test_a_limit_for_each_end_user_is_alerted_once_an_hour_or_day_however_many_cross_it(
    per: LimitPer, alerted: int
) -> None:
    limit = LimitRow(3, a_key().account_id, None, LimitMetric.REQUESTS, per, 10, 80, is_per_end_user=True)
    for hours in (0, 1, 24):
        windows = [
            Window(number, limit, START, 9, 0, is_announced=False, end_user=f"{hours:031}{number}")
            for number in range(4)
        ]
        run_alerts(windows, now=START + timedelta(hours=hours))
    messages = Outbox.objects.filter(kind="mail")
    assert [message.payload["end_user"][-1] for message in messages] == ["0"] * alerted


@pytest.mark.parametrize(("label", "end_user"), [("a" * 32, "a" * 32), ("-", ""), ("*17", None)])
def test_an_alert_says_which_end_user_it_was(label: str, end_user: str | None) -> None:
    limit = LimitRow(3, a_key().account_id, None, LimitMetric.REQUESTS, LimitPer.DAY, 10, 80, is_per_end_user=True)
    run_alerts([Window(1, limit, START, 9, 0, is_announced=False, end_user=label)], now=START)
    assert {message.payload["end_user"] for message in Outbox.objects.all()} == {end_user}

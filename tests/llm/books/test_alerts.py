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


def alert(per: LimitPer, starts: Sequence[datetime]) -> list[str]:
    """When the windows began that were alerted, of some that each cross the threshold."""
    key = a_key()
    limit = LimitRow(3, key.account_id, None, LimitMetric.REQUESTS, per, 10, 80)
    windows = [Window(number, limit, start, 9, 0, is_announced=False) for number, start in enumerate(starts)]
    for sql, params in window_statements(windows, vendor=connection.vendor, now=START):
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
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

"""Each moment is in one day, and in one month, of the account: over month ends, leap days and changes of the clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import pytest

from billing.models import DailyUsage
from billing.periods import BillingPeriod
from billing.rollup import refresh, usage_sums
from llm.books.batches.commit import commit_batch
from llm.books.batches.session import BatchSession
from llm.books.operations import Closed, Opened
from llm.models import ApiKey
from tests.billing.factories import make_account
from tests.llm.admin.factories import make_key
from tests.llm.books.making import a_close, an_open

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

KIRITIMATI, KATHMANDU = "Pacific/Kiritimati", "Asia/Kathmandu"
NEW_YORK, LORD_HOWE = "America/New_York", "Australia/Lord_Howe"
MakeCallsAt = Callable[[ApiKey, Iterable[datetime]], None]
MICROSECOND = timedelta(microseconds=1)

# The first moment of a month where the account is.
MONTH_STARTS = [
    (KIRITIMATI, "2024-02-29T10:00Z", "2024-03"),
    (KIRITIMATI, "2023-12-31T10:00Z", "2024-01"),
    (KATHMANDU, "2024-02-29T18:15Z", "2024-03"),
    (KATHMANDU, "2025-02-28T18:15Z", "2025-03"),
    (NEW_YORK, "2024-03-01T05:00Z", "2024-03"),
    (NEW_YORK, "2024-04-01T04:00Z", "2024-04"),
    (NEW_YORK, "2024-11-01T04:00Z", "2024-11"),
    (NEW_YORK, "2024-12-01T05:00Z", "2024-12"),
    (LORD_HOWE, "2024-03-31T13:00Z", "2024-04"),
    (LORD_HOWE, "2024-04-30T13:30Z", "2024-05"),
    (LORD_HOWE, "2024-09-30T13:30Z", "2024-10"),
    (LORD_HOWE, "2024-10-31T13:00Z", "2024-11"),
]

# Days on which the clocks change: forward, then back. By an hour; on Lord Howe by half of one.
LONG_AND_SHORT_DAYS = [
    (NEW_YORK, date(2024, 3, 10), 23 * 4),
    (NEW_YORK, date(2024, 11, 3), 25 * 4),
    (LORD_HOWE, date(2024, 10, 6), 23 * 4 + 2),
    (LORD_HOWE, date(2024, 4, 7), 24 * 4 + 2),
    (KATHMANDU, date(2024, 2, 29), 24 * 4),
    (KIRITIMATI, date(2024, 2, 29), 24 * 4),
]


@pytest.fixture
def make_calls_at(monkeypatch: pytest.MonkeyPatch) -> MakeCallsAt:
    """Opened and closed at each of the moments, through the books, with that for the database's clock."""
    read = BatchSession.read

    def make(key: ApiKey, moments: Iterable[datetime]) -> None:
        for moment in moments:
            call, clock = an_open(key), partial(replace, now=moment)
            with monkeypatch.context() as patch:
                patch.setattr(BatchSession, "read", lambda *args, _clock=clock, **named: _clock(read(*args, **named)))
                results = commit_batch([call, a_close(call.id)])
            assert results == [Opened(moment), Closed()]

    return make


def key_in(zone: str) -> ApiKey:
    return make_key(make_account(zone, time_zone=zone))


@pytest.mark.parametrize(("zone", "start", "month"), MONTH_STARTS)
def test_a_month_begins_at_midnight_where_the_account_is(
    make_calls_at: MakeCallsAt, zone: str, start: str, month: str
) -> None:
    key, moment, period = key_in(zone), datetime.fromisoformat(start), BillingPeriod.parse(month)
    make_calls_at(key, [moment - MICROSECOND, moment, moment + MICROSECOND])
    refresh()
    assert [sums.calls for sums in usage_sums(key.account_id, period.previous)] == [1]
    assert [sums.calls for sums in usage_sums(key.account_id, period)] == [2]
    assert set(DailyUsage.objects.values_list("local_day", flat=True)) == {period.previous.last_day, period.start}


@pytest.mark.parametrize(("zone", "day", "quarters"), LONG_AND_SHORT_DAYS)
def test_a_day_is_as_long_as_its_clock_makes_it(
    make_calls_at: MakeCallsAt, zone: str, day: date, quarters: int
) -> None:
    key = key_in(zone)
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=1)
    moments = [start + timedelta(minutes=15) * number for number in range(4 * 24 * 4)]
    make_calls_at(key, moments)
    refresh()
    calls = dict(DailyUsage.objects.values_list("local_day", "calls"))
    assert calls[day] == quarters
    assert sum(calls.values()) == len(moments)
    assert calls == Counter(moment.astimezone(ZoneInfo(zone)).date() for moment in moments)


def test_a_year_of_moments_is_in_its_months_once(make_calls_at: MakeCallsAt) -> None:
    zones = (KIRITIMATI, KATHMANDU, NEW_YORK, LORD_HOWE)
    keys = {zone: key_in(zone) for zone in zones}
    start = datetime(2023, 12, 30, tzinfo=UTC)
    moments = [start + timedelta(hours=31, minutes=45) * number for number in range(285)]
    for key in keys.values():
        make_calls_at(key, moments)
    refresh()
    for zone, key in keys.items():
        months = Counter(BillingPeriod.of(moment.astimezone(ZoneInfo(zone)).date()) for moment in moments)
        found = {period: sum(sums.calls for sums in usage_sums(key.account_id, period)) for period in months}
        assert found == months

"""The periods of limits, over all time zones and every change of their clocks that is known for years to come."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from llm.enums import LimitPer
from llm.limits import periods
from llm.limits.periods import EVER, LimitPeriod, period_of

ZONES = sorted(zoneinfo.available_timezones())
FIRST, LAST = datetime(2024, 1, 1), datetime(2038, 1, 1)  # noqa: DTZ001 - hypothesis adds the zone
SECOND = timedelta(seconds=1)
# Its clocks move by half an hour: two of its hours in a year are cut.
HALF_HOUR_ZONES = {"Australia/Lord_Howe", "Australia/LHI"}

moments = st.datetimes(FIRST, LAST, timezones=st.just(UTC))
zones = st.sampled_from(ZONES)


def fresh_period(per: str, zone: str, moment: datetime) -> LimitPeriod:
    """Of a process that has computed no other period yet."""
    periods._latest.clear()
    return period_of(per, zone, moment)


def clock_changes(zone: str) -> Iterator[datetime]:
    """The moments, to the second, from which on another offset holds."""
    info = ZoneInfo(zone)
    earlier = FIRST.replace(tzinfo=UTC)
    while earlier.year < 2030:
        later = earlier + timedelta(days=7)
        if earlier.astimezone(info).utcoffset() != later.astimezone(info).utcoffset():
            low, high = earlier, later
            while high - low > SECOND:
                middle = low + (high - low) // 2
                if middle.astimezone(info).utcoffset() == earlier.astimezone(info).utcoffset():
                    low = middle
                else:
                    high = middle
            yield high.replace(microsecond=0)
        earlier = later


def check(per: LimitPer, zone: str, moment: datetime) -> None:
    """Whatever the period: the moment is in it, its neighbours touch it, and all its moments agree on it."""
    period = fresh_period(per, zone, moment)
    assert period.ends_at is not None
    assert period.starts_at.tzinfo is period.ends_at.tzinfo is UTC
    assert period.contains(moment)
    assert fresh_period(per, zone, period.starts_at) == period
    assert fresh_period(per, zone, period.ends_at - timedelta(microseconds=1)) == period
    assert fresh_period(per, zone, period.starts_at - timedelta(microseconds=1)).ends_at == period.starts_at
    assert fresh_period(per, zone, period.ends_at).starts_at == period.ends_at


@given(st.sampled_from([LimitPer.MINUTE, LimitPer.HOUR, LimitPer.DAY, LimitPer.MONTH]), zones, moments)
@example(LimitPer.DAY, "America/Havana", datetime(2025, 11, 2, 4, 30, tzinfo=UTC))
@example(LimitPer.DAY, "Africa/Cairo", datetime(2025, 4, 24, 22, 30, tzinfo=UTC))
@example(LimitPer.MONTH, "Africa/Cairo", datetime(2026, 10, 29, 21, 30, tzinfo=UTC))
@example(LimitPer.HOUR, "Asia/Kathmandu", datetime(2026, 11, 20, 12, 20, tzinfo=UTC))
def test_periods_follow_each_other_without_gap_or_overlap(per: LimitPer, zone: str, moment: datetime) -> None:
    check(per, zone, moment)


@pytest.mark.slow
@pytest.mark.parametrize("per", [LimitPer.MINUTE, LimitPer.HOUR, LimitPer.DAY, LimitPer.MONTH])
def test_periods_follow_each_other_around_every_change_of_a_clock(per: LimitPer) -> None:
    changes = 0
    for zone in ZONES:
        for change in clock_changes(zone):
            changes += 1
            for moment in (change - SECOND, change, change + timedelta(minutes=31)):
                check(per, zone, moment)
    assert changes > 1000


@pytest.mark.parametrize(
    ("moment", "starts_at", "ends_at"),
    [
        # In April 02:00 becomes 01:30 at 15:00 UTC; in October 02:00 becomes 02:30 at 15:30 UTC.
        ("2026-04-04T14:59:59.999999Z", "2026-04-04T14:00Z", "2026-04-04T15:00Z"),
        ("2026-04-04T15:00Z", "2026-04-04T15:00Z", "2026-04-04T15:30Z"),
        ("2026-04-04T15:30Z", "2026-04-04T15:30Z", "2026-04-04T16:30Z"),
        ("2026-10-03T15:29Z", "2026-10-03T14:30Z", "2026-10-03T15:30Z"),
        ("2026-10-03T15:30:00.000001Z", "2026-10-03T15:30Z", "2026-10-03T16:00Z"),
    ],
)
def test_an_hour_is_cut_where_a_clock_moves_by_half_an_hour(moment: str, starts_at: str, ends_at: str) -> None:
    period = LimitPeriod(datetime.fromisoformat(starts_at), datetime.fromisoformat(ends_at))
    assert fresh_period(LimitPer.HOUR, "Australia/Lord_Howe", datetime.fromisoformat(moment)) == period


@given(zones, moments)
def test_days_and_months_are_those_of_the_calendar_on_the_wall(zone: str, moment: datetime) -> None:
    info = ZoneInfo(zone)
    today = moment.astimezone(info).date()
    for per, first in ((LimitPer.DAY, today), (LimitPer.MONTH, today.replace(day=1))):
        starts_at = fresh_period(per, zone, moment).starts_at
        assert starts_at.astimezone(info).date() == first
        assert (starts_at - timedelta(microseconds=1)).astimezone(info).date() < first


@given(zones, moments)
def test_an_hour_begins_with_minute_zero_on_the_wall(zone: str, moment: datetime) -> None:
    assume(zone not in HALF_HOUR_ZONES)
    starts_at, ends_at = fresh_period(LimitPer.HOUR, zone, moment)
    assert ends_at is not None
    assert ends_at - starts_at == timedelta(hours=1)
    local = starts_at.astimezone(ZoneInfo(zone))
    assert (local.minute, local.second, local.microsecond) == (0, 0, 0)


@given(zones, moments)
def test_minutes_are_the_same_everywhere(zone: str, moment: datetime) -> None:
    starts_at = moment.replace(second=0, microsecond=0)
    assert fresh_period(LimitPer.MINUTE, zone, moment) == LimitPeriod(starts_at, starts_at + timedelta(minutes=1))


@given(zones, moments)
def test_a_limit_in_all_has_one_period(zone: str, moment: datetime) -> None:
    assert fresh_period(LimitPer.TOTAL, zone, moment) == LimitPeriod(EVER, None)
    assert LimitPeriod(EVER, None).contains(moment)


@given(st.sampled_from(LimitPer), zones, moments, moments)
def test_a_period_does_not_depend_on_which_were_asked_for_before(
    per: LimitPer, zone: str, before: datetime, moment: datetime
) -> None:
    expected = fresh_period(per, zone, moment)
    period_of(per, zone, before)
    assert period_of(per, zone, moment) == expected


@given(st.sampled_from(LimitPer), zones, moments, zones)
def test_the_zone_in_which_a_moment_is_written_is_no_matter(
    per: LimitPer, zone: str, moment: datetime, written_in: str
) -> None:
    assert fresh_period(per, zone, moment.astimezone(ZoneInfo(written_in))) == fresh_period(per, zone, moment)


@pytest.mark.parametrize(
    ("zone", "day", "starts_at", "hours"),
    [
        ("UTC", date(2026, 11, 20), datetime(2026, 11, 20, tzinfo=UTC), 24),
        ("Asia/Kathmandu", date(2026, 11, 20), datetime(2026, 11, 19, 18, 15, tzinfo=UTC), 24),
        ("Europe/Lisbon", date(2026, 3, 29), datetime(2026, 3, 29, tzinfo=UTC), 23),
        ("Europe/Lisbon", date(2026, 10, 25), datetime(2026, 10, 24, 23, tzinfo=UTC), 25),
        # No midnight: clocks go from 0:00 to 1:00. And two of them: from 1:00 to 0:00.
        ("Africa/Cairo", date(2026, 4, 24), datetime(2026, 4, 23, 22, tzinfo=UTC), 23),
        ("America/Havana", date(2026, 11, 1), datetime(2026, 11, 1, 4, tzinfo=UTC), 25),
        ("Australia/Lord_Howe", date(2026, 4, 5), datetime(2026, 4, 4, 13, tzinfo=UTC), 24.5),
        # The day before was left out altogether.
        ("Pacific/Apia", date(2011, 12, 31), datetime(2011, 12, 30, 10, tzinfo=UTC), 24),
    ],
)
def test_days_as_the_almanac_has_them(zone: str, day: date, starts_at: datetime, hours: float) -> None:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(zone))
    assert fresh_period(LimitPer.DAY, zone, noon) == LimitPeriod(starts_at, starts_at + timedelta(hours=hours))


def test_an_hour_that_comes_twice_is_two_periods() -> None:
    first = fresh_period(LimitPer.HOUR, "Europe/Lisbon", datetime(2026, 10, 25, 0, 30, tzinfo=UTC))
    second = fresh_period(LimitPer.HOUR, "Europe/Lisbon", datetime(2026, 10, 25, 1, 30, tzinfo=UTC))
    assert [period.starts_at.hour for period in (first, second)] == [0, 1]
    local = [period.starts_at.astimezone(ZoneInfo("Europe/Lisbon")).hour for period in (first, second)]
    assert local == [1, 1]


def test_a_month_begins_at_the_midnight_of_the_zone() -> None:
    moment = datetime(2026, 11, 30, 18, 15, tzinfo=UTC)
    assert fresh_period(LimitPer.MONTH, "Asia/Kathmandu", moment) == LimitPeriod(
        moment, datetime(2026, 12, 31, 18, 15, tzinfo=UTC)
    )
    before = fresh_period(LimitPer.MONTH, "Asia/Kathmandu", moment - timedelta(microseconds=1))
    assert before == LimitPeriod(datetime(2026, 10, 31, 18, 15, tzinfo=UTC), moment)


def test_a_period_contains_its_start_and_not_its_end() -> None:
    period = LimitPeriod(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))
    assert period.contains(datetime(2026, 1, 1, tzinfo=UTC))
    assert not period.contains(datetime(2026, 1, 2, tzinfo=UTC))
    assert not period.contains(datetime(2025, 12, 31, tzinfo=UTC))

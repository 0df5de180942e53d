"""When the periods of limits begin and end in an account's time zone. Pure."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from llm.enums import LimitPer

EVER = datetime(1970, 1, 1, tzinfo=UTC)
"""The beginning of a lifetime limit's only period."""
_SECOND, _MINUTE, _HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


class LimitPeriod(NamedTuple):
    """The half-open interval from starts_at to ends_at, both aware UTC. ends_at: None for a period without an end."""

    starts_at: datetime
    ends_at: datetime | None

    def contains(self, moment: datetime) -> bool:
        return self.starts_at <= moment and (self.ends_at is None or moment < self.ends_at)


_latest: dict[tuple[str, str], LimitPeriod] = {}


def period_of(per: str, time_zone: str, moment: datetime) -> LimitPeriod:
    """The period containing the moment. Minutes are the same everywhere; hours, days and months are the zone's own."""
    period = _latest.get((per, time_zone))
    if period is None or not period.contains(moment):
        period = _latest[per, time_zone] = _period_of(LimitPer(per), _zone(time_zone), moment)
    return period


def _period_of(per: LimitPer, zone: ZoneInfo, moment: datetime) -> LimitPeriod:
    moment = moment.astimezone(UTC)
    if per is LimitPer.TOTAL:
        return LimitPeriod(EVER, None)
    if per is LimitPer.MINUTE:
        starts_at = _start(moment, _MINUTE, timedelta())
        return LimitPeriod(starts_at, starts_at + _MINUTE)
    if per is LimitPer.HOUR:
        return _hour(moment, zone)
    today = moment.astimezone(zone).date()
    first = today if per is LimitPer.DAY else today.replace(day=1)
    after = first + timedelta(days=1) if per is LimitPer.DAY else (first + timedelta(days=32)).replace(day=1)
    return LimitPeriod(_midnight(first, zone), _midnight(after, zone))


def _hour(moment: datetime, zone: ZoneInfo) -> LimitPeriod:
    """By the current offset: when clocks go back, the repeated hour is two periods.

    It is split if the offset changes within it, as on Lord Howe Island, whose clocks move by half an hour.
    """
    offset, second = _offset(moment, zone), moment.replace(microsecond=0)
    starts_at = _start(moment, _HOUR, offset)
    ends_at = starts_at + _HOUR
    last = ends_at - _SECOND
    if _offset(starts_at, zone) != offset:
        starts_at = _change(zone, starts_at, second)
    if _offset(last, zone) != offset:
        ends_at = _change(zone, second, last)
    return LimitPeriod(starts_at, ends_at)


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first second with the offset that is in force at `after`; the clock changes between the two, given in whole
    seconds.
    """
    offset, seconds = _offset(after, zone), range(int((after - before) / _SECOND))
    first = bisect_left(seconds, True, key=lambda each: _offset(before + each * _SECOND, zone) == offset)  # noqa: FBT003
    return before + first * _SECOND


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _start(moment: datetime, length: timedelta, offset: timedelta) -> datetime:
    return moment - (moment + offset - EVER) % length


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The day's first moment; if clocks skip midnight, the moment at which they do."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)

"""Where the periods of limits begin and end in an account's time zone. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from llm.enums import LimitPer

EVER = datetime(1970, 1, 1, tzinfo=UTC)
"""Where the one period of a limit "in all" begins."""


class Period(NamedTuple):
    """From starts_at on, up to but without ends_at; both aware UTC. ends_at: None for a period without an end."""

    starts_at: datetime
    ends_at: datetime | None

    def contains(self, moment: datetime) -> bool:
        return self.starts_at <= moment and (self.ends_at is None or moment < self.ends_at)


_latest: dict[tuple[str, str], Period] = {}


def period_of(per: str, time_zone: str, moment: datetime) -> Period:
    """The period that the moment is in. Minutes are the same everywhere; hours, days and months are the zone's own."""
    period = _latest.get((per, time_zone))
    if period is None or not period.contains(moment):
        period = _latest[per, time_zone] = _period_of(LimitPer(per), _zone(time_zone), moment)
    return period


def _period_of(per: LimitPer, zone: ZoneInfo, moment: datetime) -> Period:
    moment = moment.astimezone(UTC)
    if per is LimitPer.TOTAL:
        return Period(EVER, None)
    if per is LimitPer.MINUTE:
        return _fixed(moment, timedelta(minutes=1), timedelta())
    local = moment.astimezone(zone)
    if per is LimitPer.HOUR:
        # By the offset in force: where clocks go back, the hour that comes twice is two periods.
        return _fixed(moment, timedelta(hours=1), local.utcoffset() or timedelta())
    first = local.date() if per is LimitPer.DAY else local.date().replace(day=1)
    after = first + timedelta(days=1) if per is LimitPer.DAY else (first + timedelta(days=32)).replace(day=1)
    return Period(_midnight(first, zone), _midnight(after, zone))


def _fixed(moment: datetime, length: timedelta, offset: timedelta) -> Period:
    since = (moment + offset - EVER) % length
    return Period(moment - since, moment - since + length)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The day's first moment; where clocks skip midnight, that is the moment at which they do."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)

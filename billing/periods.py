"""A billing period: a calendar month of an account's own days. Pure.

Each call has one `local_day`, frozen when it was opened, so it belongs to exactly one period even if the account's time
zone changes. No moments or time zones are converted here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

_LABEL = re.compile(r"(\d{4})-(0[1-9]|1[0-2])", re.ASCII)
# With a margin on both sides: months before and after are computed too, and the calendar has no year 0 or 10000.
_FIRST_YEAR, _LAST_YEAR = 2000, 2999
_MONTHS = (
    "January February March April May June July August September October November December".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True, order=True)
class BillingPeriod:
    """start: the first day of the month."""

    start: date

    def __post_init__(self) -> None:
        if self.start.day != 1:
            raise ValueError(f"a period starts on the first of a month, not on {self.start}")

    @classmethod
    def parse(cls, text: str) -> BillingPeriod:
        """`2026-10`, from 2000-01 to 2999-12. Raises ValueError with a sentence."""
        match = _LABEL.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"“{text}” is not a month such as 2026-10")
        if not _FIRST_YEAR <= int(match[1]) <= _LAST_YEAR:
            raise ValueError(f"“{text}” is not a month from {_FIRST_YEAR}-01 to {_LAST_YEAR}-12")
        return cls(date(int(match[1]), int(match[2]), 1))

    @classmethod
    def of(cls, day: date) -> BillingPeriod:
        return cls(day.replace(day=1))

    @property
    def end(self) -> date:
        """The first day after it."""
        return (self.start + timedelta(days=31)).replace(day=1)

    @property
    def last_day(self) -> date:
        return self.end - timedelta(days=1)

    @property
    def days(self) -> Iterator[date]:
        return (self.start + timedelta(days=offset) for offset in range((self.end - self.start).days))

    @property
    def following(self) -> BillingPeriod:
        return BillingPeriod(self.end)

    @property
    def previous(self) -> BillingPeriod:
        return BillingPeriod.of(self.start - timedelta(days=1))

    def __str__(self) -> str:
        return f"{self.start:%Y-%m}"


def months_between(first: BillingPeriod, last: BillingPeriod) -> Iterator[BillingPeriod]:
    """Both inclusive; empty if the last is before the first."""
    period = first
    while period <= last:
        yield period
        period = period.following


class Third(NamedTuple):
    """Days 1 to 10 of a month, 11 to 20, or the rest; both bounds inclusive."""

    first: date
    last: date

    @classmethod
    def of(cls, day: date) -> Third:
        number = min((day.day - 1) // 10, 2)
        first = day.replace(day=10 * number + 1)
        return cls(first, BillingPeriod.of(day).last_day if number == 2 else first + timedelta(days=9))


def month_name(day: date) -> str:
    """In English, under every locale."""
    return _MONTHS[day.month - 1]

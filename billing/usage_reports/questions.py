"""What the usage explorer is asked: which usage, of which days, by what. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from billing.enums import OutcomeGroup
from billing.periods import BillingPeriod
from billing.usage_reports.measures import UsageMeasures
from llm.enums import FAILED_OUTCOMES, CallOutcome

MAX_DAYS_OF_CALLS = 7
"""How many days are read call by call."""
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)


class TooMuchUsageError(Exception):
    """More would have to be read than a page may. The message says how much, and what to do."""


class Dimension(StrEnum):
    TIME = "time"
    ACCOUNT = "account"
    KEY = "key"
    MODEL = "model"
    PROVIDER = "provider"
    INSTANCE = "instance"
    OUTCOME = "outcome"
    END_USER = "end_user"
    TAG = "tag"


FINER_IN_CALLS = frozenset((Dimension.OUTCOME, Dimension.END_USER))
"""What days know less of than calls: three groups of outcomes, and each day's dearest end users."""


class Unit(StrEnum):
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Measure(StrEnum):
    """What the chart draws and the dearest are found by: names of `UsageMeasures`."""

    COST = "cost"
    CALLS = "calls"
    PROMPT = "prompt_tokens"
    COMPLETION = "completion_tokens"
    FAILED = "failed_calls"

    def of(self, figures: UsageMeasures) -> Any:
        return getattr(figures, self.value)


MEASURES_OF_END_USERS = frozenset((Measure.COST, Measure.CALLS, Measure.PROMPT, Measure.COMPLETION))
"""Those that `EndUserDay` has."""

Bucket = date | datetime
"""The first day of a day, week or month; an hour's beginning, in UTC."""


_GROUPS: Mapping[frozenset[str], str] = {
    frozenset((CallOutcome.OK.value,)): OutcomeGroup.OK.value,
    frozenset((CallOutcome.CLIENT_GONE.value,)): OutcomeGroup.CLIENT_GONE.value,
    frozenset(outcome.value for outcome in FAILED_OUTCOMES): OutcomeGroup.FAILED.value,
}


@dataclass(frozen=True, slots=True)
class Filters:
    """Empty collections and None choose all. tag: key and value."""

    account_id: int | None = None
    api_key_ids: Collection[int] = ()
    provider: str | None = None
    model: str | None = None
    outcomes: Collection[str] = ()
    end_users: Collection[str] = ()
    tag: tuple[str, str] | None = None
    instance: str | None = None

    @property
    def narrowed(self) -> Mapping[str, Any]:
        """Conditions of days' rows, by column."""
        wanted = {
            "account_id": self.account_id,
            "provider": self.provider,
            "provider_instance": self.instance,
            "model": self.model,
            "outcome_group": self.outcome_group,
        }
        found = {name: value for name, value in wanted.items() if value is not None}
        return {**found, "api_key_id": self.api_key_ids} if self.api_key_ids else found

    @property
    def outcome_group(self) -> str | None:
        """The group of these outcomes that days know; None for any, or where it has others too."""
        return _GROUPS.get(frozenset(self.outcomes))

    @property
    def is_of_calls(self) -> bool:
        """Whether no day can tell."""
        return bool(self.end_users or self.tag or (self.outcomes and self.outcome_group is None))


@dataclass(frozen=True, slots=True)
class Question:
    """Usage from `first` to `last`, both included, by `by` and within that by `then`.

    tag_key: whose values are meant by Dimension.TAG. zone: whose days and hours these are, as far as it is one.
    prefers_calls: whether the calls of few days are read where they tell more than days.
    """

    first: date
    last: date
    filters: Filters = Filters()
    by: Dimension = Dimension.TIME
    then: Dimension | None = None
    unit: Unit = Unit.DAY
    measure: Measure = Measure.COST
    tag_key: str = ""
    zone: str = "UTC"
    prefers_calls: bool = True

    @property
    def needs_calls(self) -> bool:
        """Whether the calls themselves are read: since no day tells, or of few days since they tell more."""
        is_finer = bool(FINER_IN_CALLS & {self.by, self.then} or self.filters.outcomes)
        return self.must_read_calls or (is_finer and self.prefers_calls and self.days <= MAX_DAYS_OF_CALLS)

    @property
    def must_read_calls(self) -> bool:
        return (
            self.unit == Unit.HOUR
            or Dimension.TAG in (self.by, self.then)
            or self.filters.is_of_calls
            or (Dimension.END_USER in (self.by, self.then) and not self.is_of_end_user_days)
        )

    @property
    def is_of_end_user_days(self) -> bool:
        """Whether the days' end users can tell: those of accounts, and nothing else of them."""
        narrowed = self.filters.narrowed.keys() - {"account_id"}
        knows = self.measure in MEASURES_OF_END_USERS
        return self.by == Dimension.END_USER and self.then is None and not narrowed and knows

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def buckets(self) -> Sequence[Bucket]:
        """Every one of the period, in order, whether anything was used in it or not."""
        if self.unit == Unit.HOUR:
            return self._hours
        starts = (bucket_of(self.first + _DAY * number, self.unit) for number in range(self.days))
        return list(dict.fromkeys(starts))

    @property
    def _hours(self) -> Sequence[datetime]:
        """From midnight to midnight of the zone; where that isn't a full hour of UTC, from the hour that holds it."""
        start, end = (
            datetime.combine(day, time(), ZoneInfo(self.zone)).astimezone(UTC) for day in (self.first, self.last + _DAY)
        )
        start = start.replace(minute=0)
        return [start + _HOUR * number for number in range(-(-(end - start) // _HOUR))]

    def days_of(self, bucket: Bucket) -> tuple[date, date]:
        """The first and the last day that a bucket has within the period."""
        if isinstance(bucket, datetime):
            day = min(max(bucket.astimezone(ZoneInfo(self.zone)).date(), self.first), self.last)
            return day, day
        last = {Unit.WEEK: bucket + _DAY * 6, Unit.MONTH: BillingPeriod.of(bucket).last_day}.get(self.unit, bucket)
        return max(bucket, self.first), min(last, self.last)

    @property
    def before(self) -> Question:
        """The same of the period before: of a calendar month, or its beginning, the month before; else as many days."""
        month = BillingPeriod.of(self.first)
        if self.first == month.start and self.last <= month.last_day:
            earlier = month.previous
            whole = self.last == month.last_day
            last = earlier.last_day if whole else min(earlier.start + (self.last - self.first), earlier.last_day)
            return replace(self, first=earlier.start, last=last)
        return replace(self, first=self.first - _DAY * self.days, last=self.first - _DAY)


def bucket_of(day: date, unit: Unit) -> date:
    if unit == Unit.MONTH:
        return day.replace(day=1)
    return day - _DAY * day.weekday() if unit == Unit.WEEK else day

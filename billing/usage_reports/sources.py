"""Where the explorer's figures come from: days and what they don't hold yet, or the calls themselves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from django.db.models import Count, Max, Min, QuerySet, Sum
from django.utils import timezone

from billing.models import DailyUsage, EndUserDay, RollupMark
from billing.models.rollups import COST_FIELDS
from billing.rollup import CallKey, ChosenCalls, count_calls, rows_with, sum_calls
from billing.usage_reports.measures import DAY_FIELDS, UsageMeasures, added, read_cells
from billing.usage_reports.questions import Bucket, Dimension, Measure, Question, TooMuchUsageError, Unit, bucket_of
from llm.fields import ExactSum
from llm.money import exact_arithmetic

MAX_CALLS = 100_000
"""How many calls a page reads one by one: about half a second's worth, with the period before."""
MAX_UNSUMMED_CALLS = 50_000
"""How many calls that no day holds yet are added to days."""
MAX_GROUPS = 50_000
MAX_END_USER_ROWS = 100_000
MAX_DAY_ROWS = 1_000_000
DAYS_UNCOUNTED = 92
"""Of so many days, rows of all accounts are read without a look at how many there are."""

Key = tuple[Any, ...]
"""Values of dimensions, in their order: a `Bucket`, ids, names, and None for calls without the tag."""
Sums = Mapping[Key, UsageMeasures]

_COLUMNS: Mapping[Dimension, str] = {
    Dimension.TIME: "local_day",
    Dimension.ACCOUNT: "account_id",
    Dimension.KEY: "api_key_id",
    Dimension.MODEL: "model",
    Dimension.PROVIDER: "provider",
    Dimension.INSTANCE: "provider_instance",
    Dimension.OUTCOME: "outcome_group",
}
_CALL_KEYS: Mapping[Dimension, CallKey] = {
    Dimension.TIME: "day",
    Dimension.ACCOUNT: "account_id",
    Dimension.KEY: "api_key_id",
    Dimension.MODEL: "model",
    Dimension.PROVIDER: "provider",
    Dimension.INSTANCE: "provider_instance",
    Dimension.OUTCOME: "outcome",
    Dimension.END_USER: "end_user",
    Dimension.TAG: "tag",
}
_UNSUMMED = tuple(_COLUMNS)
_OF_END_USERS = (Dimension.TIME, Dimension.ACCOUNT, Dimension.END_USER)
_END_USER_FIELDS = ("calls", "unpriced_calls", "prompt_tokens", "completion_tokens", "cost")
REST = "*"
"""In place of an end user: all but the dearest of their days. No hash is that."""


class Only(NamedTuple):
    dimension: Dimension
    values: Collection[Any]


class Source(Protocol):
    """Of one question's period and filters."""

    def sums(self, *dimensions: Dimension, only: Only | None = None) -> Sums: ...

    def ranks(self, dimension: Dimension, measure: Measure) -> Mapping[Any, tuple[Any, int]]:
        """The measure and the calls of each value that has any usage."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Figures in memory, by dimensions. rows: of a group there may be several."""

    dimensions: Sequence[Dimension]
    rows: Sequence[tuple[Key, UsageMeasures]]

    def sums(self, *dimensions: Dimension, only: Only | None = None) -> Sums:
        return added(list(self.chosen(dimensions, only)), lambda key: key)

    def ranks(self, dimension: Dimension, measure: Measure) -> Mapping[Any, tuple[Any, int]]:
        return {key[0]: (measure.of(found), found.calls) for key, found in self.sums(dimension).items()}

    def chosen(self, dimensions: Sequence[Dimension], only: Only | None) -> Iterable[tuple[Key, UsageMeasures]]:
        places = [self.dimensions.index(dimension) for dimension in dimensions]
        wanted = None if only is None else (self.dimensions.index(only.dimension), set(only.values))
        for key, figures in self.rows:
            if wanted is None or key[wanted[0]] in wanted[1]:
                yield tuple(key[place] for place in places), figures


class Marks(NamedTuple):
    """Up to when days are known, over the question's accounts."""

    oldest: datetime | None
    latest: datetime | None
    known: int
    all: int


@dataclass(frozen=True, slots=True)
class Unsummed:
    """Calls that no day holds yet, by what days are summed up by, or by end user. as_of: what the days with them hold.

    is_live: False where there are too many to add; then they are not in.
    """

    cells: Cells
    as_of: datetime | None
    is_live: bool
    marks: Marks


class DaysSource:
    """Days, and the calls since."""

    def __init__(self, question: Question, unsummed: Unsummed) -> None:
        self._question, self._is_few = question, False
        self._unsummed = Cells(
            unsummed.cells.dimensions,
            [
                ((bucket_of(key[0], question.unit), *key[1:]), figures)
                for key, figures in unsummed.cells.rows
                if question.first <= key[0] <= question.last
            ],
        )

    def sums(self, *dimensions: Dimension, only: Only | None = None) -> Sums:
        columns = [_COLUMNS[dimension] for dimension in dimensions]
        rows = read_cells(self._rows(columns, only), *columns)
        bucketed = [(self._bucketed(dimensions, key), figures) for key, figures in rows]
        return added([*bucketed, *self._unsummed.chosen(dimensions, only)], lambda key: key)

    def ranks(self, dimension: Dimension, measure: Measure) -> Mapping[Any, tuple[Any, int]]:
        """Without the other figures, since most of what those take is to read rows that nobody will see."""
        found: defaultdict[Any, tuple[Any, int]] = defaultdict(
            lambda: (Decimal(0) if measure == Measure.COST else 0, 0)
        )
        total = ExactSum if measure.value in COST_FIELDS else Sum
        with exact_arithmetic():
            for rows in self._rows([_COLUMNS[dimension]], None):
                for value, some, calls in rows.values_list(_COLUMNS[dimension]).annotate(
                    total(measure.value), Sum("calls")
                ):
                    found[value] = found[value][0] + some, found[value][1] + calls
            for value, (some, calls) in self._unsummed.ranks(dimension, measure).items():
                found[value] = found[value][0] + some, found[value][1] + calls
        return found

    def _rows(self, columns: Sequence[str], only: Only | None) -> list[QuerySet[Any]]:
        narrowed = self._question.filters.narrowed
        wanted = {name: value for name, value in narrowed.items() if name != "api_key_id"}
        if "api_key_id" in narrowed:
            wanted["api_key_id__in"] = narrowed["api_key_id"]
        if only is not None:
            wanted[f"{_COLUMNS[only.dimension]}__in"] = list(only.values)
        found = rows_with(*narrowed, *columns, days=(self._question.first, self._question.last))
        if found[0].model is DailyUsage and not _is_indexed(wanted):
            self._require_few(found[0])
        return [rows.filter(**wanted) for rows in found]

    def _require_few(self, rows: QuerySet[Any]) -> None:
        """Raises TooMuchUsageError. rows: days of all accounts, which no sums of days stand in for."""
        if self._is_few or self._question.days <= DAYS_UNCOUNTED:
            return
        if rows.values("pk")[: MAX_DAY_ROWS + 1].count() > MAX_DAY_ROWS:
            raise TooMuchUsageError(
                f"This takes more than {MAX_DAY_ROWS:,} daily totals to answer. Choose at most {DAYS_UNCOUNTED} days, "
                "one account, or one dimension instead of two."
            )
        self._is_few = True

    def _bucketed(self, dimensions: Sequence[Dimension], key: Key) -> Key:
        unit = self._question.unit
        pairs = zip(dimensions, key, strict=True)
        return tuple(bucket_of(value, unit) if each == Dimension.TIME else value for each, value in pairs)


def read_end_users(question: Question, unsummed: Unsummed) -> Cells:
    """Of end users' days, and the calls since. Raises TooMuchUsageError."""
    rows = EndUserDay.objects.filter(local_day__range=(question.first, question.last))
    if question.filters.account_id is not None:
        rows = rows.filter(account=question.filters.account_id)
    columns = ("local_day", "account_id", "end_user", "is_rest", *_END_USER_FIELDS)
    found = list(rows.order_by().values_list(*columns)[: MAX_END_USER_ROWS + 1])
    if len(found) > MAX_END_USER_ROWS:
        raise TooMuchUsageError(
            f"There are more than {MAX_END_USER_ROWS:,} days of end users to add up. Choose one account, or fewer days."
        )
    unit = question.unit
    cells: list[tuple[Key, UsageMeasures]] = [
        (
            (bucket_of(day, unit), account_id, REST if is_rest else end_user),
            UsageMeasures(**dict(zip(_END_USER_FIELDS, figures, strict=True))),
        )
        for day, account_id, end_user, is_rest, *figures in found
    ]
    since = [
        ((bucket_of(key[0], unit), *key[1:]), figures)
        for key, figures in unsummed.cells.rows
        if question.first <= key[0] <= question.last
    ]
    return Cells(_OF_END_USERS, [*cells, *since])


def _is_indexed(wanted: Mapping[str, Any]) -> bool:
    """Whether an index leads to the few days of some accounts or keys."""
    return any(name.startswith(("account_id", "api_key_id")) for name in wanted)


def read_unsummed(question: Question, *, since: date) -> Unsummed:
    """Of days from `since`. Read it before the days: where `marks_now` differs after them, days were refreshed."""
    marks = marks_now(question)
    as_of = timezone.now()
    dimensions = _OF_END_USERS if question.is_of_end_user_days else _UNSUMMED
    if marks.known != marks.all:
        return Unsummed(Cells(dimensions, ()), None, is_live=False, marks=marks)
    calls = replace(_chosen(question), first=since, is_unsummed=True, recorded_after=marks.oldest)
    if count_calls(calls, limit=MAX_UNSUMMED_CALLS + 1) > MAX_UNSUMMED_CALLS:
        return Unsummed(Cells(dimensions, ()), marks.oldest, is_live=False, marks=marks)
    groups = sum_calls(calls, _keys_of_days(dimensions), DAY_FIELDS, limit=MAX_UNSUMMED_CALLS + 1)
    cells = [(group.keys, UsageMeasures(**group.sums)) for group in groups]
    return Unsummed(Cells(dimensions, cells), as_of, is_live=True, marks=marks)


def _keys_of_days(dimensions: Sequence[Dimension]) -> list[CallKey]:
    """As days have them: of outcomes, groups."""
    return ["outcome_group" if each == Dimension.OUTCOME else _CALL_KEYS[each] for each in dimensions]


def lacks_figures(question: Question) -> bool:
    """Whether days of the former shape are among these: no failures, latencies, instances and outcomes are known."""
    rows = DailyUsage.objects.of_former_shape().filter(local_day__range=(question.first, question.last))
    if question.filters.account_id is not None:
        rows = rows.filter(account=question.filters.account_id)
    return rows.exists()


def marks_now(question: Question) -> Marks:
    marks = RollupMark.objects.all()
    if question.filters.account_id is not None:
        marks = marks.filter(account=question.filters.account_id)
    found = marks.aggregate(oldest=Min("cutoff_at"), latest=Max("cutoff_at"), known=Count("cutoff_at"), all=Count("pk"))
    return Marks(**found)


def read_calls(question: Question, *, with_before: bool) -> tuple[Cells, Cells | None]:
    """Those of the period, and of the one before if that isn't too much. Raises TooMuchUsageError."""
    number = count_calls(_chosen(question), limit=MAX_CALLS + 1)
    if number > MAX_CALLS:
        raise TooMuchUsageError(
            f"There are more than {MAX_CALLS:,} calls to read one by one. "
            "Choose fewer days, or one account, key or model."
        )
    found = _read_calls(question)
    left = MAX_CALLS - number
    if not with_before or count_calls(_chosen(question.before), limit=left + 1) > left:
        return found, None
    return found, _read_calls(question.before)


def _read_calls(question: Question) -> Cells:
    calls = _chosen(question)
    dimensions = tuple(dict.fromkeys(each for each in (Dimension.TIME, question.by, question.then) if each))
    groups = sum_calls(calls, _call_keys(dimensions, question.unit), DAY_FIELDS, limit=MAX_GROUPS + 1)
    _require_few_groups(len(groups))
    rows = [(_bucketed(dimensions, each.keys, question.unit), UsageMeasures(**each.sums)) for each in groups]
    return Cells(dimensions, rows)


def _require_few_groups(groups: int) -> None:
    if groups > MAX_GROUPS:
        raise TooMuchUsageError(
            f"These calls fall into more than {MAX_GROUPS:,} groups. Choose days instead of hours, one dimension, or "
            "narrow them down."
        )


def _call_keys(dimensions: Sequence[Dimension], unit: Unit) -> list[CallKey]:
    return ["hour" if each == Dimension.TIME and unit == Unit.HOUR else _CALL_KEYS[each] for each in dimensions]


def _bucketed(dimensions: Sequence[Dimension], key: Key, unit: Unit) -> Key:
    pairs = zip(dimensions, key, strict=True)
    return tuple(_bucket(value, unit) if each == Dimension.TIME else value for each, value in pairs)


def _bucket(value: Bucket, unit: Unit) -> Bucket:
    return value if isinstance(value, datetime) else bucket_of(value, unit)


def _chosen(question: Question) -> ChosenCalls:
    filters = question.filters
    return ChosenCalls(
        first=question.first,
        last=question.last,
        account_id=filters.account_id,
        api_key_ids=filters.api_key_ids,
        provider=filters.provider,
        instance=filters.instance,
        model=filters.model,
        outcomes=filters.outcomes,
        end_users=filters.end_users,
        tag=filters.tag,
        tag_key=question.tag_key,
    )

"""The usage explorer's answer: totals by time, by one dimension and by a second within it, beside the period before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import nsmallest
from typing import Any

from django.utils import timezone

from billing.rollup import room_for_sums
from billing.usage_reports.measures import UsageMeasures, sum_measures
from billing.usage_reports.questions import Bucket, Dimension, Question, TooMuchUsageError
from billing.usage_reports.sources import (
    DaysSource,
    Only,
    Source,
    Sums,
    Unsummed,
    lacks_figures,
    marks_now,
    read_calls,
    read_end_users,
    read_unsummed,
)
from llm.money import exact_arithmetic

MAX_GROUPS_SHOWN = 20
MAX_INNER_SHOWN = 10
_TRIES = 3
NOTHING_USED = UsageMeasures()


@dataclass(frozen=True, slots=True)
class Group:
    """One value of a dimension. before: its measure in the period before; None where that was not asked for.

    series: its measure in each bucket. inner: by the second dimension; inner_others: what is not among them.
    """

    value: Any
    figures: UsageMeasures
    before: Any = None
    series: tuple[Any, ...] = ()
    inner: tuple[Group, ...] = ()
    inner_others: UsageMeasures | None = None


@dataclass(frozen=True, slots=True)
class Exploration:
    """groups: by the question's measure, the largest first; by time: all, in order. others: what is in none of them.

    total_before: None where nothing is compared, also since that would be too many calls to read.
    lacks_days: whether some days are of before there were failures, latencies, instances and outcomes in days.
    as_of: what was recorded until then is in it; None where an account's days are being summed up. is_live: False where
    what was recorded since the last refresh is missing.
    """

    question: Question
    as_of: datetime | None
    is_live: bool
    buckets: tuple[Bucket, ...]
    total: UsageMeasures
    total_before: UsageMeasures | None
    groups: tuple[Group, ...]
    others: Group | None = None
    other_values: int = 0
    lacks_days: bool = False
    reads_calls: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.total.calls or self.total.failed_calls)


def explore(question: Question, *, with_before: bool) -> Exploration:
    """Raises TooMuchUsageError."""
    with room_for_sums():
        if not question.needs_calls:
            return _explore_days(question, with_before=with_before)
        as_of = timezone.now()
        try:
            calls, before = read_calls(question, with_before=with_before)
        except TooMuchUsageError:
            if question.must_read_calls:
                raise
            return _explore_days(replace(question, prefers_calls=False), with_before=with_before)
    return replace(_answer(question, calls, before, as_of, is_live=True), reads_calls=True)


def _explore_days(question: Question, *, with_before: bool) -> Exploration:
    """Days that are refreshed meanwhile hold calls that were read before: then both are read again."""
    for _ in range(_TRIES):
        unsummed, found = _read_days(question, with_before=with_before)
        if not unsummed.cells.rows or marks_now(question) == unsummed.marks:
            return replace(found, lacks_days=lacks_figures(question))
    raise TooMuchUsageError("The days are being refreshed at this moment. Please try again.")


def _read_days(question: Question, *, with_before: bool) -> tuple[Unsummed, Exploration]:
    unsummed = read_unsummed(question, since=question.before.first if with_before else question.first)
    source, before = _source_of_days(question, unsummed), None
    if with_before:
        before = _source_of_days(question.before, unsummed)
    return unsummed, _answer(question, source, before, unsummed.as_of, is_live=unsummed.is_live)


def _source_of_days(question: Question, unsummed: Unsummed) -> Source:
    return read_end_users(question, unsummed) if question.is_of_end_user_days else DaysSource(question, unsummed)


def _answer(
    question: Question, source: Source, before: Source | None, as_of: datetime | None, *, is_live: bool
) -> Exploration:
    by_time = {bucket: figures for (bucket,), figures in source.sums(Dimension.TIME).items()}
    buckets = tuple(sorted({*question.buckets, *by_time}))
    total = sum_measures(by_time.values())
    times = [by_time.get(bucket, NOTHING_USED) for bucket in buckets]
    total_before = None if before is None else sum_measures(before.sums(Dimension.TIME).values())
    parts = _Parts(question, source, before, buckets)
    groups = parts.of_time(times) if question.by == Dimension.TIME else parts.dearest()
    others, other_values = parts.others(times, groups, total_before)
    return Exploration(
        question=question,
        as_of=as_of,
        is_live=is_live,
        buckets=buckets,
        total=total,
        total_before=total_before,
        groups=groups,
        others=others,
        other_values=other_values,
    )


class _Parts:
    """The groups of one answer. buckets: of its period, in order."""

    def __init__(self, question: Question, source: Source, before: Source | None, buckets: Sequence[Bucket]) -> None:
        self._question, self._source, self._before = question, source, before
        self._measure, self._buckets = question.measure, buckets
        self._values = 0

    def of_time(self, times: Sequence[UsageMeasures]) -> tuple[Group, ...]:
        return tuple(Group(bucket, figures) for bucket, figures in zip(self._buckets, times, strict=True))

    def dearest(self) -> tuple[Group, ...]:
        by, then = self._question.by, self._question.then
        ranks = self._source.ranks(by, self._measure)
        self._values = len(ranks)
        top = nsmallest(MAX_GROUPS_SHOWN, ranks, key=lambda value: _rank(value, *ranks[value]))
        only = Only(by, top)
        series = _nested(self._source.sums(by, Dimension.TIME, only=only))
        inner = _nested(self._source.sums(by, then, only=only)) if then and top else {}
        before = {key[0]: found for key, found in self._before.sums(by, only=only).items()} if self._before else None
        return tuple(self._group(value, series[value], inner.get(value, {}), before) for value in top)

    def _group(
        self,
        value: Any,
        by_time: Mapping[Any, UsageMeasures],
        inner: Mapping[Any, UsageMeasures],
        before: Mapping[Any, UsageMeasures] | None,
    ) -> Group:
        measure = self._measure.of
        shown = nsmallest(MAX_INNER_SHOWN, inner, key=lambda each: _rank(each, measure(inner[each]), inner[each].calls))
        rest = [figures for each, figures in inner.items() if each not in {*shown}]
        return Group(
            value,
            sum_measures(by_time.values()),
            before=None if before is None else measure(before.get(value, NOTHING_USED)),
            series=tuple(measure(by_time.get(bucket, NOTHING_USED)) for bucket in self._buckets),
            inner=tuple(Group(each, inner[each]) for each in shown),
            inner_others=sum_measures(rest) if rest else None,
        )

    def others(
        self, times: Sequence[UsageMeasures], groups: Sequence[Group], total_before: UsageMeasures | None
    ) -> tuple[Group | None, int]:
        """What is in the total and in none of the groups, and how many values that is."""
        number = self._values - len(groups)
        if self._question.by == Dimension.TIME or number <= 0:
            return None, 0
        with exact_arithmetic():
            columns = zip(*(each.series for each in groups), strict=True)
            rests = (self._measure.of(all_of) - sum(some) for all_of, some in zip(times, columns, strict=True))
            shown = sum_measures([each.figures for each in groups])
            whole: tuple[Any, ...] = sum_measures(times)
            figures = UsageMeasures._make(a - b for a, b in zip(whole, shown, strict=True))
            before = None
            if total_before is not None:
                before = self._measure.of(total_before) - sum(each.before for each in groups)
            return Group(None, figures, before=before, series=tuple(rests)), number


def _nested(sums: Sums) -> Mapping[Any, dict[Any, UsageMeasures]]:
    found: defaultdict[Any, dict[Any, UsageMeasures]] = defaultdict(dict)
    for (outer, inner), figures in sums.items():
        found[outer][inner] = figures
    return found


def _rank(value: Any, measured: Any, calls: int) -> tuple[Any, ...]:
    return -measured, -calls, str(value)

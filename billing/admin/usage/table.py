"""The explorer's answer as rows of a table, points of a chart and files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from django.utils.safestring import SafeString

from billing.admin.usage.form import label_of
from billing.admin.usage.links import Links
from billing.admin.usage.names import Name, label_of_bucket, names_of, short_label_of_bucket
from billing.exports.cells import Value, exact
from billing.models.rollups import EDGES_MS
from billing.usage_reports import Dimension, Exploration, Group, Measure, RefusedCounts, UsageMeasures
from llm.admin.format import NOTHING, brief_usd, exact_usd, short_count, tokens, usd_at_a_glance

COLOURS = 9
"""Colours that people tell apart; the rest of the chart is one more."""
MEASURES: Mapping[Measure, str] = {
    Measure.COST: "Cost",
    Measure.CALLS: "Calls",
    Measure.PROMPT: "Tokens in",
    Measure.COMPLETION: "Tokens out",
    Measure.FAILED: "Failed",
}
_PERCENT = Decimal(100)


@dataclass(frozen=True, slots=True)
class Row:
    """share, cached and change: in percent, one decimal; None where there is nothing to divide by.

    colour: of the chart's part that holds it; None where no part is its own. url: one dimension down.
    """

    name: Name
    figures: UsageMeasures
    measured: Any
    whole: Any
    before: Any = None
    colour: int | None = None
    url: str = ""
    calls_url: str = ""
    inner: Sequence[Row] = field(default=())
    is_rest: bool = False
    refused: int | None = None

    @property
    def share(self) -> Decimal | None:
        return percent(self.measured, self.whole)

    @property
    def cached(self) -> Decimal | None:
        return percent(self.figures.cache_read_tokens, self.figures.prompt_tokens)

    @property
    def p50(self) -> str:
        return latency_text(self.figures.latency_bucket(50))

    @property
    def p95(self) -> str:
        return latency_text(self.figures.latency_bucket(95))

    @property
    def change(self) -> str:
        """Empty where nothing is compared."""
        return "" if self.before is None else change(self.measured, self.before)


def latency_text(bucket: int | None) -> str:
    """The bucket's edges, since nothing closer is known: 1-2 s."""
    if bucket is None:
        return NOTHING
    if bucket == len(EDGES_MS):
        return f"over {EDGES_MS[-1] // 1000} s"
    upper = EDGES_MS[bucket]
    if bucket == 0:
        return f"up to {upper} ms"
    lower = EDGES_MS[bucket - 1]
    if upper < 1000:
        return f"{lower}\N{EN DASH}{upper} ms"
    return f"{Decimal(lower) / 1000:f}\N{EN DASH}{upper // 1000} s"


def measure_text(measure: Measure, value: Any, *, is_exact: bool = False) -> str:
    """As people read it: brief, or with all of its digits."""
    if measure == Measure.COST:
        return exact_usd(Decimal(value)) if is_exact else brief_usd(Decimal(value))
    return f"{int(value):,}" if is_exact else short_count(int(value))


def percent(part: Any, whole: Any) -> Decimal | None:
    if not whole:
        return None
    return (_PERCENT * Decimal(part) / Decimal(whole)).quantize(Decimal("0.1"))


def change(now: Any, before: Any) -> str:
    """+12.5 %, and words where that says nothing."""
    if not before:
        return "new" if now else "\N{EN DASH}"
    ratio = (_PERCENT * (Decimal(now) - Decimal(before)) / Decimal(before)).quantize(Decimal("0.1"))
    if ratio >= 1000:
        return f"{Decimal(now) / Decimal(before):,.0f}x"
    return f"{ratio:+} %"


class Shown:
    """What a page, or a file, shows of an exploration."""

    def __init__(self, found: Exploration, links: Links, *, sort: str, refused: RefusedCounts | None = None) -> None:
        self.found, self._links, self.refused = found, links, refused
        self._question, self._measure = found.question, found.question.measure
        self._whole = self._measure.of(found.total)
        self._sort = sort or ("name" if self.is_by_time else f"-{self._measure}")
        self.by = label_of(found.question.by)
        self.then = label_of(found.question.then) if found.question.then else ""
        values = [group.value for group in found.groups]
        self._names = self._names_of(found.question.by, values)
        then, inner = found.question.then, [each.value for group in found.groups for each in group.inner]
        self._inner_names = self._names_of(then, dict.fromkeys(inner)) if then else {}
        self.rows = self._sorted([self._row(number, group) for number, group in enumerate(found.groups)])

    @property
    def has_failures(self) -> bool:
        """Whether failures and latencies are known: the days' end users don't have them."""
        return self.found.reads_calls or not self._question.is_of_end_user_days

    @property
    def has_refused(self) -> bool:
        """Whether each row has its own."""
        return self.refused is not None and self.refused.by is not None

    @property
    def is_by_time(self) -> bool:
        return self._question.by == Dimension.TIME

    @property
    def total(self) -> Row:
        before = None if self.found.total_before is None else self._measure.of(self.found.total_before)
        name = Name("Total", filters={})
        refused = None if self.refused is None else self.refused.total
        url = self._links.calls({})
        return Row(name, self.found.total, self._whole, self._whole, before, calls_url=url, refused=refused)

    @property
    def others(self) -> Row | None:
        group = self.found.others
        if group is None:
            return None
        name = Name(f"Other ({self.found.other_values:,} more)", filters=None)
        measured, refused = self._measure.of(group.figures), None
        if self.refused is not None and self.has_refused:
            refused = self.refused.total - sum(row.refused or 0 for row in self.rows)
        return Row(name, group.figures, measured, self._whole, group.before, COLOURS, is_rest=True, refused=refused)

    @property
    def all_rows(self) -> list[Row]:
        return [*self.rows, *([self.others] if self.others else [])]

    def _names_of(self, dimension: Dimension, values: Iterable[Any]) -> Mapping[Any, Name]:
        if dimension == Dimension.TIME:
            return {value: Name(label_of_bucket(value, self._question)) for value in values}
        return names_of(dimension, values, self._question)

    def _row(self, number: int, group: Group) -> Row:
        name, measured = self._names[group.value], self._measure.of(group.figures)
        return Row(
            name,
            group.figures,
            measured,
            self._whole,
            group.before,
            None if self.is_by_time else min(number, COLOURS),
            url=self._url(group, name),
            calls_url=self._calls_url(group, name),
            inner=self._inner_rows(group, name),
            refused=self._refused(group.value),
        )

    def _refused(self, value: Any) -> int | None:
        by = None if self.refused is None else self.refused.by
        return None if by is None else by.get(value, 0)

    def _url(self, group: Group, name: Name) -> str:
        if self.is_by_time:
            return self._links.bucket(group.value)
        return "" if name.filters is None else self._links.narrowed(self._question.by, name.filters)

    def _calls_url(self, group: Group, name: Name) -> str:
        days = self._question.days_of(group.value) if self.is_by_time else None
        return "" if name.filters is None else self._links.calls(name.filters, days)

    def _inner_rows(self, group: Group, outer: Name) -> list[Row]:
        rows = [self._inner_row(each, outer) for each in group.inner]
        rows = self._sorted(rows)
        if group.inner_others is not None:
            rest = group.inner_others
            rows.append(Row(Name("Other", filters=None), rest, self._measure.of(rest), self._whole, is_rest=True))
        return rows

    def _inner_row(self, group: Group, outer: Name) -> Row:
        name = self._inner_names[group.value]
        both = None if outer.filters is None or name.filters is None else {**outer.filters, **name.filters}
        url = "" if both is None else self._links.calls(both)
        return Row(name, group.figures, self._measure.of(group.figures), self._whole, calls_url=url)

    def _sorted(self, rows: list[Row]) -> list[Row]:
        """Python sorts stably: what is equal stays in its order."""
        key = self._sort.removeprefix("-")
        if key == "name" and self.is_by_time:
            return rows[::-1] if self._sort.startswith("-") else rows
        return sorted(rows, key=_SORT_KEYS[key], reverse=self._sort.startswith("-"))

    def headers(self) -> list[dict[str, Any]]:
        """Of columns that sort: the first click on a measure draws it, the largest first; the next turns it around."""
        names = {"name": self.by.capitalize(), Measure.CALLS: "Calls", Measure.PROMPT: "Tokens in", "cached": "Cached"}
        names |= {Measure.COMPLETION: "Tokens out", Measure.COST: "Cost"}
        if self.has_failures:
            names |= {Measure.FAILED: "Failed", "p50": "p50", "p95": "p95"}
        if self.has_refused:
            names["refused"] = "Refused"
        return [self._header(str(name), text) for name, text in names.items()]

    def _header(self, name: str, text: str) -> dict[str, Any]:
        is_sorted = self._sort.removeprefix("-") == name
        is_down = self._sort.startswith("-")
        sort = name if is_sorted and is_down else f"-{name}"
        if name == "name" and not is_sorted:
            sort = name
        measure = {"measure": name} if name in MEASURES else {}
        order = ("descending" if is_down else "ascending") if is_sorted else ""
        return {"text": text, "order": order, "url": self._links.here(sort=sort, **measure), "is_name": name == "name"}

    def chart(self) -> dict[str, Any]:
        """For a script: amounts as text, since money is never a float on its way."""
        return {
            "title": MEASURES[self._measure],
            "isCost": self._measure == Measure.COST,
            "buckets": [
                {
                    "label": short_label_of_bucket(bucket, self._question),
                    "name": label_of_bucket(bucket, self._question),
                    "url": self._links.bucket(bucket),
                    "days": [day.isoformat() for day in self._question.days_of(bucket)],
                }
                for bucket in self.found.buckets
            ],
            "series": self._series(),
        }

    def _series(self) -> list[dict[str, Any]]:
        if self.is_by_time:
            values = [self._measure.of(group.figures) for group in self.found.groups]
            return [_series(MEASURES[self._measure], 0, values, self._links.calls({}))]
        own = self.found.groups[:COLOURS]
        parts = [_series(*self._part(number, group)) for number, group in enumerate(own)]
        rest = [each.series for each in (*self.found.groups[COLOURS:], self.found.others) if each is not None]
        if rest:
            sums = [sum(column) for column in zip(*rest, strict=True)]
            parts.append(_series("All others", COLOURS, sums, ""))
        return parts

    def _part(self, number: int, group: Group) -> tuple[str, int, Sequence[Any], str]:
        name = self._names[group.value]
        return name.on_one_line, number, group.series, self._calls_url(group, name)

    def grid(self) -> list[tuple[str, str, list[SafeString]]]:
        """The chart as a table: of each bucket its name, its page and its figures, the total last."""
        groups = [*self.found.groups, *([self.found.others] if self.found.others else [])]
        rows = []
        for number, bucket in enumerate(self.found.buckets):
            values = [group.series[number] for group in groups]
            name = label_of_bucket(bucket, self._question)
            rows.append((name, self._links.bucket(bucket), [self.figure(each) for each in (*values, sum(values))]))
        return rows

    def grid_heading(self) -> list[str]:
        return [
            *(self._names[group.value].on_one_line for group in self.found.groups),
            *(["Other"] if self.found.others else []),
        ]

    def figure(self, value: Any) -> SafeString:
        return usd_at_a_glance(Decimal(value)) if self._measure == Measure.COST else tokens(int(value))

    def file_rows(self) -> tuple[list[str], list[list[Value]]]:
        """The table as it is shown, with exact figures: a heading and rows; the total is the last."""
        by = [self.by, *([self.then] if self.then else [])]
        columns = _FILE_COLUMNS if self.has_failures else _FILE_COLUMNS[:-1]
        heading = [*by, "which", *columns, "cached_percent", f"share_of_{self._measure}_percent"]
        heading += ["latency_p50", "latency_p95"] if self.has_failures else []
        heading += ["refused_requests"] if self.has_refused else []
        compares = self.found.total_before is not None and not self.is_by_time
        if compares:
            heading.append(f"{self._measure}_before")
        rows: list[list[Value]] = []
        for row in [*self.all_rows, self.total]:
            inner: list[tuple[Row, str]] = (
                [(row, "")] if not row.inner else [(each, each.name.text) for each in row.inner]
            )
            for each, text in inner:
                names = [row.name.text, *([text] if self.then else [])]
                more: list[Value] = [each.p50, each.p95] if self.has_failures else []
                more += [each.refused] if self.has_refused else []
                more += [_plain(each.before)] if compares else []
                rows.append([*names, row.name.hint, *_file_cells(each, columns), *more])
        return heading, rows

    def grid_rows(self) -> tuple[list[str], list[list[Value]]]:
        """The chart, with exact figures."""
        groups = [*self.found.groups, *([self.found.others] if self.found.others else [])]
        if self.is_by_time:
            rows = [[self._names[each.value].text, _plain(self._measure.of(each.figures))] for each in groups]
            return ["time", MEASURES[self._measure]], rows
        rows = [
            [label_of_bucket(bucket, self._question), *(_plain(group.series[number]) for group in groups)]
            for number, bucket in enumerate(self.found.buckets)
        ]
        return ["time", *self.grid_heading()], rows


_FILE_COLUMNS = (
    "calls",
    "prompt_tokens",
    "cache_read_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cost",
    "estimated_calls",
    "unpriced_calls",
    "failed_calls",
)


def _bucket(row: Row, percent: int) -> int:
    found = row.figures.latency_bucket(percent)
    return -1 if found is None else found


_SORT_KEYS: Mapping[str, Callable[[Row], Any]] = {
    "name": lambda row: row.name.text.casefold(),
    "cached": lambda row: row.cached or 0,
    "p50": lambda row: _bucket(row, 50),
    "p95": lambda row: _bucket(row, 95),
    "refused": lambda row: row.refused or 0,
    **{measure.value: lambda row, measure=measure: measure.of(row.figures) for measure in Measure},  # type: ignore[misc]
}


def _series(name: str, colour: int, values: Sequence[Any], calls_url: str) -> dict[str, Any]:
    return {
        "name": name,
        "colour": colour,
        "values": [f"{value:f}" if isinstance(value, Decimal) else str(value) for value in values],
        "url": calls_url,
    }


def _plain(value: Any) -> Value:
    return exact(value) if isinstance(value, Decimal) else value


def _file_cells(row: Row, columns: Sequence[str]) -> list[Value]:
    figures = [_plain(getattr(row.figures, name)) for name in columns]
    return [*figures, row.cached, row.share]

"""Usage summaries: by day, key, model or account from the daily rollups; by end user or tag from the calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.base import ManagementView
from billing.api.fields import ExactField, ViewedSerializer
from billing.api.filters import (
    END_USERS,
    TAG_PREFIX,
    DayField,
    UsageFilters,
    account_asked_for,
    require_few_days,
)
from billing.models import DailyUsage
from billing.rollup import CallsOfDays, LabelledSums, rows_with, sum_by_label
from billing.usage_reports import rolled_up_to
from llm.fields import ExactSum
from llm.models import EndUser
from llm.money import exact_sum
from llm.types import TOKEN_FIELDS

MAX_ROWS = 10_000

_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "day": {"day": "local_day"},
    "key": {"key": "api_key_id", "key_name": "api_key__name", "account": "account_id"},
    "model": {"model": "model"},
    "account": {"account": "account_id", "account_name": "account__name"},
}
_NARROWING: Mapping[str, str] = {"account": "account_id", "key": "api_key_id", "model": "model"}
_FIGURES = ("calls", "estimated_calls", "unpriced_calls", *TOKEN_FIELDS, "cost")
_SUMS = {f"sum_{name}": ExactSum(name) for name in _FIGURES}
_Figures = dict[str, Any]


class UsageFiguresSerializer(ViewedSerializer[Any]):
    costs = frozenset(("cost",))
    staff_only = frozenset(("unpriced_calls",))

    calls = serializers.IntegerField(help_text="Closed calls, including corrections; refused calls are not counted.")
    estimated_calls = serializers.IntegerField(
        help_text="Calls whose tokens are our estimate, except those decided by staff."
    )
    unpriced_calls = serializers.IntegerField(required=False, help_text="Without a known price. For staff.")
    prompt_tokens = serializers.IntegerField(help_text="All input, including cached.")
    completion_tokens = serializers.IntegerField(help_text="All output, including reasoning.")
    cache_read_tokens = serializers.IntegerField()
    cache_write_5m_tokens = serializers.IntegerField()
    cache_write_1h_tokens = serializers.IntegerField()
    reasoning_tokens = serializers.IntegerField()
    audio_input_tokens = serializers.IntegerField()
    audio_output_tokens = serializers.IntegerField()
    cost = ExactField(
        required=False, help_text="USD that providers charge us; for staff, and for accounts allowed to see it."
    )


class UsageGroupSerializer(ViewedSerializer[Any]):
    day = serializers.DateField(required=False, help_text="In the time zone of the account.")
    key = serializers.IntegerField(required=False)
    key_name = serializers.CharField(required=False)
    model = serializers.CharField(required=False)
    account = serializers.IntegerField(required=False)
    account_name = serializers.CharField(required=False)
    end_user = serializers.CharField(required=False, help_text="The hash; empty for calls without an end user.")
    end_user_name = serializers.CharField(required=False, allow_null=True)
    tag = serializers.CharField(required=False, allow_null=True, help_text="Its value; null: calls without it.")


class UsageRowSerializer(UsageGroupSerializer, UsageFiguresSerializer):
    """The usage of one day, key, model, account, end user or value of a tag."""


class UsageSummarySerializer(serializers.Serializer[Any]):
    by = serializers.CharField()
    first = serializers.DateField(help_text="The first day requested.")
    last = serializers.DateField(allow_null=True, help_text="The last one; null: up to now.")
    as_of = serializers.DateTimeField(
        allow_null=True,
        help_text="Everything recorded until then is included; null: an account's days are being rebuilt.",
    )
    total = UsageFiguresSerializer()
    results = UsageRowSerializer(many=True)


class UsageView(ManagementView):
    queryset = DailyUsage.objects.all()
    filterset_class = UsageFilters
    pagination_class = None
    permissions = {"GET": "billing.view_dailyusage"}

    @extend_schema(
        operation_id="usage_summary",
        summary="Usage by day, key, model, account, end user or tag",
        description=(
            "Summed from the hourly rollups; by end user or tag, from the calls that are in them. Without `from`, the "
            "current month."
        ),
        responses=UsageSummarySerializer,
        filters=True,
        tags=["management"],
    )
    def get(self, request: Request) -> Response:
        by = request.query_params.get("by") or "day"
        if by not in _COLUMNS:
            return self._answer_from_calls(by)
        sources = [self.filter_queryset(self.of_viewer(rows)) for rows in rows_with(*self._columns(by))]
        first = self._first_day()
        return self._answer(
            by, self._as_of(), _summary([rows.filter(local_day__gte=first, calls__gt=0) for rows in sources], by)
        )

    def _answer(self, by: str, as_of: datetime | None, found: Mapping[str, Any]) -> Response:
        summary = {"by": by, "first": self._first_day(), "last": self._day("to"), "as_of": as_of, **found}
        return Response(UsageSummarySerializer(summary, context=self.get_serializer_context()).data)

    def _answer_from_calls(self, by: str) -> Response:
        """Raises ValidationError unless it covers few days of one account and yields few enough groups."""
        no_rows = DailyUsage.objects.none()
        self.filter_queryset(no_rows)
        form = UsageFilters(self.request.query_params, no_rows, request=self.request).form
        form.is_valid()
        account_id, key = account_asked_for(form, self.request), form.cleaned_data["key"]
        account_id = require_few_days(form, account_id, why="by", first=self._first_day())
        if (as_of := rolled_up_to(account_id)) is None:
            return self._answer(by, None, _totalled([]))
        calls = CallsOfDays(
            account_id=account_id,
            first=self._first_day(),
            last=self._day("to"),
            cutoff=as_of,
            tag=None if by == END_USERS else by.removeprefix(TAG_PREFIX),
            api_key_id=None if key is None else key.pk,
            model=form.cleaned_data["model"] or None,
        )
        found = sum_by_label(calls, limit=MAX_ROWS + 1)
        _refuse_many(found)
        return self._answer(by, as_of, _totalled(_named(found, account_id) if by == END_USERS else _tagged(found)))

    def _first_day(self) -> date:
        return self._day("from") or timezone.now().date().replace(day=1)

    def _columns(self, by: str) -> Iterator[str]:
        """Columns to group and filter by. Arbitrary for invalid parameters, which the filters report."""
        yield "local_day"
        yield next(iter(_COLUMNS.get(by, _COLUMNS["day"]).values()))
        if self.viewer.account_id is not None:
            yield "account_id"
        yield from (column for name, column in _NARROWING.items() if self.request.query_params.get(name))

    def _day(self, name: str) -> date | None:
        """The day as the filter has parsed it."""
        day: date | None = DayField(required=False).clean(self.request.query_params.get(name))
        return day

    def _as_of(self) -> datetime | None:
        """The cutoff of the account that is furthest behind, among those asked for."""
        account = self.request.query_params.get("account")
        return rolled_up_to(self.viewer.account_id or (int(account) if account else None))


def _named(found: Collection[LabelledSums], account_id: int) -> list[_Figures]:
    hashes = [end_user for end_user, _ in found if end_user]
    names = dict(EndUser.objects.filter(account=account_id, end_user__in=hashes).values_list("end_user", "name"))
    return [{"end_user": each, "end_user_name": names.get(each or ""), **figures} for each, figures in found]


def _tagged(found: Collection[LabelledSums]) -> list[_Figures]:
    return [{"tag": value, **figures} for value, figures in found]


def _summary(sources: Iterable[QuerySet[Any]], by: str) -> Mapping[str, Any]:
    """Raises ValidationError for more groups than a response may have."""
    groups: dict[tuple[Any, ...], list[_Figures]] = defaultdict(list)
    for rows in sources:
        for group, figures in _groups(rows, by):
            groups[group].append(figures)
    _refuse_many(groups)
    results = [
        {**dict(zip(_COLUMNS[by], group, strict=True)), **_added(figures)} for group, figures in sorted(groups.items())
    ]
    return _totalled(results)


def _refuse_many(groups: Collection[Any]) -> None:
    if len(groups) > MAX_ROWS:
        raise ValidationError({"by": f"There are more than {MAX_ROWS:,} rows. Narrow the request by account or model."})


def _totalled(results: Collection[Mapping[str, Any]]) -> Mapping[str, Any]:
    return {"total": _added(results), "results": results}


def _groups(rows: QuerySet[Any], by: str) -> Iterator[tuple[tuple[Any, ...], _Figures]]:
    columns = _COLUMNS[by].values()
    grouped = rows.order_by().values_list(*columns).annotate(**_SUMS).order_by(*columns)
    for row in grouped[: MAX_ROWS + 1]:
        yield row[: len(columns)], dict(zip(_FIGURES, row[len(columns) :], strict=True))


def _added(parts: Collection[Mapping[str, Any]]) -> _Figures:
    counts = {name: sum(part[name] for part in parts) for name in _FIGURES if name != "cost"}
    return {**counts, "cost": exact_sum(part["cost"] for part in parts)}

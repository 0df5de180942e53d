"""Refused requests: which, how many, when, and what the last caller was told. They have no rows in the books."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db.models import Sum
from django.db.models.functions import TruncDay, TruncHour, TruncMinute
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from llm.admin.base import ReadOnlyAdmin
from llm.admin.refusal_summaries import may_see_refusals, model_text, refusals_url
from llm.admin.secrets import without_secrets
from llm.admin.usage.filters import DateInput, UsageFilterForm, proposed_accounts, proposed_models
from llm.calls.refusal_counts import KEPT
from llm.models import Account, ApiKey, Limit, RefusedRequests
from llm.models.refusals import RefusedGroup, RefusedRequestsQuerySet

MAX_GROUPS = 100
MAX_ROWS = 200_000
"""Counts that a page adds up, each of one minute: some tenths of a second."""
DAYS_SHOWN = 7
HOURS_UP_TO_DAYS = 3
_FIRST, _LAST = date(2000, 1, 1), date(2999, 12, 31)
_UNKNOWN = "none"
_FILTERS = ("account", "key", "model", "code", "limit")


def _day(label: str) -> forms.DateField:
    bounds = [MinValueValidator(_FIRST), MaxValueValidator(_LAST)]
    return forms.DateField(label=label, required=False, widget=DateInput(), validators=bounds)


class RefusalForm(UsageFilterForm):
    """All fields are optional; without days, the last seven. hour: of a single day."""

    code = forms.CharField(
        label="Reason",
        required=False,
        max_length=50,
        widget=forms.TextInput(attrs={"placeholder": "any", "autocomplete": "off", "spellcheck": "false"}),
    )
    key_known = forms.ChoiceField(label="Caller", required=False, choices=[("", "any"), (_UNKNOWN, "without a key")])
    limit = forms.IntegerField(required=False, min_value=1, max_value=2**63 - 1, widget=forms.HiddenInput)
    hour = forms.IntegerField(required=False, min_value=0, max_value=23, widget=forms.HiddenInput)
    first = _day("From")
    last = _day("To")

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        names = ("account", "key", "model", "code", "key_known", "first", "last", "limit", "hour")
        self.fields = {name: self.fields[name] for name in names}

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if self.errors:
            return data
        last: date = data.get("last") or max(timezone.now().date(), data.get("first") or _FIRST)
        first: date = data.get("first") or max(_FIRST, last - timedelta(days=DAYS_SHOWN - 1))
        if (last - first).days >= KEPT.days + 1:
            self.add_error("last", ValidationError(f"At most {KEPT.days + 1} days: older counts are deleted."))
        return {**data, "first": first, "last": last, "hour": data.get("hour") if first == last else None}

    @property
    def period(self) -> tuple[datetime, datetime]:
        """Only for a valid form."""
        data = self.cleaned_data
        start = datetime.combine(data["first"], time(data["hour"] or 0), UTC)
        if data["hour"] is not None:
            return start, start + timedelta(hours=1)
        return start, datetime.combine(data["last"], time(), UTC) + timedelta(days=1)

    def rows(self) -> RefusedRequestsQuerySet:
        """Only for a valid form."""
        data = self.cleaned_data
        rows = RefusedRequests.objects.between(*self.period)
        if data["limit"]:
            rows = rows.of_limit(data["limit"])
        wanted = {
            "account_id": data["account"].pk if data["account"] else 0 if data["key_known"] else None,
            "api_key_id__in": data["key"],
            "model": data["model"] or None,
            "code": data["code"] or None,
        }
        return rows.filter(**{name: value for name, value in wanted.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Row:
    """account, key, limit: as they are called now. share: in percent."""

    group: RefusedGroup
    account: Account | None
    key: ApiKey | None
    limit: Limit | None
    model: str
    code: str
    share: Decimal
    url: str


@dataclass(frozen=True, slots=True)
class Moment:
    """Refused requests of a day, an hour or a minute. url: "" where nothing finer is counted."""

    label: str
    requests: int
    url: str


@admin.register(RefusedRequests)
class RefusedRequestsAdmin(ReadOnlyAdmin[RefusedRequests]):
    def has_view_permission(self, request: HttpRequest, obj: RefusedRequests | None = None) -> bool:
        return may_see_refusals(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return may_see_refusals(request)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if (reply := without_secrets(request)) is not None:
            return reply
        form = RefusalForm(request.GET)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Refused requests",
            "form": form,
            "proposed_accounts": proposed_accounts,
            "proposed_models": proposed_models,
            "kept_days": KEPT.days,
        }
        if form.is_valid():
            context |= _answer(form)
        return TemplateResponse(request, "admin/llm/refusals/page.html", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """A minute's count has no page: it is a part of the list's figures."""
        raise Http404


def _answer(form: RefusalForm) -> dict[str, Any]:
    rows = form.rows()
    if rows.order_by()[: MAX_ROWS + 1].count() > MAX_ROWS:
        form.add_error(None, f"These are more than {MAX_ROWS:,} counts to add up. Choose fewer days, or one account.")
        return {}
    total = rows.aggregate(total=Sum("requests"))["total"] or 0
    groups = rows.grouped("account_id", "api_key_id", "model", "code", "limit_id", limit=MAX_GROUPS)
    now = {name: form.data[name] for name in (*_FILTERS, "key_known") if form.data.get(name)}
    start, end = form.period
    days = {"first": form.cleaned_data["first"], "last": form.cleaned_data["last"]}
    limit_id = form.cleaned_data["limit"]
    return {
        "total": total,
        "rows": _named(groups, total, {**now, **days}),
        "rest": total - sum(group.requests for group in groups),
        "moments": _moments(rows, form, now),
        "unit": _unit(form),
        "start": start,
        "end": end - timedelta(minutes=1),
        "of_limit": Limit.objects.select_related("account", "api_key").filter(pk=limit_id).first()
        if limit_id
        else None,
        "is_narrowed": bool(now),
    }


def _named(groups: Sequence[RefusedGroup], total: int, now: Mapping[str, Any]) -> list[Row]:
    accounts = Account.objects.in_bulk({group.keys[0] for group in groups})
    keys = ApiKey.objects.in_bulk({group.keys[1] for group in groups})
    limits = Limit.objects.select_related("account", "api_key").in_bulk({group.keys[4] for group in groups})
    found = []
    for group in groups:
        account_id, key_id, model, code, limit_id = group.keys
        account, key = accounts.get(account_id), keys.get(key_id)
        who: dict[str, Any] = {"key_known": _UNKNOWN} if account is None else {"account": account.name}
        if key is not None:
            who["key"] = key.masked
        share = (Decimal(100 * group.requests) / total).quantize(Decimal("0.1"))
        url = refusals_url({**now, **who, "model": model, "code": code, "limit": limit_id})
        found.append(Row(group, account, key, limits.get(limit_id), model_text(model), code, share, url))
    return found


def _unit(form: RefusalForm) -> str:
    data = form.cleaned_data
    if data["hour"] is not None:
        return "minute"
    return "hour" if (data["last"] - data["first"]).days < HOURS_UP_TO_DAYS else "day"


def _moments(rows: RefusedRequestsQuerySet, form: RefusalForm, now: Mapping[str, Any]) -> list[Moment]:
    """Those with any, in order."""
    unit = _unit(form)
    truncated = {"minute": TruncMinute, "hour": TruncHour, "day": TruncDay}[unit]("minute", tzinfo=UTC)
    found = rows.order_by().annotate(moment=truncated).values_list("moment").annotate(Sum("requests"))
    return [_moment(moment, requests, unit, now) for moment, requests in found.order_by("moment")]


def _moment(moment: datetime, requests: int, unit: str, now: Mapping[str, Any]) -> Moment:
    day = moment.date().isoformat()
    if unit == "day":
        return Moment(day, requests, refusals_url({**now, "first": day, "last": day}))
    label = f"{moment:%Y-%m-%d %H:%M}"
    if unit == "minute":
        return Moment(label, requests, "")
    # An hour may be 0.
    return Moment(label, requests, f"{refusals_url({**now, 'first': day, 'last': day})}&hour={moment.hour}")

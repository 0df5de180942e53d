"""The query parameters of lists. An unknown parameter or a wrong value is a 400 that says so."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError as FormError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db.models import QuerySet
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema_field
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from billing.api.viewer import viewer_of
from billing.enums import InvoiceKind, InvoiceState, JobState
from billing.models.invoices import FINAL_STATES
from billing.periods import BillingPeriod
from llm.endusers import find_hashes
from llm.enums import LimitMetric, UsageStatus
from llm.models import Account, ApiKey, OpenCall
from llm.models.usage import CallQuerySet
from llm.types import MAX_END_USER_CHARACTERS, MAX_TAG_KEY_CHARACTERS, MAX_TAG_VALUE_CHARACTERS

FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2999, 12, 31)
GROUPS = ("day", "key", "model", "account")
END_USERS = "end_user"
TAG_PREFIX = "tag:"
MAX_DAYS_OF_CALLS = 31
"""Days of one account that may be read call by call, for filters and groups that no index or rollup serves."""
_OF_PAGES = frozenset(("cursor", "page_size"))


class StrictFilters(filters.DjangoFilterBackend):
    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        known = self._known(view, queryset)
        for name, values in request.query_params.lists():
            if name not in known:
                raise ValidationError({name[:50]: f"Unknown parameter. Allowed: {', '.join(sorted(known))}."})
            if len(values) > 1:
                raise ValidationError({name: "This parameter may be given only once."})
        filtered: QuerySet[Any] = super().filter_queryset(request, queryset, view)
        return filtered

    def _known(self, view: Any, queryset: QuerySet[Any]) -> set[str]:
        filterset = self.get_filterset_class(view, queryset)
        names = set(filterset.base_filters) if filterset else set()
        return names | _OF_PAGES if view.pagination_class else names


class DayField(forms.DateField):
    input_formats = ("%Y-%m-%d",)
    default_validators = [MinValueValidator(FIRST_DAY), MaxValueValidator(LAST_DAY)]
    default_error_messages = {"invalid": "Must be a date such as 2026-10-31."}


class DayFilter(filters.DateFilter):
    field_class = DayField


class MonthFormField(forms.CharField):
    def to_python(self, value: Any) -> BillingPeriod | None:  # type: ignore[override]  # parses the text
        text = super().to_python(value)
        try:
            return BillingPeriod.parse(text) if text else None
        except ValueError as error:
            # Passed as a parameter: django-filter %-formats messages, and the caller's text may contain a “%”.
            raise FormError("%(why)s.", params={"why": error}) from error


@extend_schema_field({"type": "string", "pattern": r"^\d{4}-\d{2}$", "example": "2026-10"})
class MonthQueryFilter(filters.Filter):
    """Filters by the first day of a month."""

    field_class = MonthFormField

    def filter(self, rows: QuerySet[Any], value: BillingPeriod | None) -> QuerySet[Any]:
        narrowed: QuerySet[Any] = super().filter(rows, value.start if value else None)
        return narrowed


def _accounts(request: Request | None) -> QuerySet[Account]:
    account_id = viewer_of(request).account_id
    return Account.objects.all() if account_id is None else Account.objects.filter(pk=account_id)


def _keys(request: Request | None) -> QuerySet[ApiKey]:
    account_id = viewer_of(request).account_id
    return ApiKey.objects.all() if account_id is None else ApiKey.objects.filter(account_id=account_id)


@extend_schema_field({"type": "integer"})
class IdFilter(filters.ModelChoiceFilter):
    """The id of a row that the viewer may see; another account's is as unknown as a missing one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(error_messages={"invalid_choice": "This id does not exist."}, **options)


def _account_filter() -> IdFilter:
    return IdFilter(queryset=_accounts, help_text="An account's id.")


def _key_filter() -> IdFilter:
    return IdFilter(field_name="api_key", queryset=_keys, help_text="A key's id.")


class DaysForm(forms.Form):
    def clean(self) -> dict[str, Any]:
        days: dict[str, Any] = super().clean() or self.cleaned_data
        first, last = days.get("from"), days.get("to")
        if first and last and last < first:
            self.add_error("to", "This is before the start date.")
        return days


class DaysFilterSet(filters.FilterSet):
    """`from` and `to`, both inclusive: days in the account's time zone at the time."""

    account = _account_filter()
    key = _key_filter()
    model = filters.CharFilter(max_length=200, help_text="The name callers requested.")

    class Meta:
        form = DaysForm

    @classmethod
    def get_filters(cls) -> Any:
        """`from` is a Python keyword, so it can't be declared as an attribute."""
        days = {
            "from": DayFilter(
                field_name="local_day", lookup_expr="gte", help_text="First day, in the account's time zone."
            ),
            "to": DayFilter(field_name="local_day", lookup_expr="lte", help_text="Last day, included."),
        }
        return {**super().get_filters(), **days}


class GroupField(forms.CharField):
    def validate(self, value: Any) -> None:
        super().validate(value)
        key = value.removeprefix(TAG_PREFIX) if value.startswith(TAG_PREFIX) else None
        if value and value not in (*GROUPS, END_USERS) and not (key and len(key) <= MAX_TAG_KEY_CHARACTERS):
            raise FormError(f"Choose one of {', '.join(GROUPS)}, {END_USERS} and {TAG_PREFIX}KEY.")


@extend_schema_field({"type": "string", "example": "tag:team"})
class GroupFilter(filters.CharFilter):
    field_class = GroupField


class TagField(forms.CharField):
    def to_python(self, value: Any) -> tuple[str, str] | None:  # type: ignore[override]  # parses the text
        text = super().to_python(value)
        if not text:
            return None
        key, colon, tag = text.partition(":")
        if not (key and colon and tag):
            raise FormError("Must be a key and a value such as team:search.")
        return key, tag


@extend_schema_field({"type": "string", "example": "team:search"})
class TagFilter(filters.Filter):
    field_class = TagField


def account_asked_for(form: forms.Form, request: Request | None) -> int | None:
    """The one account that the request is about; None if there may be several. form: a valid DaysFilterSet."""
    account, key = form.cleaned_data["account"], form.cleaned_data["key"]
    named = account.pk if account else key.account_id if key else None
    return viewer_of(request).account_id or named


def require_few_days(form: forms.Form, account_id: int | None, *, why: str, first: date | None = None) -> int:
    """The account. Raises ValidationError unless the request names one account and at most MAX_DAYS_OF_CALLS days.

    why: the parameter that requires this. first: the first day if the request names none.
    """
    if account_id is None:
        raise ValidationError({why: "This needs an account too: account=ID."})
    first = form.cleaned_data["from"] or first
    last = form.cleaned_data["to"] or timezone.now().date()
    if first is None or last - first >= timedelta(days=MAX_DAYS_OF_CALLS):
        raise ValidationError({why: f"This needs a period of at most {MAX_DAYS_OF_CALLS} days: from=DATE&to=DATE."})
    return account_id


class UsageFilters(DaysFilterSet):
    by = GroupFilter(
        method="leave",
        help_text=(
            f"What to group by: {', '.join(GROUPS)}; {END_USERS} or {TAG_PREFIX}KEY for one account and at most "
            f"{MAX_DAYS_OF_CALLS} days. Default: day."
        ),
    )

    def leave(self, rows: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        """Does nothing: the view does the grouping."""
        return rows


class CallFilters(DaysFilterSet):
    status = filters.ChoiceFilter(choices=UsageStatus.choices, method="with_status")
    request_id = filters.UUIDFilter(help_text="All attempts of one request.")
    provider = filters.CharFilter(max_length=50, help_text="The provider's name.")
    provider_instance = filters.CharFilter(
        method="by_instance", max_length=50, help_text="A configured instance of a provider. For staff."
    )
    end_user = filters.CharFilter(
        method="leave",
        max_length=MAX_END_USER_CHARACTERS,
        help_text="An end user's name, for one account, or the hash that calls show.",
    )
    tag = TagFilter(
        method="leave",
        max_length=MAX_TAG_KEY_CHARACTERS + 1 + MAX_TAG_VALUE_CHARACTERS,
        help_text=f"A tag such as team:search, for one account and at most {MAX_DAYS_OF_CALLS} days.",
    )

    def with_status(self, rows: CallQuerySet[Any], name: str, value: str) -> CallQuerySet[Any]:
        """Calls in flight have no such column."""
        if rows.model is OpenCall:
            return rows if value == UsageStatus.OPEN else rows.none()
        return rows.filter(status=value)

    def leave(self, rows: CallQuerySet[Any], name: str, value: object) -> CallQuerySet[Any]:
        """Does nothing: this needs more than one parameter."""
        return rows

    def by_instance(self, rows: CallQuerySet[Any], name: str, value: str) -> CallQuerySet[Any]:
        """Raises ValidationError for customers, who aren't shown instances either."""
        if not viewer_of(self.request).is_staff:
            raise ValidationError({name: "Only staff may filter by this."})
        return rows.filter(provider_instance=value)

    def filter_queryset(self, queryset: CallQuerySet[Any]) -> CallQuerySet[Any]:
        """Of open or of closed calls."""
        narrowed: CallQuerySet[Any] = super().filter_queryset(queryset)
        asked = self.form.cleaned_data
        account_id = account_asked_for(self.form, self.request)
        if name := asked["end_user"]:
            narrowed = narrowed.by_end_users(_hashes(name, account_id))
        if tag := asked["tag"]:
            require_few_days(self.form, account_id, why="tag")
            narrowed = narrowed.tagged(*tag)
        return narrowed.near_days(asked.get("from"), asked.get("to"))


def _hashes(name: str, account_id: int | None) -> frozenset[str]:
    """Raises ValidationError for a name without an account, which isn't enough."""
    hashes = find_hashes(name, account_id)
    if not hashes and account_id is None:
        raise ValidationError(
            {"end_user": "A name needs an account too: account=ID. A hash, as calls show it, doesn't."}
        )
    return hashes


class InvoiceFilters(filters.FilterSet):
    account = _account_filter()
    period = MonthQueryFilter(field_name="period_start", help_text="A month such as 2026-10.")
    state = filters.ChoiceFilter(
        choices=InvoiceState.choices, help_text=f"Customers see only {' or '.join(FINAL_STATES)} ones."
    )
    kind = filters.ChoiceFilter(choices=InvoiceKind.choices)


class ExportFilters(filters.FilterSet):
    account = _account_filter()
    period = MonthQueryFilter(field_name="period_start", help_text="A month such as 2026-10.")
    state = filters.ChoiceFilter(choices=JobState.choices, help_text=f"Customers see only {JobState.DONE} ones.")


class LimitFilters(filters.FilterSet):
    account = _account_filter()
    key = _key_filter()
    metric = filters.ChoiceFilter(choices=LimitMetric.choices)

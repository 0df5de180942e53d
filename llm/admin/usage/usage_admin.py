"""The books, read-only: never added to, changed or deleted here, and never counted as a whole."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.db.models.expressions import Combinable
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llm.admin.base import ReadOnlyAdmin
from llm.admin.format import NOTHING, badge, milliseconds, moment, moment_of_id, short_count, side_by_side, usd
from llm.admin.prices.rate_tables import rate_table
from llm.admin.usage.corrections import WITH_CORRECTIONS, CorrectedCall, call_figures
from llm.admin.usage.cost_terms import cost_terms
from llm.admin.usage.decisions import decision_view, may_decide
from llm.admin.usage.filters import UNDECIDED, Narrowing, UsageFilterForm, proposed_accounts, proposed_models
from llm.admin.usage.many_decisions import decide_many_view
from llm.admin.usage.paginator import (
    SUMMED,
    WINDOW,
    Cursor,
    Totals,
    UsagePage,
    read_page,
    read_sorted,
    read_totals,
)
from llm.enums import UsageSource, UsageStatus
from llm.models import EndUser, OpenCall, Usage
from llm.models.usage import find_call, merge_calls

CURSOR_NAMES = ("before", "after")
MAX_ATTEMPTS = 50


class UsageChangeList(ChangeList):
    """Our own filters and pages instead of Django's, which would count the table twice."""

    window = WINDOW
    filter_form: UsageFilterForm
    page: UsagePage
    totals: Totals | None = None
    summed = SUMMED
    order = ""
    offset = 0
    has_more = False

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        """Empty: `UsageFilterForm` reads the query string."""
        return {}

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str | Combinable]:
        return ["-id"]

    def get_results(self, request: HttpRequest) -> None:
        self.filter_form = UsageFilterForm(request.GET)
        self.page = self._read_page(request)
        self.result_list = self.page.rows
        self.result_count = len(self.page.rows)
        self.full_result_count = None
        self.show_full_result_count = False
        self.show_admin_actions = False
        self.can_show_all = self.multi_page = False
        self.paginator = None

    def _read_page(self, request: HttpRequest) -> UsagePage:
        if not self.filter_form.is_valid():
            return UsagePage(rows=[], older=None, newer=None, window_end=None)
        narrowing = self.filter_form.narrowing(self.queryset)
        if self.is_narrowed:
            self.totals = read_totals(narrowing.indexed, narrowing.condition)
        self.order = self.filter_form.cleaned_data["order"]
        if self.order:
            return self._read_sorted(request, narrowing)
        cursor = Cursor(before=_uuid(request.GET.get("before")), after=_uuid(request.GET.get("after")))
        opened = narrowing.opened.select_related("account", "api_key")
        return read_page(narrowing.indexed, narrowing.condition, cursor, size=self.list_per_page, opened=opened)

    def _read_sorted(self, request: HttpRequest, narrowing: Narrowing) -> UsagePage:
        text = request.GET.get("from", "")
        self.offset = min(int(text), SUMMED) if text.isascii() and text.isdigit() and len(text) < 9 else 0
        ids, self.has_more = read_sorted(
            narrowing.indexed, narrowing.condition, by=self.order, offset=self.offset, size=self.list_per_page
        )
        found = self.queryset.in_bulk(ids)
        return UsagePage(rows=[found[pk] for pk in ids if pk in found], older=None, newer=None, window_end=None)

    @property
    def following_url(self) -> str:
        """In another order than that of time."""
        return self._sorted_url(self.offset + self.list_per_page) if self.has_more else ""

    @property
    def preceding_url(self) -> str:
        return self._sorted_url(max(0, self.offset - self.list_per_page)) if self.offset else ""

    def _sorted_url(self, offset: int) -> str:
        return self.get_query_string({"from": str(offset)}, remove=["from", *CURSOR_NAMES])

    @property
    def is_of_undecided(self) -> bool:
        return self.filter_form.data.get("outcome") == UNDECIDED

    @property
    def summed_back_to(self) -> Any:
        return moment_of_id(self.totals.edge if self.totals else None)

    @property
    def is_narrowed(self) -> bool:
        return any(self.filter_form.data.get(name) for name in self.filter_form.fields if name != "order")

    @property
    def older_url(self) -> str | None:
        return self._page_url("before", self.page.older)

    @property
    def newer_url(self) -> str | None:
        return self._page_url("after", self.page.newer)

    @property
    def latest_url(self) -> str:
        return self.get_query_string(remove=list(CURSOR_NAMES))

    @property
    def looked_back_to(self) -> Any:
        return moment_of_id(self.page.window_end)

    def _page_url(self, name: str, identifier: UUID | None) -> str | None:
        if identifier is None:
            return None
        return self.get_query_string({name: str(identifier)}, remove=list(CURSOR_NAMES))


@admin.register(Usage)
class UsageAdmin(ReadOnlyAdmin[Usage]):
    list_display = (
        "time",
        "caller",
        "model_name",
        "tokens_in",
        "tokens_out",
        "cost_usd",
        "state",
        "duration",
    )
    list_display_links = ("time",)
    list_select_related = ("account", "api_key")
    list_per_page = 50
    sortable_by = ()
    ordering = ("-id",)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return UsageChangeList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {
            "proposed_accounts": proposed_accounts,
            "proposed_models": proposed_models,
            "may_decide": may_decide(request),
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def get_queryset(self, request: HttpRequest) -> QuerySet[Usage]:
        calls = super().get_queryset(request).select_related("account", "api_key")
        return calls.prefetch_related(WITH_CORRECTIONS)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Usage | None:
        """Also of a call in flight."""
        if (call_id := _uuid(object_id)) is None:
            return None
        opened = OpenCall.objects.select_related("account", "api_key", "price")
        return find_call(call_id, closed=self.get_queryset(request), opened=opened)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        usage = self.get_object(request, object_id)
        context = self._details(request, usage) if usage is not None else {}
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def get_fieldsets(self, request: HttpRequest, obj: Usage | None = None) -> Any:
        """None: the page has its own template, so Django needn't render forty fields."""
        return ((None, {"fields": ("id",)}),)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(partial(decision_view, self))
        many = self.admin_site.admin_view(partial(decide_many_view, self))
        return [
            path("<uuid:object_id>/decide/", view, name="llm_usage_decide"),
            path("decide/", many, name="llm_usage_decide_many"),
            *super().get_urls(),
        ]

    def _details(self, request: HttpRequest, usage: Usage) -> dict[str, Any]:
        known = call_figures(usage)
        opened = list(OpenCall.objects.filter(request_id=usage.request_id).order_by("id")[:MAX_ATTEMPTS])
        closed = Usage.objects.filter(request_id=usage.request_id).order_by("id")[:MAX_ATTEMPTS]
        return {
            "title": "Call",
            "subtitle": None,
            "known": known,
            "state": state_badges(usage, known),
            "may_decide": may_decide(request),
            "end_user_name": _name_of_end_user(usage),
            "attempts": merge_calls(opened, closed, newest_first=False)[:MAX_ATTEMPTS],
            "applied_rates": rate_table(usage.rate_set) if usage.rate_set else None,
            "cost_terms": cost_terms(known),
        }

    @admin.display(description="Time (UTC)")
    def time(self, usage: Usage) -> str:
        return moment(usage.opened_at)

    @admin.display(description="Account, key")
    def caller(self, usage: Usage) -> SafeString:
        return format_html(
            '{}<span class="gw-hint gw-below" title="{}">{}</span>',
            usage.account.name,
            usage.api_key.masked,
            usage.api_key.name,
        )

    @admin.display(description="Model")
    def model_name(self, usage: Usage) -> SafeString:
        upstream = "" if usage.upstream_model == usage.model else f" → {usage.upstream_model}"
        return format_html(
            '<span class="gw-model">{}<span class="gw-hint">{}</span></span><span class="gw-hint gw-below">{}{}</span>',
            usage.model,
            upstream,
            usage.provider_and_instance,
            ", streamed" if usage.is_stream else "",
        )

    @admin.display(description="Tokens in")
    def tokens_in(self, usage: Usage) -> SafeString | str:
        counts = call_figures(usage).figures.counts
        return _tokens_cell(usage, counts.prompt_tokens, counts.cache_read_tokens, "cached")

    @admin.display(description="Tokens out")
    def tokens_out(self, usage: Usage) -> SafeString | str:
        counts = call_figures(usage).figures.counts
        return _tokens_cell(usage, counts.completion_tokens, counts.reasoning_tokens, "reasoning")

    @admin.display(description="Cost")
    def cost_usd(self, usage: Usage) -> SafeString | str:
        known = call_figures(usage)
        return badge("unpriced") if known.is_unpriced else usd(known.cost)

    @admin.display(description="State")
    def state(self, usage: Usage) -> SafeString:
        return state_badges(usage, call_figures(usage))

    @admin.display(description="Duration, first byte")
    def duration(self, usage: Usage) -> SafeString:
        return format_html(
            '<span class="gw-num">{}</span><span class="gw-hint gw-below">{}</span>',
            milliseconds(usage.duration_ms),
            "" if usage.first_byte_ms is None else milliseconds(usage.first_byte_ms),
        )


def _name_of_end_user(usage: Usage) -> str:
    """ "" if it was deleted, or the call has no end user."""
    names = EndUser.objects.filter(account=usage.account_id, end_user=usage.end_user).values_list("name", flat=True)
    return (names.first() or "") if usage.end_user else ""


def state_badges(usage: Usage, known: CorrectedCall | None = None) -> SafeString:
    """The status, and badges for anything unusual. known: None shows only the row as it was closed."""
    badges = [badge(usage.status, usage.get_status_display())]
    if usage.outcome not in ("ok", "pending"):
        badges.append(badge(usage.outcome, usage.get_outcome_display()))
    if usage.usage_source == UsageSource.DRAINED:
        badges.append(badge("drained"))
    if usage.is_disputed:
        badges.append(badge("disputed"))
    if known is not None and known.corrections:
        badges.append(badge("corrected"))
    is_billable = usage.is_billable if known is None else known.figures.is_billable
    if not is_billable and usage.status != UsageStatus.VOID:
        badges.append(badge("estimated", "not billable"))
    return side_by_side(badges)


def _tokens_cell(usage: Usage, total: int, part: int, name: str) -> SafeString | str:
    if usage.status == UsageStatus.OPEN:
        return NOTHING
    hint = format_html('<span class="gw-hint gw-below">{} {}</span>', short_count(part), name) if part else ""
    return format_html('<span class="gw-num" title="{}">{}</span>{}', f"{total:,}", short_count(total), hint)


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None

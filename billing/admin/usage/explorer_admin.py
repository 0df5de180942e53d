"""The usage explorer, in place of a list of the rollups' rows, which nobody reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from billing.admin.pages import page_context, user_of
from billing.admin.usage.downloads import DOWNLOADS, download
from billing.admin.usage.form import FILTERS, ExplorerForm
from billing.admin.usage.links import Links, shorter_url
from billing.admin.usage.table import MEASURES, Shown, change, measure_text
from billing.models import DailyUsage
from billing.periods import BillingPeriod
from billing.usage_reports import Exploration, Measure, Question, TooMuchUsageError, count_refused, explore
from llm.admin.base import ReadOnlyAdmin
from llm.admin.refusal_summaries import refusals_url
from llm.admin.secrets import without_secrets
from llm.admin.usage.filters import proposed_models
from llm.calls.refusal_counts import KEPT
from llm.models import Account, ApiKey, Usage

MAX_LOGGED = 2000
_TEMPLATE = "admin/billing/usage/explorer.html"


@dataclass(frozen=True, slots=True)
class Headline:
    """One number of the period. change: against the period before; "" where nothing is compared."""

    label: str
    text: str
    exact: str
    change: str
    before: str
    url: str
    is_drawn: bool


@admin.register(DailyUsage)
class DailyUsageAdmin(ReadOnlyAdmin[DailyUsage]):
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if (reply := without_secrets(request)) is not None:
            return reply
        form = ExplorerForm(request.GET)
        may_see_calls = request.user.has_perm("llm.view_usage")
        shown = _answer(form, may_see_calls=may_see_calls) if form.is_valid() else None
        if shown is not None and (kind := request.GET.get("download", "")) in DOWNLOADS:
            _log_download(request, kind)
            return download(shown, kind)
        context = page_context(
            self,
            request,
            "Usage explorer",
            form=form,
            proposed_models=proposed_models,
            may_see_calls=may_see_calls,
            may_add_keys=request.user.has_perm("llm.add_apikey"),
            shorter_url=shorter_url(form) if form.is_too_long else "",
            wrong_fields=[form[name] for name in form.errors if name in form.fields and form[name].is_hidden],
        )
        if shown is not None:
            context |= _page_of(form, shown, may_see_calls=may_see_calls)
        return TemplateResponse(request, _TEMPLATE, context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """A row of a rollup has no page: it is a part of the explorer's figures."""
        raise Http404


def _log_download(request: HttpRequest, kind: str) -> None:
    """Who has taken which figures away."""
    question = "&".join(f"{name}={value}" for name, value in sorted(request.GET.items()) if value)
    LogEntry.objects.create(
        user=user_of(request),
        content_type=ContentType.objects.get_for_model(DailyUsage),
        object_repr="Usage explorer",
        action_flag=CHANGE,
        change_message=f"Downloaded ({kind}): {question}"[:MAX_LOGGED],
    )


def _answer(form: ExplorerForm, *, may_see_calls: bool) -> Shown | None:
    """None: the form says why not."""
    question, data = form.question(), form.cleaned_data
    question = replace(question, zone=_zone(question), prefers_calls=may_see_calls)
    if question.must_read_calls and not may_see_calls:
        form.add_error(None, "This is read from single calls, which your role may not see. Choose another split.")
        return None
    try:
        found = explore(question, with_before=data["compare"] != "no")
    except TooMuchUsageError as error:
        form.add_error(None, str(error))
        return None
    links = Links(form, question, may_see_calls=may_see_calls)
    refused = count_refused(question) if may_see_calls else None
    return Shown(found, links, sort=data["sort"], refused=refused)


def _zone(question: Question) -> str:
    """That of the only account that is asked about, or UTC."""
    accounts = Account.objects.all()
    if question.filters.account_id is not None:
        accounts = accounts.filter(pk=question.filters.account_id)
    elif question.filters.api_key_ids:
        accounts = accounts.filter(pk__in=ApiKey.objects.filter(pk__in=question.filters.api_key_ids).values("account"))
    zones = list(accounts.order_by().values_list("time_zone", flat=True).distinct()[:2])
    return zones[0] if len(zones) == 1 else "UTC"


def _page_of(form: ExplorerForm, shown: Shown, *, may_see_calls: bool) -> dict[str, Any]:
    found, data = shown.found, form.cleaned_data
    links = Links(form, found.question, may_see_calls=may_see_calls)
    return {
        "shown": shown,
        "found": found,
        "question": found.question,
        "compared": found.question.before if found.total_before is not None else None,
        "headlines": _headlines(shown, links),
        "measure_label": MEASURES[found.question.measure],
        "chips": [(form[name].label, form.data[name], links.without(name)) for name in FILTERS if data.get(name)],
        "periods": _periods(links, found.question),
        "downloads": {kind: links.here(download=kind) for kind in DOWNLOADS},
        "chart": shown.chart(),
        "zone": found.question.zone,
        "refused_url": refused_url(found.question, form) if shown.refused else "",
        "is_of_one_account": found.question.filters.account_id is not None,
        "has_no_calls_at_all": found.is_empty and not Usage.objects.exists(),
    }


def refused_url(question: Question, form: ExplorerForm) -> str:
    """The page of refused requests with the same filters, as far back as they are kept."""
    kept = {name: form.data[name] for name in ("account", "key", "model") if form.data.get(name)}
    first = max(question.first, question.last - KEPT)
    return refusals_url({**kept, "first": first.isoformat(), "last": question.last.isoformat()})


def _headlines(shown: Shown, links: Links) -> list[Headline]:
    found = shown.found
    measures = [each for each in Measure if each != Measure.FAILED or shown.has_failures]
    return [_headline(found, measure, links.here(measure=measure.value, sort="")) for measure in measures]


def _headline(found: Exploration, measure: Measure, url: str) -> Headline:
    value = measure.of(found.total)
    before = None if found.total_before is None else measure.of(found.total_before)
    return Headline(
        MEASURES[measure],
        measure_text(measure, value),
        measure_text(measure, value, is_exact=True),
        "" if before is None else change(value, before),
        "" if before is None else measure_text(measure, before, is_exact=True),
        url,
        measure == found.question.measure,
    )


def _periods(links: Links, question: Question) -> list[tuple[str, str, bool]]:
    """Proposed ones: name, page, and whether it is shown."""
    today = timezone.now().date()
    month = BillingPeriod.of(today)
    offered = {
        "Today": (today, today),
        "7 days": (today - timedelta(days=6), today),
        "30 days": (today - timedelta(days=29), today),
        "This month": (month.start, today),
        "Last month": (month.previous.start, month.previous.last_day),
        "90 days": (today - timedelta(days=89), today),
        "12 months": (BillingPeriod.of(month.start - timedelta(days=340)).start, today),
    }
    shown = question.first, question.last
    current = next((name for name, days in offered.items() if days == shown), "")
    return [(name, links.here(first=days[0], last=days[1], unit=""), name == current) for name, days in offered.items()]

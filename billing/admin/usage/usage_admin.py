"""Usage by day, key, model or account, from the rollups. It replaces the list of their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from billing.admin.pages import page_context
from billing.admin.usage.form import UsageReportForm
from billing.models import DailyUsage
from billing.usage_reports import (
    DayUsage,
    IdUsage,
    ModelUsage,
    UsageMeasures,
    UsageReport,
    by_account,
    by_key,
    usage_report,
)
from llm.admin.base import ReadOnlyAdmin
from llm.admin.secrets import without_secrets
from llm.admin.usage.filters import proposed_models
from llm.models import Account, ApiKey

MAX_ROWS = 200
"""For all groupings except by day, of which a report has at most a year's."""


@dataclass(frozen=True, slots=True)
class ReportRow:
    """hint: what the name alone doesn't say, such as a key's account."""

    name: str
    figures: UsageMeasures
    hint: str = ""


@admin.register(DailyUsage)
class DailyUsageAdmin(ReadOnlyAdmin[DailyUsage]):
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if (reply := without_secrets(request)) is not None:
            return reply
        form = UsageReportForm(request.GET)
        context = page_context(self, request, "Usage by day", form=form, proposed_models=proposed_models)
        if form.is_valid():
            report = usage_report(form.question())
            by = form.cleaned_data["by"]
            find, rows_of = _GROUPINGS[by]
            found = find(report)
            limit = len(found) if by == "day" else MAX_ROWS
            context |= {
                "report": report,
                "rows": rows_of(found[:limit]),
                "is_cut_at": limit if len(found) > limit else 0,
            }
            context["title"] = f"Usage by {by}"
        return TemplateResponse(request, "admin/billing/usage/report.html", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Rollup rows have no pages: this redirects to the report."""
        raise Http404


def _rows_of_days(found: Sequence[DayUsage]) -> list[ReportRow]:
    return [ReportRow(f"{each.day:%Y-%m-%d}", each.figures) for each in found]


def _rows_of_models(found: Sequence[ModelUsage]) -> list[ReportRow]:
    return [ReportRow(each.model, each.figures, each.provider) for each in found]


def _rows_of_accounts(found: Sequence[IdUsage]) -> list[ReportRow]:
    accounts = Account.objects.in_bulk([each.id for each in found])
    return [ReportRow(accounts[each.id].name, each.figures) for each in found]


def _rows_of_keys(found: Sequence[IdUsage]) -> list[ReportRow]:
    """With the account's name: keys of different accounts often have the same name."""
    keys = ApiKey.objects.select_related("account").in_bulk([each.id for each in found])
    return [ReportRow(str(keys[each.id]), each.figures, keys[each.id].account.name) for each in found]


_Grouping = tuple[Callable[[UsageReport], Sequence[Any]], Callable[[Sequence[Any]], list[ReportRow]]]
# What a report can be grouped by: how to find the groups (days in order, all others by cost, highest first; one more
# than the limit, if there are more), and how to show them.
_GROUPINGS: Mapping[str, _Grouping] = {
    "day": (lambda report: report.by_day, _rows_of_days),
    "model": (lambda report: report.by_model, _rows_of_models),
    "account": (lambda report: by_account(report.question, limit=MAX_ROWS + 1), _rows_of_accounts),
    "key": (lambda report: by_key(report.question, limit=MAX_ROWS + 1), _rows_of_keys),
}

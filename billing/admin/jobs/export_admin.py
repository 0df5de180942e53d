"""Exports of a month: requested, watched and downloaded."""

from __future__ import annotations

from functools import partial
from typing import Any

from django import forms
from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from billing.admin.jobs.month_admin import last_month
from billing.admin.jobs.pages import JobAdmin, ask_for
from billing.admin.pages import AccountNameField, MonthPickerField, page_context, require
from billing.exports.downloads import Download, file_of, files_of
from billing.exports.registry import FORMATS
from billing.jobs.queue import queue_export
from billing.models import ExportJob

RUN_PERMISSIONS = ("billing.view_exportjob", "billing.run_export")

_FORMAT_LABELS = {
    "csv": "CSV, for any spreadsheet",
    "xlsx": "Excel workbook",
    "jsonl": "JSON lines",
    "focus": "FOCUS 1.2, cost and usage",
    "xero": "Xero or QuickBooks import",
}


class ExportForm(forms.Form):
    month = MonthPickerField(initial=last_month)
    account = AccountNameField(
        required=False,
        help_text=(
            "Empty: all accounts. An export of one account is for the customer: it leaves out our costs, and "
            "the account's keys can download it."
        ),
    )
    formats = forms.MultipleChoiceField(
        choices=[(name, _FORMAT_LABELS.get(name, name)) for name in FORMATS],
        initial=["csv"],
        widget=forms.CheckboxSelectMultiple,
    )


@admin.register(ExportJob)
class ExportJobAdmin(JobAdmin[ExportJob]):
    unit = "rows of usage"
    list_display = ("month", "whose", "state_now", "how_far", "in_formats", "asked_by", "asked_at")
    list_select_related = ("requested_by", "account")

    def get_urls(self) -> list[URLPattern]:
        return [
            path("run/", self._page(run_view), name="billing_exportjob_run"),
            path("<int:object_id>/file/<str:name>/", self._page(file_view), name="billing_exportjob_file"),
            *super().get_urls(),
        ]

    def _page(self, view: Any) -> Any:
        return self.admin_site.admin_view(partial(view, self))

    def page_of(self, job: ExportJob) -> dict[str, Any]:
        return {"files": files_of(job)}

    @admin.display(description="Account")
    def whose(self, job: ExportJob) -> str:
        return str(job.account or "all")

    @admin.display(description="Formats")
    def in_formats(self, job: ExportJob) -> str:
        return ", ".join(job.formats)


def run_view(export_admin: ExportJobAdmin, request: HttpRequest) -> HttpResponse:
    require(request, *RUN_PERMISSIONS)
    form = ExportForm(request.POST if request.method == "POST" else None)
    if form.is_bound and form.is_valid():
        asked = form.cleaned_data
        job = ExportJob(period_start=asked["month"].start, account=asked["account"], formats=asked["formats"])
        return ask_for(request, job, queue_export)
    context = page_context(export_admin, request, "Export a month", form=form)
    return TemplateResponse(request, "admin/billing/exportjob/run.html", context)


def file_view(export_admin: ExportJobAdmin, request: HttpRequest, object_id: int, name: str) -> HttpResponseBase:
    require(request, "billing.view_exportjob")
    job = export_admin.get_object(request, str(object_id))
    found = None if job is None else file_of(job, name)
    if found is None:
        raise Http404
    return Download(found)

"""Exports of a month: asked for, watched and fetched."""

from __future__ import annotations

from functools import partial
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.admin.months import last_month
from billing.admin.pages import MonthField, page_context, require, user_of
from billing.background import queue_export
from billing.downloads import Download, file_of, files_of
from billing.enums import ExportState
from billing.exports import FORMATS
from billing.models import ExportJob
from llm.admin.base import ReadOnlyAdmin
from llm.admin.format import NOTHING, badge, moment

RUN_PERMISSIONS = ("billing.view_exportjob", "billing.run_export")

_TONES = {
    ExportState.WAITING: "waiting",
    ExportState.RUNNING: "open",
    ExportState.DONE: "sent",
    ExportState.FAILED: "problems",
}
_FORMAT_LABELS = {
    "csv": "CSV, for any spreadsheet",
    "xlsx": "Excel workbook",
    "jsonl": "JSON lines",
    "focus": "FOCUS 1.2, cost and usage",
    "xero": "Xero or QuickBooks import",
}


class ExportForm(forms.Form):
    month = MonthField(initial=last_month)
    formats = forms.MultipleChoiceField(
        choices=[(name, _FORMAT_LABELS.get(name, name)) for name in FORMATS],
        initial=["csv"],
        widget=forms.CheckboxSelectMultiple,
    )


@admin.register(ExportJob)
class ExportJobAdmin(ReadOnlyAdmin[ExportJob]):
    list_display = ("month", "state_now", "written", "in_formats", "asked_by", "asked_at")
    list_filter = ("state",)
    list_select_related = ("requested_by",)
    sortable_by = ()

    def get_urls(self) -> list[URLPattern]:
        return [
            path("run/", self._page(run_view), name="billing_exportjob_run"),
            path("<int:object_id>/file/<str:name>/", self._page(file_view), name="billing_exportjob_file"),
            *super().get_urls(),
        ]

    def _page(self, view: Any) -> Any:
        return self.admin_site.admin_view(partial(view, self))

    def get_fieldsets(self, request: HttpRequest, obj: ExportJob | None = None) -> Any:
        """The page is a template of its own."""
        return ((None, {"fields": ("folder",)}),)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        job = self.get_object(request, object_id)
        context: dict[str, Any] = {"subtitle": None}
        if job is not None:
            context |= {
                "title": str(job),
                "job": job,
                "state": self.state_now(job),
                "files": files_of(job),
                "is_unfinished": job.state in (ExportState.WAITING, ExportState.RUNNING),
            }
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    @admin.display(description="Month")
    def month(self, job: ExportJob) -> str:
        return f"{job.period_start:%Y-%m}"

    @admin.display(description="State")
    def state_now(self, job: ExportJob) -> SafeString:
        state = ExportState(job.state)
        return badge(_TONES[state], state.label)

    @admin.display(description="Rows of usage")
    def written(self, job: ExportJob) -> SafeString | str:
        if not job.total_rows:
            return NOTHING
        if job.state == ExportState.DONE:
            return format_html('<span class="gw-num">{}</span>', f"{job.total_rows:,}")
        return format_html(
            '<progress class="bl-progress" max="{}" value="{}"></progress><span class="gw-hint gw-num">{} of {}</span>',
            job.total_rows,
            job.progress_rows,
            f"{job.progress_rows:,}",
            f"{job.total_rows:,}",
        )

    @admin.display(description="Formats")
    def in_formats(self, job: ExportJob) -> str:
        return ", ".join(job.formats)

    @admin.display(description="Asked for by")
    def asked_by(self, job: ExportJob) -> str:
        return str(job.requested_by) if job.requested_by else "the system"

    @admin.display(description="When (UTC)")
    def asked_at(self, job: ExportJob) -> str:
        return moment(job.created_at)


def run_view(export_admin: ExportJobAdmin, request: HttpRequest) -> HttpResponse:
    require(request, *RUN_PERMISSIONS)
    form = ExportForm(request.POST if request.method == "POST" else None)
    if form.is_bound and form.is_valid():
        job = _queue(request, form)
        export_admin.message_user(request, f"{job} is under way.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:billing_exportjob_change", args=(job.pk,)))
    context = page_context(export_admin, request, "Export a month", form=form)
    return TemplateResponse(request, "admin/billing/exportjob/run.html", context)


@transaction.atomic
def _queue(request: HttpRequest, form: ExportForm) -> ExportJob:
    job = ExportJob.objects.create(
        period_start=form.cleaned_data["month"].start,
        formats=form.cleaned_data["formats"],
        requested_by=user_of(request),
    )
    queue_export(job.pk)
    return job


def file_view(export_admin: ExportJobAdmin, request: HttpRequest, object_id: int, name: str) -> HttpResponseBase:
    require(request, *RUN_PERMISSIONS)
    job = export_admin.get_object(request, str(object_id))
    found = None if job is None else file_of(job, name)
    if found is None:
        raise Http404
    return Download(found)

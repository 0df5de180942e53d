"""What would otherwise need a console: price imports, price corrections, providers' reports, ledger audits.

Each has a page that asks for what the command takes as arguments, and a job that a worker does. A price correction is
previewed first, by a job too: with many calls that takes a while.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.safestring import SafeString

from billing.admin.jobs.pages import JobAdmin, ask_for
from billing.admin.pages import page_context, require
from billing.enums import BooksJobKind, JobState
from billing.jobs.queue import queue_books_job
from billing.models import BooksJob
from billing.reconcile import reporting_providers
from llm.admin.format import NOTHING, badge
from llm.admin.usage.filters import DateInput
from llm.prices.genai import PROVIDER_IDS
from llm.providers.registry import booked_providers

MAX_REPORT_BYTES = 8 * 1024**2
MAX_DAYS = 3 * 366

_UNITS = {
    BooksJobKind.RERATE: "calls",
    BooksJobKind.IMPORT_PRICES: "price list",
    BooksJobKind.IMPORT_COSTS: "file",
    BooksJobKind.VERIFY: "days",
}


class RerateForm(forms.Form):
    provider = forms.ChoiceField(choices=lambda: [(name, name) for name in booked_providers()])
    model = forms.CharField(
        max_length=200,
        widget=forms.TextInput(attrs={"spellcheck": "false", "size": 40}),
        help_text="The provider's name for the model.",
    )
    first = forms.DateField(label="From", widget=DateInput())
    last = forms.DateField(label="To", widget=DateInput(), help_text="Inclusive. In the days of each call's account.")
    reason = forms.CharField(
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 60}),
        help_text="Recorded with each call that changes.",
    )

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        first, last = data.get("first"), data.get("last")
        if first and last and last < first:
            self.add_error("last", "This is before the start date.")
        elif first and last and last - first > timedelta(days=MAX_DAYS):
            self.add_error("last", f"At most {MAX_DAYS} days at once.")
        return data

    def parameters(self) -> dict[str, object]:
        data = self.cleaned_data
        return {
            "provider": data["provider"],
            "model": data["model"],
            "first_day": data["first"].isoformat(),
            "last_day": data["last"].isoformat(),
            "reason": data["reason"],
            "is_dry": True,
        }


class ImportPricesForm(forms.Form):
    providers = forms.MultipleChoiceField(
        choices=lambda: [(name, name) for name in sorted(PROVIDER_IDS)],
        widget=forms.CheckboxSelectMultiple,
        initial=lambda: sorted(PROVIDER_IDS),
    )
    effective_from = forms.DateField(
        label="In force from",
        required=False,
        widget=DateInput(),
        help_text="Midnight UTC. Empty: now. New models get their full price history.",
    )

    def parameters(self) -> dict[str, object]:
        day = self.cleaned_data["effective_from"]
        moment = None if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC).isoformat()
        return {"providers": self.cleaned_data["providers"], "effective_from": moment}


class ImportCostsForm(forms.Form):
    provider = forms.ChoiceField(choices=lambda: [(name, name) for name in reporting_providers()])
    file = forms.FileField(
        max_length=200,
        help_text=f"JSON as the provider's cost or usage API returns it, up to {MAX_REPORT_BYTES // 1024**2} MB.",
    )

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file.size > MAX_REPORT_BYTES:
            raise ValidationError(f"The file is larger than {MAX_REPORT_BYTES // 1024**2} MB.")
        return file

    def parameters(self) -> dict[str, object]:
        return {"provider": self.cleaned_data["provider"], "file_name": self.cleaned_data["file"].name}


class AuditForm(forms.Form):
    """Asks nothing: everything is audited."""

    def parameters(self) -> dict[str, object]:
        return {}


@admin.register(BooksJob)
class BooksJobAdmin(JobAdmin[BooksJob]):
    list_display = ("job", "state_now", "result", "how_far", "asked_by", "asked_at")
    list_filter = ("state", "kind")

    def get_urls(self) -> list[URLPattern]:
        pages = (
            ("rerate", self.rerate_view),
            ("import-prices", self.import_prices_view),
            ("import-costs", self.import_costs_view),
            ("audit", self.audit_view),
        )
        return [
            *(
                path(f"{name}/", self.admin_site.admin_view(view), name=f"billing_booksjob_{name.replace('-', '_')}")
                for name, view in pages
            ),
            path("<int:job_id>/apply/", self.admin_site.admin_view(self.apply_view), name="billing_booksjob_apply"),
            *super().get_urls(),
        ]

    def rerate_view(self, request: HttpRequest) -> HttpResponse:
        require(request, "billing.rerate_calls", "llm.view_price")
        today = timezone.now().date().isoformat()
        asked = {name: request.GET.get(name, "") for name in ("provider", "model", "first", "last", "reason")}
        initial = {"last": today, **{name: value for name, value in asked.items() if value}}
        data = request.POST if request.method == "POST" else None
        return self._ask(request, BooksJobKind.RERATE, RerateForm(data, initial=initial), "Apply prices to past calls")

    def import_prices_view(self, request: HttpRequest) -> HttpResponse:
        require(request, "billing.import_prices", "llm.view_price")
        data = request.POST if request.method == "POST" else None
        return self._ask(request, BooksJobKind.IMPORT_PRICES, ImportPricesForm(data), "Import the price list")

    def import_costs_view(self, request: HttpRequest) -> HttpResponse:
        require(request, "billing.import_costs", "billing.view_costimport")
        is_sent = request.method == "POST"
        form = ImportCostsForm(request.POST, request.FILES) if is_sent else ImportCostsForm()
        return self._ask(request, BooksJobKind.IMPORT_COSTS, form, "Import a provider's report")

    def audit_view(self, request: HttpRequest) -> HttpResponse:
        require(request, "billing.audit_books")
        form = AuditForm(request.POST) if request.method == "POST" else AuditForm()
        return self._ask(request, BooksJobKind.VERIFY, form, "Audit the ledger")

    def apply_view(self, request: HttpRequest, job_id: int) -> HttpResponse:
        """Do what a finished preview has shown. Sent twice, the second job finds nothing to change."""
        require(request, "billing.rerate_calls")
        preview = BooksJob.objects.filter(pk=job_id, kind=BooksJobKind.RERATE, state=JobState.DONE).first()
        if request.method != "POST" or preview is None or not preview.parameters.get("is_dry"):
            raise Http404
        parameters = {**preview.parameters, "is_dry": False}
        return ask_for(request, BooksJob(kind=BooksJobKind.RERATE, parameters=parameters), queue_books_job)

    def _ask(self, request: HttpRequest, kind: BooksJobKind, form: Any, title: str) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if form.is_bound and form.is_valid():
            job = BooksJob(kind=kind, parameters=form.parameters())
            if "file" in form.cleaned_data:
                job.content = form.cleaned_data["file"].read()
            return ask_for(request, job, queue_books_job)
        context = page_context(self, request, title, form=form, kind=kind)
        return TemplateResponse(request, "admin/billing/booksjob/ask.html", context)

    def page_of(self, job: BooksJob) -> dict[str, Any]:
        return {
            "unit": _UNITS[BooksJobKind(job.kind)],
            "is_preview": job.state == JobState.DONE and bool(job.parameters.get("is_dry")),
        }

    @admin.display(description="Job")
    def job(self, job: BooksJob) -> str:
        return str(job)

    @admin.display(description="Result")
    def result(self, job: BooksJob) -> SafeString | str:
        if job.kind == BooksJobKind.VERIFY and job.state == JobState.DONE:
            return badge("problems", f"{job.problems:,}") if job.problems else badge("no problems", "no problems")
        return job.summary or NOTHING

"""Jobs on a whole month, done by a worker: draft its invoices, or verify the frozen ones against their calls."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.safestring import SafeString

from billing.admin.jobs.pages import JobAdmin, ask_for
from billing.admin.pages import AccountNameField, MonthPickerField, page_context, require
from billing.enums import JobState, MonthJobKind
from billing.errors import BillingError
from billing.invoices.closing import require_begun
from billing.jobs.queue import queue_month_job
from billing.models import Invoice, MonthJob
from billing.periods import BillingPeriod
from llm.admin.base import ReadOnlyAdmin
from llm.admin.format import NOTHING, badge

_COUNT_LABELS = {
    "drafted": "Drafted",
    "kept": "Already submitted, unchanged",
    "empty": "Without usage",
    "credited": "Credit notes drafted",
    "invoices": "Invoices checked",
    "calls": "Calls read",
}
_PROBLEM_LABELS = {MonthJobKind.CLOSE: "Could not be billed", MonthJobKind.VERIFY: "Differences"}


def last_month() -> str:
    return str(BillingPeriod.of(timezone.now().date()).previous)


class MonthForm(forms.Form):
    month = MonthPickerField(initial=last_month)
    account = AccountNameField(required=False, help_text="Empty: all accounts.")


class CloseForm(MonthForm):
    """A job for a month to come would only fail, a moment later and somewhere else."""

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if data.get("month") and "account" in data:
            try:
                require_begun(data["month"], data["account"])
            except BillingError as error:
                self.add_error("month", str(error))
        return data


_FORMS = {MonthJobKind.CLOSE: CloseForm, MonthJobKind.VERIFY: MonthForm}


def close_view(invoice_admin: ReadOnlyAdmin[Invoice], request: HttpRequest) -> HttpResponse:
    require(request, "billing.view_invoice", "billing.prepare_invoice")
    return _ask(invoice_admin, request, MonthJobKind.CLOSE, title="Generate invoices")


def verify_view(invoice_admin: ReadOnlyAdmin[Invoice], request: HttpRequest) -> HttpResponse:
    require(request, "billing.view_invoice")
    return _ask(invoice_admin, request, MonthJobKind.VERIFY, title="Verify a month")


def _ask(
    invoice_admin: ReadOnlyAdmin[Invoice], request: HttpRequest, kind: MonthJobKind, *, title: str
) -> HttpResponse:
    """A GET may prefill month and account; a POST requests the job."""
    data = request.POST if request.method == "POST" else None
    proposed = {"month": request.GET.get("month") or last_month(), "account": request.GET.get("account", "")}
    form = _FORMS[kind](data, initial=proposed)
    if form.is_bound and form.is_valid():
        period, account = form.cleaned_data["month"], form.cleaned_data["account"]
        return ask_for(request, MonthJob(kind=kind, period_start=period.start, account=account), queue_month_job)
    context = page_context(invoice_admin, request, title, form=form, kind=kind)
    return TemplateResponse(request, "admin/billing/invoice/month.html", context)


@admin.register(MonthJob)
class MonthJobAdmin(JobAdmin[MonthJob]):
    """Visible to everyone who may view invoices: a job says nothing that its invoices don't."""

    unit = "accounts"
    list_display = ("job", "state_now", "problems_found", "how_far", "asked_by", "asked_at")
    list_filter = ("state", "kind")
    list_select_related = ("requested_by", "account")

    def has_view_permission(self, request: HttpRequest, obj: MonthJob | None = None) -> bool:
        return request.user.has_perm("billing.view_invoice")

    def page_of(self, job: MonthJob) -> dict[str, Any]:
        figures = [(_COUNT_LABELS.get(name, name), number) for name, number in job.counts.items()]
        label = _PROBLEM_LABELS[MonthJobKind(job.kind)]
        return {"figures": [*figures, (label, job.problems)], "problems_label": label}

    @admin.display(description="Job")
    def job(self, job: MonthJob) -> str:
        return str(job)

    @admin.display(description="Problems")
    def problems_found(self, job: MonthJob) -> SafeString | str:
        if job.state != JobState.DONE:
            return NOTHING
        return badge("problems", f"{job.problems:,}") if job.problems else badge("no problems", "none")

"""Pages for a whole month: draft its invoices, and check those that are frozen against their calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from billing.admin.pages import AccountNameField, MonthField, page_context, require, user_of
from billing.admin.steps import BUSY
from billing.closing import ClosingReport, close_month
from billing.periods import Period
from billing.verify import verify_month

if TYPE_CHECKING:
    from billing.admin.invoices import InvoiceAdmin

MOST_NAMED = 10


def last_month() -> str:
    return str(Period.of(timezone.now().date()).previous)


class MonthForm(forms.Form):
    month = MonthField(initial=last_month)
    account = AccountNameField(required=False, help_text="Empty: all of them.")


def close_view(invoice_admin: InvoiceAdmin, request: HttpRequest) -> HttpResponse:
    """Drafts are made by a POST; what came of it is said on the queue."""
    require(request, "billing.view_invoice", "billing.prepare_invoice")
    form = MonthForm(request.POST if request.method == "POST" else None)
    if form.is_bound and form.is_valid():
        period = form.cleaned_data["month"]
        try:
            report = close_month(period, account=form.cleaned_data["account"], user=user_of(request))
        except OperationalError:
            form.add_error(None, BUSY)
        else:
            _tell(invoice_admin, request, period, report)
            return HttpResponseRedirect(f"{reverse('admin:billing_invoice_changelist')}?month={period}")
    context = page_context(invoice_admin, request, "Close a month", form=form)
    return TemplateResponse(request, "admin/billing/invoice/close.html", context)


def verify_view(invoice_admin: InvoiceAdmin, request: HttpRequest) -> HttpResponse:
    """Reads every call of the month, so it is asked for by a POST; it changes nothing."""
    require(request, "billing.view_invoice")
    data = request.POST if request.method == "POST" else None
    form = MonthForm(data, initial={"month": request.GET.get("month") or last_month()})
    context: dict[str, Any] = {"form": form}
    if form.is_bound and form.is_valid():
        period, account = form.cleaned_data["month"], form.cleaned_data["account"]
        try:
            found = verify_month(period, account_id=None if account is None else account.pk)
        except OperationalError:
            form.add_error(None, "There are too many calls to check them while you wait: run “manage.py verify_books”.")
        else:
            context |= {"findings": found, "period": period}
    page = page_context(invoice_admin, request, "Check a month", **context)
    return TemplateResponse(request, "admin/billing/invoice/verify.html", page)


def _tell(invoice_admin: InvoiceAdmin, request: HttpRequest, period: Period, report: ClosingReport) -> None:
    parts = ((report.drafted, "drafted"), (report.kept, "submitted before and kept"), (report.empty, "without usage"))
    counted = ", ".join(f"{len(names):,} {what}" for names, what in parts if names)
    level = messages.SUCCESS if report.drafted or not report.failed else messages.WARNING
    invoice_admin.message_user(request, f"{period}: {counted or 'nothing to bill'}.", level)
    for name, why in report.failed[:MOST_NAMED]:
        invoice_admin.message_user(request, f"{name}: {why}", messages.ERROR)
    if (more := len(report.failed) - MOST_NAMED) > 0:
        invoice_admin.message_user(request, f"{more:,} more accounts could not be billed.", messages.ERROR)

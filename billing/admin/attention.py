"""What of billing waits for staff, or went wrong: it stands with the gateway's own on the index page."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.urls import reverse

from billing.enums import ExportState, InvoiceState
from billing.models import ExportJob, Invoice
from llm.admin.attention import Attention, counted, look_too, things

OLD_AFTER = timedelta(days=7)
FAILED_WITHIN = timedelta(days=7)


def _waiting_invoices(now: datetime) -> Attention | None:
    number = counted(Invoice.objects.filter(state=InvoiceState.IN_REVIEW))
    if not number:
        return None
    text = f"{things(number, 'invoice')} {'waits' if number == 1 else 'wait'} for approval"
    return Attention(text, _invoices_url(InvoiceState.IN_REVIEW), "Review")


def _old_drafts(now: datetime) -> Attention | None:
    number = counted(Invoice.objects.filter(state=InvoiceState.DRAFT, created_at__lt=now - OLD_AFTER))
    if not number:
        return None
    text = f"{things(number, 'draft')} {'is' if number == 1 else 'are'} older than {OLD_AFTER.days} days"
    return Attention(text, _invoices_url(InvoiceState.DRAFT), "Drafts")


def _failed_exports(now: datetime) -> Attention | None:
    number = counted(ExportJob.objects.filter(state=ExportState.FAILED, ended_at__gte=now - FAILED_WITHIN))
    if not number:
        return None
    url = f"{reverse('admin:billing_exportjob_changelist')}?state__exact={ExportState.FAILED}"
    return Attention(f"{things(number, 'export')} failed within the last {FAILED_WITHIN.days} days", url, "Exports")


def _invoices_url(state: InvoiceState) -> str:
    return f"{reverse('admin:billing_invoice_changelist')}?state__exact={state}"


look_too(_waiting_invoices, permission="billing.view_invoice")
look_too(_old_drafts, permission="billing.view_invoice")
look_too(_failed_exports, permission="billing.view_exportjob")

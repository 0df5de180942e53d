"""What in billing waits for staff or went wrong. The index page lists it with the gateway's own findings."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.urls import reverse
from rest_framework.authtoken.models import Token

from billing.enums import InvoiceState, JobState
from billing.models import BooksJob, ExportJob, Invoice, MonthJob
from billing.models.jobs import Job
from billing.models.tokens import PLAIN_TOKENS_WORK_FOR
from billing.staff.plain_tokens import plain_tokens_end_at
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
    return _failed(ExportJob, now, "export", link="Exports")


def _failed_month_jobs(now: datetime) -> Attention | None:
    return _failed(MonthJob, now, "month job", link="Month jobs")


def _failed_books_jobs(now: datetime) -> Attention | None:
    return _failed(BooksJob, now, "price or audit job", link="Jobs")


def _failed(model: type[Job], now: datetime, thing: str, *, link: str) -> Attention | None:
    failed = model._default_manager.filter(state=JobState.FAILED, ended_at__gte=now - FAILED_WITHIN)
    number = counted(failed)
    if not number:
        return None
    url = f"{reverse(f'admin:billing_{model._meta.model_name}_changelist')}?state__exact={JobState.FAILED}"
    return Attention(f"{things(number, thing)} failed within the last {FAILED_WITHIN.days} days", url, link)


def _plain_tokens(now: datetime) -> Attention | None:
    ends_at = plain_tokens_end_at()
    if ends_at is None or ends_at <= now:
        return None
    number = counted(Token.objects.filter(created__lte=ends_at - PLAIN_TOKENS_WORK_FOR))
    if not number:
        return None
    text = f"{things(number, 'API token')} of the former kind {'ends' if number == 1 else 'end'} on {ends_at:%Y-%m-%d}"
    return Attention(text, reverse("admin:billing_stafftoken_changelist"), "API tokens")


def _invoices_url(state: InvoiceState) -> str:
    return f"{reverse('admin:billing_invoice_changelist')}?state__exact={state}"


look_too(_waiting_invoices, permission="billing.view_invoice")
look_too(_old_drafts, permission="billing.view_invoice")
look_too(_failed_exports, permission="billing.view_exportjob")
look_too(_failed_month_jobs, permission="billing.view_invoice")
look_too(_failed_books_jobs, permission="billing.view_booksjob")
look_too(_plain_tokens, permission="billing.view_stafftoken")

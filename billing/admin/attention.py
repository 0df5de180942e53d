"""What in billing waits for staff or went wrong. The index page lists it with the gateway's own findings."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.urls import reverse
from rest_framework.authtoken.models import Token

from billing.admin.invoices.due import overdue
from billing.admin.invoices.review_queue import with_flag
from billing.enums import InvoiceState, JobState
from billing.models import BooksJob, ExportJob, Invoice, MonthJob
from billing.models.jobs import Job
from billing.models.tokens import PLAIN_TOKENS_WORK_FOR
from billing.staff.plain_tokens import plain_tokens_end_at
from llm.admin.attention import MAX_COUNTED, Attention, counted, look_too, things

OLD_AFTER = timedelta(days=7)
FAILED_WITHIN = timedelta(days=7)
STARTS_WITHIN = timedelta(minutes=5)
_BEHIND_UTC = timedelta(hours=12)


def _waiting_invoices(now: datetime) -> Attention | None:
    number = counted(Invoice.objects.filter(state=InvoiceState.IN_REVIEW))
    if not number:
        return None
    text = f"{things(number, 'invoice')} {'waits' if number == 1 else 'wait'} for approval"
    return Attention(text, _invoices_url(InvoiceState.IN_REVIEW), "Review")


def _approved_invoices(now: datetime) -> Attention | None:
    number = counted(Invoice.objects.filter(state=InvoiceState.APPROVED))
    if not number:
        return None
    text = f"{things(number, 'approved invoice')} {'is' if number == 1 else 'are'} not issued yet"
    return Attention(text, _invoices_url(InvoiceState.APPROVED), "Issue")


def _drafts(now: datetime) -> Attention | None:
    """Of months that are over everywhere: those of the current month are drafted early on purpose."""
    drafts = Invoice.objects.filter(
        state=InvoiceState.DRAFT, period_start__lt=(now - _BEHIND_UTC).date().replace(day=1)
    )
    number = counted(drafts)
    if not number:
        return None
    text = f"{things(number, 'draft')} {'waits' if number == 1 else 'wait'} to be submitted"
    if old := counted(drafts.filter(created_at__lt=now - OLD_AFTER)):
        text += f", {'more than ' if old > MAX_COUNTED else ''}{min(old, MAX_COUNTED)} for over {OLD_AFTER.days} days"
    return Attention(text, _invoices_url(InvoiceState.DRAFT), "Drafts")


def _blocked_invoices(now: datetime) -> Attention | None:
    unfinished = Invoice.objects.filter(state__in=(InvoiceState.DRAFT, InvoiceState.IN_REVIEW, InvoiceState.APPROVED))
    number = counted(with_flag(unfinished, "unpriced"))
    if not number:
        return None
    text = f"{things(number, 'invoice')} can't be issued before calls without a price have one"
    return Attention(text, f"{reverse('admin:billing_invoice_changelist')}?flagged=unpriced", "Invoices")


def _overdue_invoices(now: datetime) -> Attention | None:
    number = counted(overdue(Invoice.objects.all(), now))
    if not number:
        return None
    text = f"{things(number, 'invoice')} {'is' if number == 1 else 'are'} overdue"
    return Attention(text, f"{reverse('admin:billing_invoice_changelist')}?due=overdue", "Overdue")


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


def _waiting_jobs(now: datetime) -> Attention | None:
    """Jobs that no worker has started: one does so within a minute."""
    waiting = {
        model: counted(model._default_manager.filter(state=JobState.WAITING, created_at__lt=now - STARTS_WITHIN))
        for model in (MonthJob, ExportJob, BooksJob)
    }
    if not (number := sum(waiting.values())):
        return None
    model = next(model for model, number_of_it in waiting.items() if number_of_it)
    url = f"{reverse(f'admin:billing_{model._meta.model_name}_changelist')}?state__exact={JobState.WAITING}"
    text = f"{things(number, 'job')} {'waits' if number == 1 else 'wait'} for a worker: check that Celery is running"
    return Attention(text, url, "Jobs")


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


look_too(_overdue_invoices, "billing.view_invoice")
look_too(_approved_invoices, "billing.view_invoice")
look_too(_waiting_invoices, "billing.view_invoice")
look_too(_drafts, "billing.view_invoice")
look_too(_blocked_invoices, "billing.view_invoice")
look_too(_failed_exports, "billing.view_exportjob")
look_too(_failed_month_jobs, "billing.view_invoice")
look_too(_failed_books_jobs, "billing.view_booksjob")
look_too(_waiting_jobs, "billing.view_invoice", "billing.view_exportjob")
look_too(_plain_tokens, "billing.view_stafftoken")

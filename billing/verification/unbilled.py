"""Accounts that owe a month and have no invoice for it: it was voided and not drafted again, or never drafted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

from django.db.models import Exists, OuterRef, QuerySet

from billing.enums import InvoiceKind, InvoiceState
from billing.invoices.closing import is_billed, last_ended, months_of_fees, terms_by_plan
from billing.invoices.one_offs import billed_amounts
from billing.models import Invoice, OneOffLine
from billing.periods import BillingPeriod
from billing.verification.recount import CLOSED, count_calls
from llm.audit import Findings
from llm.models import Account, Usage
from llm.money import plural


def problems_of_unbilled(period: BillingPeriod, account_id: int | None, now: datetime) -> Iterator[str]:
    """Sentences. A draft counts as an invoice; usage that yields no line isn't owed.

    Accounts that are billed from a later month on, or whose month isn't over yet, are left out.
    """
    with_calls = set(_with_calls(period, account_id).values_list("pk", flat=True))
    terms = terms_by_plan()
    for account in _without_invoice(period, account_id):
        if period > last_ended(account, now) or not is_billed(account, period):
            continue
        counted = count_calls(account.pk, period, now, Findings()).values() if account.pk in with_calls else ()
        if any(sums.is_chargeable for sums in counted):
            yield _sentence(account, period, plural(sum(sums.calls for sums in counted), "billable call"))
        elif period in months_of_fees(account, period, terms):
            yield _sentence(account, period, "fees")
        elif _has_one_offs(account, period):
            yield _sentence(account, period, "one-off lines")


def _has_one_offs(account: Account, period: BillingPeriod) -> bool:
    """Whether a charge was added by hand that no later invoice bills."""
    added = OneOffLine.objects.filter(account=account, period_start=period.start, removed_at=None)
    charges = list(added.filter(amount__gt=Decimal(0)))
    billed = billed_amounts(account.pk, charges) if charges else {}
    return any(not billed.get(each.key) for each in charges)


def _without_invoice(period: BillingPeriod, account_id: int | None) -> QuerySet[Account]:
    invoices = _invoices(period).exclude(state=InvoiceState.VOID).filter(account=OuterRef("pk"))
    accounts = Account.objects.filter(~Exists(invoices)).select_related("billing_profile").order_by("id")
    accounts = accounts.prefetch_related("billing_profile__former_plans")
    return accounts if account_id is None else accounts.filter(pk=account_id)


def _with_calls(period: BillingPeriod, account_id: int | None) -> QuerySet[Account]:
    calls = Usage.objects.near_days(period.start, period.last_day).filter(
        account=OuterRef("pk"), local_day__gte=period.start, local_day__lt=period.end, status__in=CLOSED
    )
    return _without_invoice(period, account_id).filter(Exists(calls))


def _invoices(period: BillingPeriod) -> QuerySet[Invoice]:
    """Regular ones: late usage is on another kind only if there was a regular invoice before."""
    return Invoice.objects.filter(kind=InvoiceKind.REGULAR, period_start=period.start)


def _sentence(account: Account, period: BillingPeriod, owed: str) -> str:
    was_voided = _invoices(period).filter(account=account).exists()
    what = "its invoice is void, and nothing else bills" if was_voided else "it has no invoice, and nothing bills"
    command = f"manage.py close_month {period} --account {shlex.quote(account.name)}"
    return f"{account}, {period}: {what} its {owed}: generate its invoice with “{command}”."

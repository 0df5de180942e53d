"""Rows of billing for tests. Append what is missing; keep what others use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.db import connection

from billing.currencies import DECIMALS
from billing.enums import CreditKind, InvoiceKind, InvoiceState, LineKind
from billing.invoices.digests import content_digest
from billing.invoices.parties import bill_to_facts, seller_facts
from billing.models import BillingProfile, DailyUsage, ExchangeRate, Invoice, InvoiceLine, InvoiceSeries, PlanVersion
from billing.models.invoices import FINAL_STATES, FROZEN_STATES
from billing.plans import default_plan
from billing.rollup.summaries import mark_stale
from llm.db.triggers import drop_triggers, install_triggers
from llm.models import Account, ApiKey
from llm.money import round_half_away

OCTOBER = date(2026, 10, 1)
CUTOFF = datetime(2026, 11, 1, 6, 0, 12, 345678, tzinfo=UTC)
CREATED_AT = datetime(2026, 11, 15, tzinfo=UTC)


def make_account(name: str = "Acme", **values: Any) -> Account:
    """The one of that name, made where there is none: in November, whatever the date is when the tests run."""
    account, is_new = Account.objects.get_or_create(name=name, defaults=values)
    if is_new:
        account.created_at = CREATED_AT
        Account.objects.filter(pk=account.pk).update(created_at=CREATED_AT)
    return account


def make_user(name: str, **values: Any) -> User:
    return User.objects.get_or_create(username=name, defaults=values)[0]


def make_profile(account: Account | None = None, **values: Any) -> BillingProfile:
    """On the default plan, which is in USD, unless another is given."""
    account = account or make_account()
    defaults = {"legal_name": account.name, "plan": default_plan(), "time_zone": account.time_zone}
    return BillingProfile.objects.create(account=account, **{**defaults, **values})


def make_daily_usage(key: ApiKey, day: date, **values: Any) -> DailyUsage:
    """A row of the rollups; its day is not summed up yet."""
    mark_stale([day])
    defaults = {"provider": "openai", "model": "gpt", "calls": 1, "prompt_tokens": 10, "completion_tokens": 5}
    return DailyUsage.objects.create(account_id=key.account_id, api_key=key, local_day=day, **{**defaults, **values})


def make_exchange_rate(currency: str, per_usd: str, *, on: date = date(2026, 10, 30)) -> ExchangeRate:
    return ExchangeRate.objects.create(currency=currency, per_usd=Decimal(per_usd), on=on, source="ECB reference rate")


def make_line(invoice: Invoice, amount: str, description: str = "gpt-test, input tokens", **values: Any) -> InvoiceLine:
    """One more line of a draft; its totals are not reckoned anew."""
    position = invoice.lines.count() + 1
    defaults: dict[str, Any] = {
        "kind": LineKind.USAGE,
        "key": f"line-{position}",
        "period_start": invoice.period_start,
        "plan_version": invoice.plan_version,
        "description": description,
        "exact_amount": Decimal(amount),
        "amount": Decimal(amount),
        "residual": Decimal(0),
    }
    return InvoiceLine.objects.create(invoice=invoice, position=position, **{**defaults, **values})


@contextmanager
def former_invoices() -> Iterator[None]:
    """Invoices of content version 1 can be made, as they were before there was another."""
    drop_triggers(connection)
    yield
    install_triggers()


def make_invoice(
    profile: BillingProfile | None = None,
    *,
    state: InvoiceState = InvoiceState.DRAFT,
    kind: InvoiceKind = InvoiceKind.REGULAR,
    number: int = 17,
    lines: tuple[dict[str, Any], ...] = ({"amount": "10.00"},),
    tax_percent: str = "0",
    **values: Any,
) -> Invoice:
    """An invoice with lines (see `make_line`) and totals that fit them, brought to its state past all review."""
    profile = profile or make_profile()
    defaults: dict[str, Any] = {
        "account": profile.account,
        "currency": profile.currency,
        "period_start": OCTOBER,
        "plan_version": PlanVersion.objects.filter(plan=profile.plan).latest("effective_from"),
        "cutoff_at": CUTOFF,
        "tax_percent": Decimal(tax_percent),
    }
    if kind == InvoiceKind.CREDIT_NOTE:
        defaults["credit_kind"] = CreditKind.GOODWILL
    invoice = Invoice.objects.create(kind=kind, **{**defaults, **values})
    for line in lines:
        make_line(invoice, **line)
    _reckon_totals(invoice)
    if state in (*FROZEN_STATES, InvoiceState.VOID):
        _freeze(invoice, profile)
    if state in FINAL_STATES:
        _finish(invoice, profile, number)
    if state in (InvoiceState.APPROVED, *FINAL_STATES):
        invoice.approved_by, invoice.approved_digest = make_user("approver"), invoice.content_digest
    invoice.state = state
    invoice.paid_on = date(2026, 11, 20) if state == InvoiceState.PAID else None
    invoice.save()
    return invoice


def _reckon_totals(invoice: Invoice) -> None:
    decimals = DECIMALS[invoice.currency]
    invoice.subtotal = sum((line.amount for line in invoice.lines.all()), Decimal(0))
    if invoice.taxes:
        invoice.tax = sum((Decimal(each["tax"]) for each in invoice.taxes), Decimal(0))
    else:
        invoice.tax = round_half_away(invoice.subtotal * invoice.tax_percent / 100, decimals)
    invoice.total = invoice.subtotal + invoice.tax


def _freeze(invoice: Invoice, profile: BillingProfile) -> None:
    invoice.bill_to, invoice.seller = bill_to_facts(profile, period=invoice.period), seller_facts()
    invoice.prepared_by = invoice.prepared_by or make_user("preparer")
    invoice.content_digest = content_digest(invoice)


def _finish(invoice: Invoice, profile: BillingProfile, number: int) -> None:
    series = "CN-2026" if invoice.kind == InvoiceKind.CREDIT_NOTE else "INV-2026"
    invoice.series, invoice.number = InvoiceSeries.objects.get_or_create(name=series)[0], number
    invoice.issued_at = datetime(2026, 11, 3, 9, 30, tzinfo=UTC)
    invoice.issued_on = date(2026, 11, 3)
    invoice.due_on = invoice.issued_on + timedelta(days=profile.payment_days)

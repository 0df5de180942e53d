"""Staff add one-off lines to a draft, and remove them again until they are billed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from billing.currencies import DECIMALS, format_money
from billing.enums import InvoiceAction, InvoiceKind, InvoiceState
from billing.errors import InvoiceError
from billing.invoices.drafting import compute, lock_profile, note_event
from billing.invoices.one_offs import billed_amounts
from billing.invoices.review import require_permission
from billing.models import Invoice, OneOffLine
from billing.models.plans import PERCENT_DECIMALS
from llm.money import round_half_away

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MAX_LINES = 100
"""Of one month."""
MAX_AMOUNT = Decimal(10) ** 9
_MAX_DESCRIPTION = 150
_MAX_REASON = 500


def add_one_off(
    invoice_id: int,
    *,
    user: User,
    reason: str,
    description: str,
    amount: Decimal,
    tax_percent: Decimal | None = None,
) -> Invoice:
    """Add a line to the draft of a month, and recalculate it.

    amount: without tax, in the draft's currency; negative for an allowance, which covers at most what the month charges
    otherwise. tax_percent: None for the month's rate, which allowances always have. Raises InvoiceError or
    NotBillableError.
    """
    description = " ".join(description.split())
    with _changing(invoice_id, InvoiceAction.ADD_LINE, user=user, reason=reason) as invoice:
        _require_plausible(description, amount, tax_percent, invoice.currency)
        month = OneOffLine.objects.filter(account=invoice.account_id, period_start=invoice.period_start)
        if month.filter(removed_at=None).count() >= MAX_LINES:
            raise InvoiceError(f"A month can have at most {MAX_LINES} one-off lines.")
        OneOffLine.objects.create(
            account_id=invoice.account_id,
            period_start=invoice.period_start,
            currency=invoice.currency,
            description=description,
            amount=amount,
            tax_percent=tax_percent,
            reason=reason,
            added_by=user,
        )
    return invoice


def remove_one_off(invoice_id: int, *, user: User, reason: str, line_id: int) -> Invoice:
    """Remove a line from a draft, and recalculate it. line_id: of the `OneOffLine`. Raises InvoiceError if another
    document bills it: that must be credited first.
    """
    with _changing(invoice_id, InvoiceAction.REMOVE_LINE, user=user, reason=reason) as invoice:
        line = next((each for each in removable_lines(invoice) if each.pk == line_id), None)
        if line is None:
            raise InvoiceError("This draft has no such one-off line: it was removed already, or is billed elsewhere.")
        line.removed_at, line.removed_by = timezone.now(), user
        line.save(update_fields=["removed_at", "removed_by"])
    return invoice


def removable_lines(invoice: Invoice) -> list[OneOffLine]:
    """One-off lines that this draft bills first or again, and allowances of its month without effect."""
    if invoice.state != InvoiceState.DRAFT or invoice.kind == InvoiceKind.CREDIT_NOTE:
        return []
    starts = {invoice.period_start, *invoice.lines.values_list("period_start", flat=True)}
    lines = list(OneOffLine.objects.filter(account=invoice.account_id, period_start__in=starts, removed_at=None))
    billed = billed_amounts(invoice.account_id, lines) if lines else {}
    return [each for each in lines if not billed.get(each.key)]


@contextmanager
def _changing(invoice_id: int, action: InvoiceAction, *, user: User, reason: str) -> Iterator[Invoice]:
    """Locks the draft; recalculates it from the usage summed up last, and adds the step to its history afterwards."""
    require_permission(user, action)
    if not 0 < len(reason.strip()) <= _MAX_REASON:
        raise InvoiceError(f"Give a reason of at most {_MAX_REASON} characters.")
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        profile = lock_profile(account_id)
        invoice = Invoice.objects.select_for_update().get(pk=invoice_id)
        if invoice.state != InvoiceState.DRAFT:
            raise InvoiceError("Only drafts have lines that can be added or removed: send the invoice back first.")
        if action == InvoiceAction.ADD_LINE and invoice.kind != InvoiceKind.REGULAR:
            raise InvoiceError("A one-off line can only be added to the invoice of a month.")
        yield invoice
        compute(invoice, profile, user=user)
        note_event(invoice, action, InvoiceState.DRAFT, user=user, reason=reason)


def _require_plausible(description: str, amount: Decimal, tax_percent: Decimal | None, currency: str) -> None:
    decimals = DECIMALS[currency]
    if not 0 < len(description) <= _MAX_DESCRIPTION:
        raise InvoiceError(f"Give a description of at most {_MAX_DESCRIPTION} characters.")
    if not amount.is_finite() or not amount or round_half_away(amount, decimals) != amount:
        raise InvoiceError(f"Give an amount in {currency} with at most {decimals} decimals, other than 0.")
    if abs(amount) > MAX_AMOUNT:
        raise InvoiceError(f"Give an amount of at most {format_money(MAX_AMOUNT, currency)} {currency}.")
    if tax_percent is None:
        return
    if amount < 0:
        raise InvoiceError("An allowance has the tax rate of its month: leave the tax empty.")
    if not (tax_percent.is_finite() and 0 <= tax_percent <= 100):
        raise InvoiceError("Give a tax rate from 0 to 100 percent.")
    if round_half_away(tax_percent, PERCENT_DECIMALS) != tax_percent:
        raise InvoiceError(f"Give a tax rate with at most {PERCENT_DECIMALS} decimals.")

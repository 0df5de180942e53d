"""Credit notes: an issued invoice never changes; what it charged too much is given back by a document of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import QuerySet

from billing.currencies import DECIMALS, format_amount
from billing.enums import InvoiceAction, InvoiceKind, InvoiceState
from billing.errors import InvoiceError
from billing.invoicing import lock_profile, note_event
from billing.models import Invoice, InvoiceLine
from billing.models.invoices import FINAL_STATES
from billing.review import require_permission
from billing.totals import tax_of
from llm.money import exact_sum, round_half_away

if TYPE_CHECKING:
    from django.contrib.auth.models import User


def credit(invoice_id: int, *, user: User, reason: str, amounts: Mapping[int, Decimal] | None = None) -> Invoice:
    """A draft credit note over an issued invoice, which then goes through review as any invoice does.

    amounts: line id -> how much of it, without tax, in the invoice's currency; None credits all that is left of it.
    Raises InvoiceError where it was not issued, or a line has less left.
    """
    require_permission(user, InvoiceAction.CREDIT)
    if not reason.strip():
        raise InvoiceError("Give a reason.")
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        lock_profile(account_id)
        original = Invoice.objects.select_for_update(of=("self",)).get(pk=invoice_id)
        if original.state not in FINAL_STATES or original.kind == InvoiceKind.CREDIT_NOTE:
            raise InvoiceError("Only an issued invoice can be credited.")
        chosen = _chosen(original, amounts)
        note = _note(original)
        note.save(force_insert=True)
        _add_lines(note, chosen)
        _set_totals(note, original)
        _require_covered(note, original)
        note.save()
        note_event(note, InvoiceAction.DRAFT, "", user=user, reason=reason)
        note_event(original, InvoiceAction.CREDIT, original.state, user=user, reason=reason)
    return note


def creditable(original: Invoice) -> dict[int, Decimal]:
    """What is left of each line, without tax: its amount and the credit notes that aren't void. By line id."""
    credited: dict[int, Decimal] = defaultdict(Decimal)
    rows = InvoiceLine.objects.filter(invoice__in=_notes(original)).values_list("credited_line", "amount")
    for line_id, amount in rows:
        if line_id is not None:
            credited[line_id] += amount
    return {line.pk: line.amount + credited[line.pk] for line in original.lines.order_by("position")}


def _notes(original: Invoice) -> QuerySet[Invoice]:
    return Invoice.objects.filter(original=original).exclude(state=InvoiceState.VOID)


def _chosen(original: Invoice, amounts: Mapping[int, Decimal] | None) -> list[tuple[InvoiceLine, Decimal]]:
    """(line, what to credit of it). Raises InvoiceError."""
    left = creditable(original)
    wanted = left if amounts is None else amounts
    if unknown := set(wanted) - set(left):
        raise InvoiceError(f"{len(unknown)} of these lines are not on invoice {original.label}.")
    for line_id, amount in wanted.items():
        _require_creditable(original, amount, left[line_id], is_whole=amounts is None)
    chosen = [(line, wanted[line.pk]) for line in original.lines.order_by("position") if wanted.get(line.pk)]
    if not chosen:
        raise InvoiceError("There is nothing left to credit.")
    return chosen


def _require_creditable(original: Invoice, amount: Decimal, left: Decimal, *, is_whole: bool) -> None:
    decimals = DECIMALS[original.currency]
    if is_whole:
        return
    if amount <= 0 or round_half_away(amount, decimals) != amount:
        raise InvoiceError(f"Credit a positive amount with at most {decimals} decimals, not {amount:f}.")
    if amount > left:
        raise InvoiceError(
            f"{format_amount(amount, original.currency)} is more than the {format_amount(left, original.currency)} "
            f"{original.currency} that are left of this line."
        )


def _note(original: Invoice) -> Invoice:
    return Invoice(
        account_id=original.account_id,
        kind=InvoiceKind.CREDIT_NOTE,
        period_start=original.period_start,
        currency=original.currency,
        plan_version_id=original.plan_version_id,
        exchange_rate_id=original.exchange_rate_id,
        per_usd=original.per_usd,
        original=original,
        credit_sequence=original.credit_notes.count() + 1,
        cutoff_at=original.cutoff_at,
        tax_percent=original.tax_percent,
    )


def _add_lines(note: Invoice, chosen: list[tuple[InvoiceLine, Decimal]]) -> None:
    InvoiceLine.objects.bulk_create(
        InvoiceLine(
            invoice=note,
            position=position,
            kind=line.kind,
            key=line.key,
            period_start=line.period_start,
            plan_version_id=line.plan_version_id,
            description=line.description,
            provider=line.provider,
            model=line.model,
            meter=line.meter,
            exact_amount=-amount,
            amount=-amount,
            residual=Decimal(0),
            credited_line=line,
        )
        for position, (line, amount) in enumerate(chosen, start=1)
    )


def _set_totals(note: Invoice, original: Invoice) -> None:
    """The tax follows the lines; the note that takes the last of them takes the last of the tax too."""
    note.subtotal = exact_sum(note.lines.values_list("amount", flat=True))
    others = list(_notes(original).exclude(pk=note.pk))
    tax_left = original.tax + exact_sum(other.tax for other in others)
    is_last = _left(note, original) == 0
    tax = tax_of(note.subtotal, note.tax_percent, note.currency)
    note.tax = -tax_left if is_last else max(tax, -tax_left)
    note.total = note.subtotal + note.tax


def _require_covered(note: Invoice, original: Invoice) -> None:
    """Lines can come to more than their invoice, which has discounts: no more is given back than was asked for."""
    if _left(note, original) < min(original.subtotal, Decimal(0)):
        amounts = (-note.subtotal, _left(note, original) - note.subtotal)
        asked, left = (format_amount(each, note.currency) for each in amounts)
        raise InvoiceError(
            f"{asked} {note.currency} is more than the {left} that are left of invoice {original.label} without tax: "
            "credit less, or all that is left of it."
        )


def _left(note: Invoice, original: Invoice) -> Decimal:
    """Of the original's subtotal, after the note and those before it."""
    others = _notes(original).exclude(pk=note.pk)
    return original.subtotal + note.subtotal + exact_sum(others.values_list("subtotal", flat=True))

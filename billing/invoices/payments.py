"""What is left to pay of an invoice, and whether it is overdue. Both are derived from what was recorded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal

from billing.calendar import sellers_date
from billing.currencies import DECIMALS, format_money
from billing.enums import InvoiceKind, InvoiceState
from billing.errors import InvoiceError
from billing.models import Invoice, Payment
from billing.models.invoices import FINAL_STATES
from llm.fields import ExactSum
from llm.money import exact_sum, round_half_away


@dataclass(frozen=True, slots=True)
class Balance:
    """paid: less what was reversed; negative for a credit note that was refunded. credited: by issued credit notes, as
    far as they weren't refunded.

    outstanding: negative if the customer has paid more than is left after credit notes. Of a credit note: negative, as
    far as its invoice was paid too much because of it; the rest is offset against what is left to pay.
    """

    paid: Decimal
    credited: Decimal
    outstanding: Decimal
    due_on: date | None

    def is_overdue(self, today: date) -> bool:
        return self.outstanding > 0 and self.due_on is not None and self.due_on < today


NOTHING = Balance(Decimal(0), Decimal(0), Decimal(0), None)
"""Of a document that isn't issued."""


def balance_of(invoice: Invoice) -> Balance:
    return balances([invoice])[invoice.pk]


def balances(invoices: Iterable[Invoice]) -> Mapping[int, Balance]:
    """By id. The number of queries doesn't depend on how many they are."""
    invoices = list(invoices)
    found = dict(_balances(invoices))
    notes = [each for each in invoices if each.kind == InvoiceKind.CREDIT_NOTE and each.state in FINAL_STATES]
    if not notes:
        return found
    originals = _balances(Invoice.objects.filter(pk__in=[each.original_id for each in notes]))
    for note in notes:
        of_note, too_much = found[note.pk], min(originals[note.original_id or 0].outstanding, Decimal(0))
        found[note.pk] = replace(of_note, outstanding=max(of_note.outstanding, too_much))
    return found


def _balances(invoices: Iterable[Invoice]) -> Mapping[int, Balance]:
    """Without regard to what the invoices of credit notes were paid."""
    invoices = list(invoices)
    final = [invoice.pk for invoice in invoices if invoice.state in FINAL_STATES]
    notes = list(Invoice.objects.final().filter(original__in=final).order_by().values_list("pk", "original", "total"))
    paid = paid_amounts([*final, *(pk for pk, _, _ in notes)])
    credited: dict[int, list[Decimal]] = defaultdict(list)
    for pk, original_id, total in notes:
        if original_id is not None:
            credited[original_id] += [total, -paid[pk]]
    return {invoice.pk: _balance(invoice, paid, credited) for invoice in invoices}


def _balance(invoice: Invoice, paid: Mapping[int, Decimal], credited: Mapping[int, Sequence[Decimal]]) -> Balance:
    if invoice.state not in FINAL_STATES:
        return NOTHING
    back, own = -exact_sum(credited.get(invoice.pk, ())), paid[invoice.pk]
    return Balance(own, back, exact_sum((invoice.total, -back, -own)), invoice.due_on)


def paid_amounts(invoice_ids: Iterable[int]) -> Mapping[int, Decimal]:
    """Sum of each invoice's payments; 0 if it has none."""
    sums = Payment.objects.filter(invoice__in=list(invoice_ids)).order_by().values_list("invoice")
    return defaultdict(Decimal, sums.annotate(paid=ExactSum("amount")))


def find_overdue(*, now: datetime | None = None) -> list[Invoice]:
    """Issued invoices that were due before today, in the seller's time zone, with something left to pay; the longest
    overdue first.
    """
    today = sellers_date(now)
    due = Invoice.objects.filter(state=InvoiceState.ISSUED, due_on__lt=today).exclude(kind=InvoiceKind.CREDIT_NOTE)
    found = list(due.select_related("account").order_by("due_on", "id"))
    left = balances(found)
    return [invoice for invoice in found if left[invoice.pk].is_overdue(today)]


def payments_to_undo(invoice: Invoice) -> list[Payment]:
    """Those that weren't reversed, latest first."""
    return list(Payment.objects.filter(invoice=invoice, reverses=None, reversal=None).order_by("-id"))


def amount_to_record(invoice: Invoice, amount: Decimal | None) -> Decimal:
    """With the sign of the invoice's total. amount: positive; None for all that is outstanding.

    Raises InvoiceError if it is more than that.
    """
    left = balance_of(invoice).outstanding
    sign = -1 if invoice.total < 0 else 1
    left = max(sign * left, Decimal(0))
    if amount is None:
        return sign * left
    decimals = DECIMALS[invoice.currency]
    if not amount.is_finite() or amount <= 0 or round_half_away(amount, decimals) != amount:
        raise InvoiceError(f"Give a positive amount in {invoice.currency} with at most {decimals} decimals.")
    if amount > left:
        raise InvoiceError(
            f"{format_money(amount, invoice.currency)} exceeds the {format_money(left, invoice.currency)} "
            f"{invoice.currency} outstanding on {invoice.label}."
        )
    return sign * amount

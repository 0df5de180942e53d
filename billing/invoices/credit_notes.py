"""What all credit notes share: what is left of an invoice, and the taxes that a note gives back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal

from django.db.models import Max, Q, QuerySet

from billing.currencies import format_money
from billing.enums import CreditKind, InvoiceKind, InvoiceState
from billing.errors import InvoiceError
from billing.invoices.flags import flags_of_note
from billing.invoices.taxes import Tax, nets_of, set_taxes, tax_of, taxes_of
from billing.models import Invoice, InvoiceLine
from billing.models.invoices import CONTENT_VERSION, FINAL_STATES
from billing.periods import BillingPeriod
from llm.money import exact_sum


def notes_of(original: Invoice) -> QuerySet[Invoice]:
    """The notes that reduce what is left of the invoice: all except void ones."""
    return Invoice.objects.filter(original=original).exclude(state=InvoiceState.VOID)


def lasting_notes_of(original: Invoice) -> QuerySet[Invoice]:
    """Without drafts of reductions, which are recomputed from what the others leave."""
    return notes_of(original).exclude(Q(credit_kind=CreditKind.REDUCTION) & Q(state=InvoiceState.DRAFT))


def new_note(original: Invoice, kind: CreditKind) -> Invoice:
    """Not saved yet, without lines."""
    last = original.credit_notes.aggregate(last=Max("credit_sequence"))["last"] or 0
    return Invoice(
        account_id=original.account_id,
        kind=InvoiceKind.CREDIT_NOTE,
        credit_kind=kind,
        period_start=original.period_start,
        currency=original.currency,
        plan_version_id=original.plan_version_id,
        exchange_rate_id=original.exchange_rate_id,
        per_usd=original.per_usd,
        original=original,
        credit_sequence=last + 1,
        cutoff_at=original.cutoff_at,
        tax_percent=original.tax_percent,
    )


def left_by_line(original: Invoice) -> dict[int, Decimal]:
    """What the notes leave of each line, without tax, by line id."""
    return _left(original, lasting_notes_of(original))


def left_of_month(original: Invoice, period: BillingPeriod, *, beside: int = 0) -> Decimal:
    """What the notes leave of the invoice's lines of that month, without tax. beside: the id of a note to ignore."""
    documents = [original.pk, *lasting_notes_of(original).exclude(pk=beside).values_list("pk", flat=True)]
    lines = InvoiceLine.objects.filter(invoice__in=documents, period_start=period.start)
    return exact_sum(lines.values_list("amount", flat=True))


def charged_of_month(original: Invoice, period: BillingPeriod, *, beside: int = 0) -> Decimal:
    """What all documents of the invoice's account and currency charge for that month, without tax.

    Invoices of version 1 gave reductions back as lines of a later month's invoice, so this may be less than is left of
    the month's own. A document that isn't issued yet may still be withdrawn: it counts if it gives back, not if it
    charges. beside: see `left_of_month`.
    """
    documents = Invoice.objects.filter(account=original.account_id, currency=original.currency)
    is_recomputed = ~Q(kind=InvoiceKind.CREDIT_NOTE) | Q(credit_kind=CreditKind.REDUCTION)
    documents = documents.exclude(Q(state=InvoiceState.VOID) | (Q(state=InvoiceState.DRAFT) & is_recomputed))
    lines = InvoiceLine.objects.filter(invoice__in=documents.exclude(pk=beside), period_start=period.start).order_by()
    amounts: dict[tuple[int, str], Decimal] = defaultdict(Decimal)
    for invoice_id, state, amount in lines.values_list("invoice_id", "invoice__state", "amount"):
        amounts[invoice_id, state] += amount
    return exact_sum(amount for (_, state), amount in amounts.items() if state in FINAL_STATES or amount < 0)


def given_back(lines: Iterable[InvoiceLine]) -> dict[BillingPeriod, Decimal]:
    """What the lines of a note give back of each month, without tax."""
    by_month: dict[BillingPeriod, list[Decimal]] = defaultdict(list)
    for line in lines:
        by_month[BillingPeriod(line.period_start)].append(-line.amount)
    return {period: exact_sum(amounts) for period, amounts in sorted(by_month.items())}


def require_covered(note: Invoice, original: Invoice, lines: Iterable[InvoiceLine]) -> None:
    """Raises InvoiceError if the note gives back more than is left of its invoice, or of what a month was charged.

    The lines may come to more than the invoice, which has discounts. Checked by month, since each month has its tax.
    """
    for period, asked in given_back(lines).items():
        left = left_of_month(original, period, beside=note.pk or 0)
        charged = charged_of_month(original, period, beside=note.pk or 0)
        if asked <= max(min(left, charged), Decimal(0)):
            continue
        shown = [format_money(each, original.currency) for each in (asked, min(left, charged))]
        of = f"invoice {original.label}" if left <= charged else f"{period} on all documents of the account"
        raise InvoiceError(
            f"{shown[0]} {original.currency} exceeds the {shown[1]} left on {of} without tax: credit less, or "
            "everything left on it."
        )


def set_credit_totals(note: Invoice, original: Invoice, lines: Sequence[InvoiceLine]) -> None:
    """Set the totals and flags of a note with these lines: tax by rate, rounded, and never more than is left.

    The note that takes the last of what an invoice charges at a rate takes the rest of its tax too.
    """
    others = list(lasting_notes_of(original).exclude(pk=note.pk))
    charged = {each.percent: each for each in taxes_of(original)}
    given = _given(others)
    taxes = []
    for percent, net in nets_of(note, lines).items():
        nothing = Tax(percent, Decimal(0), Decimal(0))
        whole, before = charged.get(percent, nothing), given.get(percent, nothing)
        tax_left = whole.tax + before.tax
        is_last = whole.net + before.net + net == 0
        tax = -tax_left if is_last else max(tax_of(net, percent, note.currency), -tax_left)
        taxes.append(Tax(percent, net, tax))
    set_taxes(note, taxes)
    note.content_version = CONTENT_VERSION
    note.cost_usd = exact_sum(line.cost_usd for line in lines)
    note.flags = flags_of_note(note, lines)


def require_gives_back(note: Invoice) -> None:
    """Raises InvoiceError if the note would charge something, which the database refuses too."""
    if note.total > 0:
        raise InvoiceError(
            f"Reversing this would charge {format_money(note.total, note.currency)} {note.currency}: a credit "
            "note can only give money back."
        )


def _given(notes: Iterable[Invoice]) -> dict[Decimal, Tax]:
    by_rate: dict[Decimal, list[Tax]] = defaultdict(list)
    for note in notes:
        for each in taxes_of(note):
            by_rate[each.percent].append(each)
    return {
        percent: Tax(percent, exact_sum(each.net for each in taxes), exact_sum(each.tax for each in taxes))
        for percent, taxes in by_rate.items()
    }


def _left(original: Invoice, notes: QuerySet[Invoice]) -> dict[int, Decimal]:
    credited: dict[int, Decimal] = defaultdict(Decimal)
    rows = InvoiceLine.objects.filter(invoice__in=notes).values_list("credited_line", "amount")
    for line_id, amount in rows:
        if line_id is not None:
            credited[line_id] += amount
    return {line.pk: line.amount + credited[line.pk] for line in original.lines.order_by("position")}

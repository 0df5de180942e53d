"""Which characters of an invoice its PDF can't show: said on the draft, while something can be done about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from billing.fonts import character_name, missing_characters
from billing.invoices.parties import BillTo, bill_to_of, seller_of
from billing.models import BillingProfile, Invoice, InvoiceLine

_MAX_NAMED = 10


def find_missing(invoice: Invoice, lines: Iterable[InvoiceLine], bill_to: BillTo | BillingProfile) -> tuple[str, ...]:
    """Each character once. bill_to: whom it is for, as it was frozen or as the profile now says."""
    return missing_characters(_texts_of(invoice, lines, bill_to))


def missing_now(invoice: Invoice) -> tuple[str, ...]:
    """Of a saved invoice, with the fonts that there are now."""
    return find_missing(invoice, invoice.lines.all(), bill_to_of(invoice))


def missing_sentence(missing: tuple[str, ...]) -> str:
    """Names them, and says what to do; "" where none is missing."""
    if not missing:
        return ""
    named = ", ".join(map(character_name, missing[:_MAX_NAMED]))
    more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
    return f"No font has {named}{more}: the PDF shows □ instead. Add a font to BILLING_FONTS, or change the text."


def _texts_of(invoice: Invoice, lines: Iterable[InvoiceLine], bill_to: BillTo | BillingProfile) -> Iterator[str]:
    """What people and providers wrote of all that the document says; the rest is ours, and in Latin letters."""
    seller = seller_of(invoice)
    yield from (seller.name, seller.address, seller.tax_id, seller.email, seller.payment)
    yield from (bill_to.legal_name, bill_to.address, bill_to.country)
    yield from (bill_to.tax_id, bill_to.tax_note, bill_to.po_number)
    yield from (line.description for line in lines)
    if invoice.exchange_rate is not None:
        yield invoice.exchange_rate.source

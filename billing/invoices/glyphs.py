"""Which characters of an invoice its PDF can't show: flagged on the draft, while it can still be fixed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from billing.fonts import character_name, missing_characters
from billing.invoices.parties import BillTo, bill_to_of, seller_of
from billing.models import BillingProfile, Invoice, InvoiceLine

_MAX_NAMED = 10


def find_missing(invoice: Invoice, lines: Iterable[InvoiceLine], bill_to: BillTo | BillingProfile) -> tuple[str, ...]:
    """Each character once. bill_to: the frozen recipient, or the one that the profile now gives."""
    return missing_characters(_texts_of(invoice, lines, bill_to))


def missing_now(invoice: Invoice) -> tuple[str, ...]:
    """For a saved invoice, with the fonts currently configured."""
    return find_missing(invoice, invoice.lines.all(), bill_to_of(invoice))


def missing_sentence(missing: tuple[str, ...]) -> str:
    """Names the characters and says what to do; "" if none is missing."""
    if not missing:
        return ""
    named = ", ".join(map(character_name, missing[:_MAX_NAMED]))
    more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
    return f"No font has {named}{more}: the PDF shows □ instead. Add a font to BILLING_FONTS, or change the text."


def _texts_of(invoice: Invoice, lines: Iterable[InvoiceLine], bill_to: BillTo | BillingProfile) -> Iterator[str]:
    """The texts of the document written by people and providers; the rest is ours, in Latin letters."""
    seller = seller_of(invoice)
    yield from (seller.name, seller.address, seller.tax_id, seller.email, seller.payment)
    yield from (bill_to.legal_name, bill_to.address, bill_to.country)
    yield from (bill_to.tax_id, bill_to.tax_note, bill_to.po_number)
    yield from (line.description for line in lines)
    if invoice.exchange_rate is not None:
        yield invoice.exchange_rate.source

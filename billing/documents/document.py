"""All that an invoice's document says, as finished text. HTML and PDF only arrange it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

LANGUAGE = "en"


@dataclass(frozen=True, slots=True)
class Fact:
    label: str
    value: str


@dataclass(frozen=True, slots=True)
class Party:
    """lines: the text under the name."""

    heading: str
    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LineText:
    """quantity and unit_price are empty for lines without them."""

    description: str
    quantity: str
    unit_price: str
    amount: str


@dataclass(frozen=True, slots=True)
class LineSection:
    """The lines of one period. heading: empty if the section is the invoice's own period and the only one."""

    heading: str
    lines: tuple[LineText, ...]


@dataclass(frozen=True, slots=True)
class TaxText:
    """label: with the rate and, if there are several, the amount it is on."""

    label: str
    amount: str


@dataclass(frozen=True, slots=True)
class DocumentTotals:
    """tax_note: such as “Reverse charge”. further_taxes: taxes of months whose rate differs from the document's.

    The currency is printed beside the total only.
    """

    subtotal: str
    tax_label: str
    tax_note: str
    tax: str
    total: str
    further_taxes: tuple[TaxText, ...] = ()

    @property
    def taxes(self) -> tuple[TaxText, ...]:
        return (TaxText(self.tax_label, self.tax), *self.further_taxes)


@dataclass(frozen=True, slots=True)
class Note:
    heading: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InvoiceDocument:
    """title: by kind. name: title and number, or the period before there is a number.

    cites: what a credit note refers to. mark: DRAFT or VOID, explained by mark_text; both empty on issued documents.
    summary: the amount due, in one line. column_labels: over the lines. proof: in small print. made_at: fixed once the
    document is final, so that its bytes are too.
    """

    title: str
    name: str
    cites: str
    mark: str
    mark_text: str
    summary: str
    facts: tuple[Fact, ...]
    seller: Party
    bill_to: Party
    column_labels: LineText
    sections: tuple[LineSection, ...]
    totals: DocumentTotals
    notes: tuple[Note, ...]
    proof: tuple[Fact, ...]
    made_at: datetime

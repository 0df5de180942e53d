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
    """lines: what stands under the name."""

    heading: str
    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LineText:
    """quantity and unit_price are empty where the line has none."""

    description: str
    quantity: str
    unit_price: str
    amount: str


@dataclass(frozen=True, slots=True)
class LineSection:
    """The lines of one period. heading: empty where they are the invoice's own and the only ones."""

    heading: str
    lines: tuple[LineText, ...]


@dataclass(frozen=True, slots=True)
class TaxText:
    """label: with the rate, and where there are several with what it is on."""

    label: str
    amount: str


@dataclass(frozen=True, slots=True)
class DocumentTotals:
    """tax_note: such as “Reverse charge”. further_taxes: where months have other rates than the document's own.

    The currency stands beside the total alone.
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

    cites: what a credit note refers to. mark: DRAFT or VOID, and mark_text says what that means; both empty on what was
    issued. summary: what is due, in one line. column_labels: over the lines. proof: in small print. made_at: never
    changes once the document is final, so that its bytes don't either.
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

"""xero: files for Xero's import of sales invoices and credit notes; QuickBooks Online maps the same columns.

Only issued documents are included: drafts don't belong in a ledger. A line is one unit at its rounded amount, since the
accounting software would round quantity x unit price differently. Its tax is given beside it, so that the lines of a
document add up to its total. Xero takes 500 documents per file.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal

from billing.enums import InvoiceKind
from billing.exports.base import FormatWriter, Scope
from billing.exports.cells import Value, exact
from billing.exports.files import ExportFiles
from billing.exports.tables import money_cell
from billing.exports.tabular import CsvRows
from billing.invoices.parties import BillTo, bill_to_of
from billing.invoices.taxes import percent_of, tax_by_line
from billing.models import Invoice, InvoiceLine
from billing.models.invoices import FINAL_STATES

MAX_DOCUMENTS = 500
"""Xero's maximum per file."""
ACCOUNT_CODE = "200"
"""Sales, in Xero's default chart of accounts."""
NO_TAX = "Tax Exempt"
_ADDRESS_LINES = 4

Row = dict[str, Value]

_CONTACT = (
    *("*ContactName", "EmailAddress", "POAddressLine1", "POAddressLine2", "POAddressLine3", "POAddressLine4"),
    *("POCity", "PORegion", "POPostalCode", "POCountry"),
)
_MONEY = (
    *("Total", "InventoryItemCode", "*Description", "*Quantity", "*UnitAmount", "Discount", "*AccountCode", "*TaxType"),
    *("TaxAmount", "TrackingName1", "TrackingOption1", "TrackingName2", "TrackingOption2", "Currency", "BrandingTheme"),
)
INVOICE_COLUMNS = (*_CONTACT, "*InvoiceNumber", "Reference", "*InvoiceDate", "*DueDate", *_MONEY)
CREDIT_COLUMNS = (*_CONTACT, "*CreditNoteNumber", "Reference", "*CreditNoteDate", "DueDate", *_MONEY)


class _Documents:
    """The files of one kind of document, each filled to the maximum; none if there are no documents."""

    def __init__(self, files: ExportFiles, name: str, columns: Sequence[str]) -> None:
        self._files, self._name, self._columns = files, name, columns
        self._parts: list[CsvRows] = []
        self._documents = 0

    def add(self, rows: Sequence[Row]) -> None:
        if self._documents % MAX_DOCUMENTS == 0:
            self._parts.append(CsvRows(self._files, self._name_of_next_part(), self._columns))
        self._documents += 1
        for row in rows:
            self._parts[-1].add([row.get(name.lstrip("*")) for name in self._columns])

    def _name_of_next_part(self) -> str:
        return f"{self._name}-{len(self._parts) + 1}.csv" if self._parts else f"{self._name}.csv"


class XeroWriter(FormatWriter):
    def __init__(self, files: ExportFiles, scope: Scope) -> None:
        super().__init__(files, scope)
        self._invoices = _Documents(files, "xero-invoices", INVOICE_COLUMNS)
        self._credit_notes = _Documents(files, "xero-credit-notes", CREDIT_COLUMNS)

    def add_invoice(self, invoice: Invoice, lines: Sequence[InvoiceLine]) -> None:
        if invoice.state not in FINAL_STATES:
            return
        if invoice.kind == InvoiceKind.CREDIT_NOTE:
            self._credit_notes.add(_build_rows(invoice, lines, sign=-1, layout=self.scope.layout))
        else:
            self._invoices.add(_build_rows(invoice, lines, sign=1, layout=self.scope.layout))


def _build_rows(invoice: Invoice, lines: Sequence[InvoiceLine], *, sign: int, layout: int) -> list[Row]:
    """sign: makes a credit note's amounts positive in its file. Files of layout 1 left the tax to the accounting
    software.
    """
    shared = {**_contact(bill_to_of(invoice)), **_head(invoice, sign=sign)}
    taxes = tax_by_line(invoice, lines)
    return [
        {
            **shared,
            "Description": line.description,
            "Quantity": 1,
            "UnitAmount": money_cell(sign * line.amount, invoice.currency),
            "AccountCode": ACCOUNT_CODE,
            "TaxType": _tax_type(percent_of(line, invoice)),
            "TaxAmount": money_cell(sign * tax if tax else tax, invoice.currency) if layout > 1 else None,
        }
        for line, tax in zip(lines, taxes, strict=True)
    ]


def _tax_type(percent: Decimal) -> str:
    return f"{exact(percent)}%" if percent else NO_TAX


def _contact(bill_to: BillTo) -> Row:
    """Address lines beyond the available columns share the last one."""
    *own, last = [*bill_to.address.splitlines(), *[""] * _ADDRESS_LINES][:_ADDRESS_LINES]
    further = bill_to.address.splitlines()[_ADDRESS_LINES:]
    lines = [*own, ", ".join((last, *further))]
    return {
        "ContactName": bill_to.legal_name,
        "EmailAddress": bill_to.email,
        **{f"POAddressLine{number}": line for number, line in enumerate(lines, start=1)},
        "POCountry": bill_to.country,
    }


def _head(invoice: Invoice, *, sign: int) -> Row:
    """A credit note refers to what it credits, an invoice to the customer's purchase order."""
    reference = bill_to_of(invoice).po_number if invoice.original is None else invoice.original.label
    return {
        "InvoiceNumber": invoice.label,
        "CreditNoteNumber": invoice.label,
        "Reference": reference,
        "InvoiceDate": _date(invoice.issued_on),
        "CreditNoteDate": _date(invoice.issued_on),
        "DueDate": _date(invoice.due_on),
        "Total": money_cell(sign * invoice.total, invoice.currency),
        "Currency": invoice.currency,
    }


def _date(day: date | None) -> str:
    """In the format of Xero's import."""
    return "" if day is None else f"{day:%d/%m/%Y}"

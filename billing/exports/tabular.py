"""What the formats have in common that hold the tables as they are: csv, jsonl and xlsx."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

from billing.exports.base import FormatWriter, Scope
from billing.exports.cells import Value
from billing.exports.detail import UsageRow
from billing.exports.files import ExportFiles
from billing.exports.tables import INVOICES, LINES, USAGE
from billing.models import Invoice, InvoiceLine


class Rows(Protocol):
    """Where the rows of one table go."""

    def add(self, row: Sequence[Value]) -> None: ...


class TabularWriter(FormatWriter):
    def __init__(self, files: ExportFiles, scope: Scope) -> None:
        super().__init__(files, scope)
        costs = scope.shows_cost
        self._invoices = INVOICES if costs else INVOICES.without_cost()
        self._lines = LINES if costs else LINES.without_cost()
        self._usage = USAGE if costs else USAGE.without_cost()
        self._invoice_rows = self.open_table(self._invoices.name, self._invoices.header)
        self._line_rows = self.open_table(self._lines.name, self._lines.header)
        self._usage_rows = self.open_table(self._usage.name, self._usage.header)

    @abstractmethod
    def open_table(self, name: str, header: Sequence[str]) -> Rows:
        """Asked once for each table, in their order, before the first row."""

    def add_invoice(self, invoice: Invoice, lines: Sequence[InvoiceLine]) -> None:
        self._invoice_rows.add(self._invoices.row(invoice))
        for line in lines:
            self._line_rows.add(self._lines.row(line))

    def add_usage(self, row: UsageRow) -> None:
        self._usage_rows.add(self._usage.row(row))

"""What the plain table formats share: csv, jsonl and xlsx."""

from __future__ import annotations

import csv
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Protocol

import orjson

from billing.exports.base import FormatWriter, Scope
from billing.exports.cells import Value, text_of
from billing.exports.files import ExportFiles, TextFile
from billing.exports.tables import INVOICES, LINES, USAGE
from billing.invoices.billed_calls import UsageRow
from billing.models import Invoice, InvoiceLine


class Rows(Protocol):
    """Receives the rows of one table."""

    def add(self, row: Sequence[Value]) -> None: ...


class TabularWriter(FormatWriter):
    def __init__(self, files: ExportFiles, scope: Scope) -> None:
        super().__init__(files, scope)
        self._invoices = INVOICES.shown_in(scope)
        self._lines = LINES.shown_in(scope)
        self._usage = USAGE.shown_in(scope)
        self._invoice_rows = self.open_table(self._invoices.name, self._invoices.header)
        self._line_rows = self.open_table(self._lines.name, self._lines.header)
        self._usage_rows = self.open_table(self._usage.name, self._usage.header)

    @abstractmethod
    def open_table(self, name: str, header: Sequence[str]) -> Rows:
        """Called once per table, in their order, before the first row."""

    def add_invoice(self, invoice: Invoice, lines: Sequence[InvoiceLine]) -> None:
        self._invoice_rows.add(self._invoices.row(invoice))
        for line in lines:
            self._line_rows.add(self._lines.row(line))

    def add_usage(self, row: UsageRow) -> None:
        self._usage_rows.add(self._usage.row(row))


class CsvRows:
    """Writes the rows of one file."""

    def __init__(self, files: ExportFiles, name: str, header: Sequence[str]) -> None:
        self._file = files.create(name)
        self._writer = csv.writer(TextFile(self._file), lineterminator="\r\n")
        self._writer.writerow(header)

    def add(self, row: Iterable[Value]) -> None:
        self._writer.writerow([text_of(value) for value in row])
        self._file.rows += 1


class CsvWriter(TabularWriter):
    def open_table(self, name: str, header: Sequence[str]) -> Rows:
        return CsvRows(self.files, f"{name}.csv", header)


class JsonRows:
    def __init__(self, files: ExportFiles, name: str, header: Sequence[str]) -> None:
        self._file = files.create(name)
        self._names = tuple(header)

    def add(self, row: Sequence[Value]) -> None:
        record = dict(zip(self._names, row, strict=True))
        self._file.write(orjson.dumps(record, str, orjson.OPT_APPEND_NEWLINE))
        self._file.rows += 1


class JsonlWriter(TabularWriter):
    def open_table(self, name: str, header: Sequence[str]) -> Rows:
        return JsonRows(self.files, f"{name}.jsonl", header)

"""csv: one file a table, RFC 4180: commas, lines that end in CR LF, a first line with the columns' names. UTF-8."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence

from billing.exports.cells import Value, text_of
from billing.exports.files import ExportFiles, TextFile
from billing.exports.tabular import Rows, TabularWriter


class CsvRows:
    """The rows of one file."""

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

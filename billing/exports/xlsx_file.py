"""xlsx: one workbook with a sheet per table, continued on further sheets when one is full.

Excel keeps 15 digits of a number. So whole numbers and rounded amounts are numbers that can be summed; unrounded
amounts and prices, which may have 38 digits, are text with all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from billing.exports.base import Scope
from billing.exports.cells import Value, harmless, text_of
from billing.exports.files import ExportFiles
from billing.exports.tabular import Rows, TabularWriter

if TYPE_CHECKING:
    from xlsxwriter import Workbook
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

NAME = "export.xlsx"
MAX_ROWS = 1_048_576
"""Of a sheet, including its heading."""
MAX_DIGITS = 15
"""Digits that Excel keeps of a number."""
_WIDTH = 18


class SheetRows:
    """The rows of one table, on as many sheets as they need."""

    def __init__(self, book: Workbook, name: str, header: Sequence[str]) -> None:
        self._book, self._name, self._header = book, name.capitalize(), header
        self._heading = book.add_format({"bold": True})
        self._amounts: dict[int, Format] = {}
        self._sheets = 0
        self._sheet = self._new_sheet()
        self.rows = 0

    def add(self, row: Sequence[Value]) -> None:
        if self._next == MAX_ROWS:
            self._sheet = self._new_sheet()
        for column, value in enumerate(row):
            self._write(column, value)
        self._next += 1
        self.rows += 1

    def _new_sheet(self) -> Worksheet:
        self._sheets += 1
        name = self._name if self._sheets == 1 else f"{self._name} {self._sheets}"
        sheet = self._book.add_worksheet(name)
        sheet.freeze_panes(1, 0)
        sheet.set_column(0, len(self._header) - 1, _WIDTH)
        for column, title in enumerate(self._header):
            sheet.write_string(0, column, title, self._heading)
        self._next = 1
        return sheet

    def _write(self, column: int, value: Value) -> None:
        if isinstance(value, Decimal | int) and _digits(value) <= MAX_DIGITS:
            # A Decimal is written digit by digit, never as a float.
            self._sheet.write_number(self._next, column, value, self._format_of(value))
        elif value is not None:
            self._sheet.write_string(self._next, column, _cell_text(value))

    def _format_of(self, value: Decimal | int) -> Format | None:
        """Amounts show all of their currency's decimals."""
        if isinstance(value, int):
            return None
        decimals = -int(value.as_tuple().exponent)
        if decimals not in self._amounts:
            zeros = f".{'0' * decimals}" if decimals else ""
            self._amounts[decimals] = self._book.add_format({"num_format": f"#,##0{zeros}"})
        return self._amounts[decimals]


class XlsxWriter(TabularWriter):
    def __init__(self, files: ExportFiles, scope: Scope) -> None:
        # Imported late: the web process needs the format's name but never writes one.
        from xlsxwriter import Workbook

        self._file = files.create(NAME)
        # Its temporary files are created beside it, so they are deleted with the folder if the export fails.
        self._book = Workbook(
            self._file,
            {"constant_memory": True, "tmpdir": str(files.folder), "strings_to_formulas": False, "use_zip64": True},
        )
        # Otherwise it would be now, and the same month would export to different bytes.
        self._book.set_properties({"created": datetime(scope.period.start.year, scope.period.start.month, 1)})  # noqa: DTZ001 - it takes naive ones as UTC
        self._tables: list[SheetRows] = []
        super().__init__(files, scope)

    def open_table(self, name: str, header: Sequence[str]) -> Rows:
        self._tables.append(SheetRows(self._book, name, header))
        return self._tables[-1]

    def close(self) -> None:
        self._book.close()
        self._file.rows = sum(table.rows for table in self._tables)

    def abandon(self) -> None:
        for sheet in self._book.worksheets():
            sheet.row_data_fh.close()
        self._book.fileclosed = True


def _digits(value: Decimal | int) -> int:
    return len(value.as_tuple().digits) if isinstance(value, Decimal) else len(str(abs(value)))


def _cell_text(value: Value) -> str:
    text = text_of(value)
    # XlsxWriter passes the content of such tags through unescaped.
    return f"'{text}" if text.startswith("<r>") else harmless(text) if type(value) is str else text

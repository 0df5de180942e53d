"""What the explorer shows, as a file: exact figures, and cells that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO, StringIO

from django.http import HttpResponse

from billing.admin.usage.table import Shown
from billing.exports.cells import Value, text_of
from billing.exports.xlsx_file import SheetRows

_XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_Table = tuple[Sequence[str], Sequence[Sequence[Value]]]


def download(shown: Shown, kind: str) -> HttpResponse:
    """kind: of DOWNLOADS."""
    content, content_type, suffix = DOWNLOADS[kind](shown)
    question = shown.found.question
    name = f"usage-by-{question.by.replace('_', '-')}-{question.first}-{question.last}{suffix}"
    return HttpResponse(
        content, content_type=content_type, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


def _csv(table: _Table) -> bytes:
    file = StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerows([text_of(value) for value in row] for row in (table[0], *table[1]))
    return file.getvalue().encode()


def _xlsx(tables: Mapping[str, _Table]) -> bytes:
    # Not above: few pages need it, and it is slow to import.
    from xlsxwriter import Workbook

    file = BytesIO()
    # What is shown is bounded, so that it may be in memory.
    with Workbook(file, {"in_memory": True, "strings_to_formulas": False}) as book:
        for name, (heading, rows) in tables.items():
            sheet = SheetRows(book, name, [text_of(text) for text in heading])
            for row in rows:
                sheet.add(row)
    return file.getvalue()


DOWNLOADS: Mapping[str, Callable[[Shown], tuple[bytes, str, str]]] = {
    "csv": lambda shown: (_csv(shown.file_rows()), "text/csv; charset=utf-8", ".csv"),
    "chart": lambda shown: (_csv(shown.grid_rows()), "text/csv; charset=utf-8", "-over-time.csv"),
    "xlsx": lambda shown: (_xlsx({"table": shown.file_rows(), "chart": shown.grid_rows()}), _XLSX, ".xlsx"),
}
"""By the parameter `download`."""

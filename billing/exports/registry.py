"""The formats of an export, by name. To add one: write its file and add one line here.

`billing.jobs.exports` writes the requested ones to a folder, with a manifest over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from billing.exports.base import FormatWriter
from billing.exports.focus import FocusWriter
from billing.exports.tabular import CsvWriter, JsonlWriter
from billing.exports.xero import XeroWriter
from billing.exports.xlsx_file import XlsxWriter

FORMATS: Mapping[str, type[FormatWriter]] = {
    "csv": CsvWriter,
    "xlsx": XlsxWriter,
    "jsonl": JsonlWriter,
    "focus": FocusWriter,
    "xero": XeroWriter,
}

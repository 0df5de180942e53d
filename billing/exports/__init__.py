"""Exports of a month: one file a format, and a manifest over all of them.

`FORMATS` names each format's writer; `billing.exporting` walks over the invoices and writes the folder.
"""

from __future__ import annotations

from collections.abc import Mapping

from billing.exports.base import FormatWriter
from billing.exports.csv_files import CsvWriter
from billing.exports.focus import FocusWriter
from billing.exports.jsonl_files import JsonlWriter
from billing.exports.xero import XeroWriter
from billing.exports.xlsx_file import XlsxWriter

FORMATS: Mapping[str, type[FormatWriter]] = {
    "csv": CsvWriter,
    "xlsx": XlsxWriter,
    "jsonl": JsonlWriter,
    "focus": FocusWriter,
    "xero": XeroWriter,
}

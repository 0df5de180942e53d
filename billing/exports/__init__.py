"""Exports of a month: one file per format, and a manifest over all of them.

`FORMATS` names each format's writer; `billing.jobs.exports` walks over the invoices and writes the folder.
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

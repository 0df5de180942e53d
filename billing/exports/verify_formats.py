"""The part of `verify_export.py` that compares files of one export with each other. See `script`."""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import IO
from xml.etree import ElementTree as ET

from billing.exports.verify_reading import Report, Row, is_same, plain, read_table, total_of

FOCUS = "focus-1.2.csv"
BOOK = "export.xlsx"
XERO = {"xero-invoices": ("InvoiceNumber", "InvoiceDate"), "xero-credit-notes": ("CreditNoteNumber", "CreditNoteDate")}
"""File -> its columns for number and date."""
XERO_DOCUMENTS = 500
"""Per file."""

_CELL = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")


# --- The same tables in several formats -------------------------------------------------------------------------------


def compare_tables(folder: Path, table: str, first: str, other: str, report: Report) -> None:
    """Row by row, as text: reports rows that one format has and the other doesn't."""
    name = f"{BOOK}, {table}" if other == "xlsx" else f"{table}.{other}"
    rows = read_table(folder / f"{table}.{first}", report)
    others = read_sheets(folder / BOOK, table, report) if other == "xlsx" else read_table(folder / name, report)
    for number, (row, same) in enumerate(zip_longest(rows, others), start=1):
        if row is None or same is None:
            report.differs(f"{name}, row {number}: it is not in both this file and {table}.{first}.")
            return
        if row.keys() != same.keys():
            report.differs(f"{name}, row {number}: its columns differ from those of {table}.{first}.")
            return
        for column, text in row.items():
            if not is_same(_in_one_form(same[column]), _in_one_form(text)):
                report.compare(f"{name}, row {number}", column, same[column], text)


def _in_one_form(text: str) -> str:
    """A workbook writes line breaks and control characters differently."""
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_sheets(path: Path, table: str, report: Report) -> Iterator[Row]:
    """The rows of a table, which may continue on further sheets."""
    if not path.is_file():
        return
    try:
        with zipfile.ZipFile(path) as book:
            names = re.findall(r'<sheet name="([^"]+)"', book.read("xl/workbook.xml").decode())
            for number, name in enumerate(names, start=1):
                if name.split()[0].lower() == table:
                    with book.open(f"xl/worksheets/sheet{number}.xml") as sheet:
                        yield from _rows_of_sheet(sheet)
    except (KeyError, ValueError, zipfile.BadZipFile, ET.ParseError) as error:
        report.differs(f"{path.name}: it can't be read completely: {error}.")


def _rows_of_sheet(sheet: IO[bytes]) -> Iterator[Row]:
    header: list[str] = []
    for _, element in ET.iterparse(sheet):  # noqa: S314 - see above
        if element.tag == f"{_CELL}row":
            cells = {_column_of(cell): _text_of(cell) for cell in element}
            if header:
                yield Row({name: cells.get(column, "") for column, name in enumerate(header)})
            else:
                header = [cells[column] for column in sorted(cells)]
            element.clear()


def _column_of(cell: ET.Element) -> int:
    """A is 0, AA is 26."""
    column = 0
    for letter in re.sub(r"\d", "", cell.get("r", "")):
        column = 26 * column + ord(letter) - ord("A") + 1
    return column - 1


def _text_of(cell: ET.Element) -> str:
    if cell.find(f"{_CELL}f") is not None:
        raise ValueError(f"cell {cell.get('r')} holds a formula")
    return "".join(cell.itertext())


# --- Files for accounting ---------------------------------------------------------------------------------------------


def check_focus(folder: Path, invoices: Iterable[Row], lines: Mapping[str, list[Row]], report: Report) -> None:
    """Only numbered documents: drafts can't be told apart in the file."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in read_table(folder / FOCUS, report):
        rows[row["InvoiceId"]].append(row)
    numbered = {invoice["number"]: invoice for invoice in invoices if invoice["number"]}
    for number in sorted(rows.keys() - numbered.keys() - {""}):
        report.differs(f"{FOCUS}, {number}: it is not among the invoices.")
    for number, invoice in numbered.items():
        where = f"{FOCUS}, {number}"
        report.guard(where, _check_focus, where, invoice, lines[invoice["invoice_id"]], rows[number], report)


def _check_focus(where: str, invoice: Row, lines: list[Row], rows: list[Row], report: Report) -> None:
    report.compare(where, "the sum of BilledCost", total_of(rows, "BilledCost"), invoice.number("total"))
    taxes = [row for row in rows if row["ChargeCategory"] == "Tax"]
    report.compare(where, "the sum of its taxes", total_of(taxes, "BilledCost"), invoice.number("tax"))
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        parts[row["x_LinePosition"]].append(row)
        report.same(
            where,
            row,
            BillingAccountId=invoice["account_id"],
            BillingAccountName=invoice["legal_name"],
            BillingCurrency=invoice["currency"],
            x_InvoiceKind=invoice["kind"],
            x_InvoiceState=invoice["state"],
        )
        _check_month(where, row, "BillingPeriodStart", invoice["period"], report)
        for column in ("EffectiveCost", "ContractedCost", "ListCost", "PricingCurrencyEffectiveCost"):
            report.compare(where, column, row.number(column), row.number("BilledCost"))
    for line in lines:
        place, found = f"{where}, line {line['position']}", parts[line["position"]]
        report.compare(place, "the sum of BilledCost", total_of(found, "BilledCost"), line.number("exact_amount"))
        for row in found:
            _check_month(place, row, "ChargePeriodStart", line["period"], report)
            # The units that a line consists of follow its description.
            text, *_ = row["ChargeDescription"].split(": ") if line["meter"] == "other" else [row["ChargeDescription"]]
            if not is_same(text, line["description"]) and not is_same(row["ChargeDescription"], line["description"]):
                report.compare(place, "ChargeDescription", row["ChargeDescription"], line["description"])
    for position in sorted(parts.keys() - {line["position"] for line in lines} - {""}):
        report.differs(f"{where}: its line {position} is not among the lines.")


def _check_month(where: str, row: Row, column: str, period: str, report: Report) -> None:
    report.compare(where, column, row[column], f"{period}-01T00:00:00Z")


def xero_files(name: str, documents: int) -> list[str]:
    parts = -(-documents // XERO_DOCUMENTS)
    return [f"{name}-{part}.csv" if part > 1 else f"{name}.csv" for part in range(1, parts + 1)]


def check_xero(
    folder: Path, invoices: Iterable[Row], lines: Mapping[str, list[Row]], report: Report, *, with_tax: bool
) -> None:
    """with_tax: whether the files state the tax of each line."""
    issued = [invoice for invoice in invoices if invoice["state"] == "issued"]
    for name, (number, _) in XERO.items():
        documents = [invoice for invoice in issued if (invoice["kind"] == "credit_note") is ("credit" in name)]
        rows: dict[str, list[Row]] = defaultdict(list)
        for file in xero_files(name, len(documents)):
            for row in read_table(folder / file, report):
                rows[row[f"*{number}"]].append(row)
        for other in sorted(rows.keys() - {invoice["number"] for invoice in documents}):
            report.differs(f"{name}, {other}: it is not among the documents.")
        for invoice in documents:
            where, found = f"{name}, {invoice['number']}", rows[invoice["number"]]
            due = lines[invoice["invoice_id"]]
            report.compare(where, "number of lines", len(found), len(due))
            pairs = list(zip(due, found))  # noqa: B905 - Python 3.9 doesn't know strict
            report.guard(where, _check_xero, where, name, invoice, pairs, report, with_tax)


def _check_xero(
    where: str, name: str, invoice: Row, pairs: list[tuple[Row, Row]], report: Report, with_tax: bool
) -> None:
    sign = -1 if "credit" in name else 1
    date = XERO[name][1]
    for line, row in pairs:
        due = {
            "*ContactName": invoice["legal_name"],
            "Reference": invoice["original_number"] or invoice["po_number"],
            f"*{date}": _as_in_xero(invoice["issued_on"]),
            ("DueDate" if sign < 0 else "*DueDate"): _as_in_xero(invoice["due_on"]),
            "Currency": invoice["currency"],
            "*Description": line["description"],
            "*TaxType": f"{plain(percent)}%" if (percent := line.number("tax_percent")) else "Tax Exempt",
            "*Quantity": "1",
        }
        report.same(f"{where}, line {line['position']}", row, **due)
        report.compare(where, "Total", row.number("Total"), sign * invoice.number("total"))
        report.compare(where, "*UnitAmount", row.number("*UnitAmount"), sign * line.number("amount"))
    if with_tax:
        found = total_of([row for _, row in pairs], "TaxAmount")
        report.compare(where, "the sum of TaxAmount", found, sign * invoice.number("tax"))


def _as_in_xero(day: str) -> str:
    return "/".join(reversed(day.split("-"))) if day else ""

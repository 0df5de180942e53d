#!/usr/bin/env python3
"""Checks an export of invoices against itself, offline: python3 verify_export.py [FOLDER]

It needs Python 3.9 or later and nothing else, and reads nothing but the folder, by default its own. It checks that

  - every file is the one that manifest.json names, by size and SHA-256, and that no file is missing or added;
  - a line's quantity x unit price is its exact amount, its amount is that rounded, its residual what is left of it;
  - an invoice's lines add up to its subtotal, with the tax to its total, and all invoices to the manifest's totals;
  - credit notes give back no more than was asked for;
  - the usage adds up to what the lines bill, by model and kind of token, and its calls have the lines' digests;
  - the rows of focus-1.2.csv add up to each invoice's total.

Each difference is named on a line of its own. Exit status: 0 all is in order, 1 something differs, 2 it can't be
checked.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation, getcontext
from pathlib import Path
from typing import Any

FORMAT = "llm-gateway-export/1"
MANIFEST = "manifest.json"
FOCUS = "focus-1.2.csv"
TABLE_FORMATS = ("csv", "jsonl")

PART_TOKENS = {
    "cache_read": "cache_read_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "audio_input": "audio_input_tokens",
    "audio_output": "audio_output_tokens",
    "reasoning": "reasoning_tokens",
}
INPUT_METERS = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "audio_input")
OUTPUT_METERS = ("output", "audio_output", "reasoning")
COUNTS = ("calls", "prompt_tokens", "completion_tokens", *PART_TOKENS.values())
WORDS = 8

Model = tuple[str, str, str, str]
"""Invoice, period, provider, model."""


class CannotCheck(Exception):
    """There is nothing to compare with."""


class Unreadable(ValueError):
    """A value is missing, or is no number."""


class Row(dict[str, str]):
    """Column -> text; "" for nothing."""

    def __missing__(self, column: str) -> str:
        raise Unreadable(f"there is no column {column}")

    def number(self, column: str) -> Decimal:
        try:
            value = Decimal(self[column])
        except InvalidOperation:
            value = Decimal("nan")
        if not value.is_finite():
            raise Unreadable(f"{column} is “{self[column]}”, which is no number")
        return value

    def whole(self, column: str) -> int:
        value = self.number(column)
        if value != int(value):
            raise Unreadable(f"{column} is “{self[column]}”, which is no whole number")
        return int(value)

    @property
    def name(self) -> str:
        """Of an invoice."""
        return self.get("number") or f"Invoice {self['invoice_id']}"

    @property
    def model(self) -> Model:
        return (self["invoice_id"], self["period"], self["provider"], self["model"])


class Report:
    """What was found; at most MOST differences are told."""

    MOST = 1000

    def __init__(self) -> None:
        self.differences = 0

    def differs(self, sentence: str) -> None:
        self.differences += 1
        if self.differences <= self.MOST:
            sys.stdout.write(f"{sentence}\n")

    def compare(self, where: str, what: str, found: object, due: object) -> None:
        if found != due:
            self.differs(f"{where}: {what} is {plain(found)}, but should be {plain(due)}.")

    def guard(self, where: str, check: Callable[..., None], *arguments: object) -> None:
        """What can't be read is a difference too; the rest goes on."""
        try:
            check(*arguments)
        except Unreadable as error:
            self.differs(f"{where}: {error}.")


def main(arguments: list[str]) -> int:
    getcontext().prec = 100
    folder = Path(arguments[0]) if arguments else Path(__file__).resolve().parent
    report = Report()
    try:
        manifest = read_manifest(folder)
        check_files(folder, manifest, report)
        for kind in table_formats(manifest):
            Export(folder, kind, manifest, report).check()
    except (CannotCheck, OSError) as error:
        sys.stdout.write(f"{error}\n")
        return 1 if report.differences else 2
    except (KeyError, TypeError, AttributeError) as error:
        sys.stdout.write(f"{MANIFEST} is not as it was written: {error!r}.\n")
        return 1 if report.differences else 2
    if report.differences:
        sys.stdout.write(f"{report.differences} differences.\n")
        return 1
    rows = ", ".join(f"{number} {table}" for table, number in manifest["rows"].items())
    sys.stdout.write(f"All is in order: {rows}.\n")
    return 0


# --- Files ------------------------------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise CannotCheck(f"{folder} holds no {MANIFEST}: this is no export.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CannotCheck(f"{MANIFEST} can't be read: {error}.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CannotCheck(f"{MANIFEST} is not of the format {FORMAT}, which is all that this script knows.")
    return manifest


def table_formats(manifest: dict[str, Any]) -> list[str]:
    if found := [kind for kind in TABLE_FORMATS if kind in manifest["formats"]]:
        return found
    raise CannotCheck("Only the files themselves were checked: for their figures, export as csv or jsonl too.")


def check_files(folder: Path, manifest: dict[str, Any], report: Report) -> None:
    named = {entry["name"]: entry for entry in manifest["files"]}
    present = {path.name for path in folder.iterdir()}
    for name in sorted(present - named.keys() - {MANIFEST, "__pycache__"}):
        report.differs(f"{name}: the manifest doesn't name this file.")
    for name, entry in sorted(named.items()):
        if name not in present:
            report.differs(f"{name}: the file is missing.")
            continue
        size, digest = measure(folder / name)
        report.compare(name, "size in bytes", size, entry["bytes"])
        report.compare(name, "SHA-256", digest, entry["sha256"])


def measure(path: Path) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size += len(block)
            digest.update(block)
    return size, digest.hexdigest()


def read_table(path: Path, report: Report) -> Iterator[Row]:
    """Rows as text, whatever the format."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, file)
        try:
            for row in rows:
                yield Row({name: "" if value is None else str(value) for name, value in row.items()})
        except (ValueError, AttributeError, csv.Error) as error:
            report.differs(f"{path.name}: it can't be read to its end: {error}.")


# --- Figures ----------------------------------------------------------------------------------------------------------


class Usage:
    """Sums of some rows of usage."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTS, 0)
        self.words = [0] * WORDS

    def add(self, row: Row) -> None:
        for name in COUNTS:
            self.counts[name] += row.whole(name)
        try:
            digest = bytes.fromhex(row["digest"])
        except ValueError:
            raise Unreadable(f"digest is “{row['digest']}”, which is none") from None
        for index in range(WORDS):
            self.words[index] += int.from_bytes(digest[4 * index : 4 * index + 4], "big")

    def add_sums(self, other: Usage) -> None:
        for name in COUNTS:
            self.counts[name] += other.counts[name]
        for index in range(WORDS):
            self.words[index] += other.words[index]

    @property
    def digest(self) -> str:
        """The sum of the rows' digests, word by word."""
        return "".join(f"{word % 2**32:08x}" for word in self.words)


class Export:
    """The tables of one format. usage: by model, then by rate set."""

    def __init__(self, folder: Path, kind: str, manifest: dict[str, Any], report: Report) -> None:
        self.folder, self.kind, self.manifest, self.report = folder, kind, manifest, report
        self.invoices: dict[str, Row] = {}
        self.lines: dict[str, list[Row]] = defaultdict(list)
        self.usage: dict[Model, dict[str, Usage]] = defaultdict(lambda: defaultdict(Usage))

    def check(self) -> None:
        guard = self.report.guard
        for table, add in (("invoices", self.add_invoice), ("lines", self.add_line), ("usage", self.add_usage)):
            self.read(table, add)
        for owner in sorted(self.lines.keys() - self.invoices.keys()):
            self.report.differs(f"Invoice {owner}: it has lines, but is not among the invoices.")
        for invoice in self.invoices.values():
            guard(invoice.name, self.check_invoice, invoice)
            for line in self.lines[invoice["invoice_id"]]:
                where = f"{invoice.name}, line {line.get('position')}"
                guard(where, self.check_line, where, line, invoice)
        guard("Credit notes", self.check_credits)
        guard(MANIFEST, self.check_manifest)
        for model in sorted(self.usage.keys() | self.billed_models()):
            guard(self.where(model), self.check_model, model)
        if FOCUS in {entry["name"] for entry in self.manifest["files"]}:
            guard(FOCUS, self.check_focus)

    def read(self, table: str, add: Callable[[Row], None]) -> None:
        rows = 0
        for row in read_table(self.folder / f"{table}.{self.kind}", self.report):
            rows += 1
            self.report.guard(f"{table}.{self.kind}, row {rows}", add, row)
        self.report.compare(f"{table}.{self.kind}", "number of rows", rows, self.manifest["rows"][table])

    def add_invoice(self, row: Row) -> None:
        self.invoices[row["invoice_id"]] = row

    def add_line(self, row: Row) -> None:
        self.lines[row["invoice_id"]].append(row)

    def add_usage(self, row: Row) -> None:
        self.usage[row.model][row["rate_set_id"]].add(row)

    def check_invoice(self, invoice: Row) -> None:
        where, lines, compare = invoice.name, self.lines[invoice["invoice_id"]], self.report.compare
        subtotal, tax = invoice.number("subtotal"), invoice.number("tax")
        compare(where, "the sum of its lines", total_of(lines, "amount"), subtotal)
        compare(where, "the residual of its lines", total_of(lines, "residual"), invoice.number("residual"))
        compare(where, "total", invoice.number("total"), subtotal + tax)
        for percent in sorted({line.number("tax_percent") for line in lines if line["period"] == invoice["period"]}):
            compare(where, "tax_percent", invoice.number("tax_percent"), percent)
        if invoice["kind"] != "credit_note":
            compare(where, "tax", tax, tax_due(invoice, lines))

    def check_line(self, where: str, line: Row, invoice: Row) -> None:
        """A reduction may give back a little less than its lines, rounded by themselves, come to."""
        exact, amount = line.number("exact_amount"), line.number("amount")
        due = rounded(exact, decimals_of(invoice))
        if invoice["credit_kind"] != "reduction" or amount < due:
            self.report.compare(where, "amount", amount, due)
        self.report.compare(where, "residual", line.number("residual"), exact - amount)
        if line["unit_price_per_million"] and line["quantity"]:
            due = line.whole("quantity") * line.number("unit_price_per_million").scaleb(-6)
            self.report.compare(where, "exact amount", exact, due)

    def check_credits(self) -> None:
        """What is credited by parts has its tax rounded by parts, and the last note takes what is left of it."""
        notes: dict[str, list[Row]] = defaultdict(list)
        for invoice in self.invoices.values():
            notes[invoice["original_number"]].append(invoice)
        for original in self.invoices.values():
            for column in ("subtotal", "tax"):
                asked, back = original.number(column), total_of(notes.get(original["number"] or "-", ()), column)
                if abs(back) > abs(asked) or asked * back > 0:
                    self.report.differs(f"{original.name}: {plain(back)} of its {column}, {plain(asked)}, is credited.")

    def check_manifest(self) -> None:
        told = {str(entry["invoice_id"]): entry for entry in self.manifest["invoices"]}
        for owner in sorted(told.keys() ^ self.invoices.keys()):
            self.report.differs(f"Invoice {owner}: only one of {MANIFEST} and the table of invoices has it.")
        for owner in sorted(told.keys() & self.invoices.keys()):
            for column in ("number", "kind", "state", "currency", "total", "content_digest"):
                what, invoice = f"{column}, says {MANIFEST},", self.invoices[owner]
                self.report.compare(invoice.name, what, told[owner][column] or "", invoice[column])
        for currency, sums in self.manifest["totals"].items():
            ours = [invoice for invoice in self.invoices.values() if invoice["currency"] == currency]
            self.report.compare(MANIFEST, f"number of invoices in {currency}", sums["invoices"], len(ours))
            for column in ("subtotal", "tax", "total"):
                due = total_of(ours, column)
                self.report.compare(MANIFEST, f"{column} in {currency}", Row(sums).number(column), due)

    def check_focus(self) -> None:
        sums: dict[str, Decimal] = defaultdict(Decimal)
        for row in read_table(self.folder / FOCUS, self.report):
            sums[row["InvoiceId"]] += row.number("BilledCost")
        for invoice in self.invoices.values():
            if invoice["number"]:
                where, found = f"{FOCUS}, {invoice.name}", sums[invoice["number"]]
                self.report.compare(where, "the sum of BilledCost", found, invoice.number("total"))

    # --- Usage --------------------------------------------------------------------------------------------------------

    def billed_models(self) -> set[Model]:
        return {line.model for lines in self.lines.values() for line in lines if is_of_tokens(line)}

    def where(self, model: Model) -> str:
        owner, period, provider, name = model
        return f"{self.invoices.get(owner, Row(invoice_id=owner)).name}, {provider} {name} of {period}"

    def check_model(self, model: Model) -> None:
        """At cost each rate set has lines of its own; at fixed prices a model's lines stand for all of them."""
        usage = self.usage.get(model, {})
        lines = [line for line in self.lines.get(model[0], ()) if is_of_tokens(line) and line.model == model]
        at_cost = {rate_set for line in lines if (rate_set := rate_set_of(line)) is not None}
        if at_cost:
            for rate_set in sorted(usage.keys() | at_cost):
                part = [line for line in lines if rate_set_of(line) == rate_set]
                self.check_usage(model, usage.get(rate_set, Usage()), part)
            return
        whole = Usage()
        for sums in usage.values():
            whole.add_sums(sums)
        self.check_usage(model, whole, lines)

    def check_usage(self, model: Model, usage: Usage, lines: list[Row]) -> None:
        billed: dict[str, int] = defaultdict(int)
        for line in lines:
            billed[line["meter"]] += line.whole("quantity")
        for meters, column in (
            (INPUT_METERS, "prompt_tokens"),
            (OUTPUT_METERS, "completion_tokens"),
            *(((meter,), column) for meter, column in PART_TOKENS.items() if meter in billed),
        ):
            found = sum(billed.get(meter, 0) for meter in meters)
            self.report.compare(self.where(model), f"{column} billed", found, usage.counts[column])
        # An invoice's line of an earlier month is a difference to invoices that are not in this export.
        invoice = self.invoices.get(model[0], Row(kind=""))
        if invoice["kind"] == "regular" and invoice["period"] == model[1]:
            for line in lines:
                where = f"{invoice.name}, line {line['position']}"
                self.report.compare(where, "number of calls", line.whole("calls"), usage.counts["calls"])
                self.report.compare(where, "digest of the calls", line["digest"], usage.digest)


def is_of_tokens(line: Row) -> bool:
    """Fees, web searches and corrections have lines without tokens; a credit note gives back money, not tokens."""
    return line["kind"] == "usage" and line["meter"] in (*INPUT_METERS, *OUTPUT_METERS) and line["quantity"] != ""


def rate_set_of(line: Row) -> str | None:
    """Of a line at cost, "" where its calls had none; None of a line at a fixed price. It stands in the line's key."""
    basis = [*line["key"].split("|"), "", ""][2]
    return basis[len("cost:") :].replace("-", "") if basis.startswith("cost:") else None


def decimals_of(invoice: Row) -> int:
    """Of its currency, in which all of its amounts are written."""
    return -int(invoice.number("total").as_tuple().exponent)


def tax_due(invoice: Row, lines: Iterable[Row]) -> Decimal:
    """Each rate on the sum of its lines; without lines there is none."""
    nets: dict[Decimal, Decimal] = defaultdict(Decimal)
    for line in lines:
        nets[line.number("tax_percent")] += line.number("amount")
    taxes = (rounded(net * percent / 100, decimals_of(invoice)) for percent, net in nets.items())
    return sum(taxes, Decimal(0))


def total_of(rows: Iterable[Row], column: str) -> Decimal:
    return sum((row.number(column) for row in rows), Decimal(0))


def rounded(amount: Decimal, decimals: int) -> Decimal:
    """Halves go away from zero."""
    return amount.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)


def plain(value: object) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value) or "nothing"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

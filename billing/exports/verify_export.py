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

Row = dict[str, str]  # column -> text, "" for nothing
Model = tuple[str, str, str, str]  # invoice, period, provider, model


class CannotCheck(Exception):
    """There is nothing to compare with."""


class Report:
    """What was found. Many differences of one kind would hide the others: each is told MOST times."""

    MOST = 1000

    def __init__(self) -> None:
        self.differences = 0

    def differs(self, sentence: str) -> None:
        self.differences += 1
        if self.differences <= self.MOST:
            sys.stdout.write(sentence + "\n")

    def compare(self, where: str, what: str, found: object, due: object) -> None:
        if found != due:
            self.differs(f"{where}: {what} is {_plain(found)}, but should be {_plain(due)}.")


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
                yield {name: "" if value is None else str(value) for name, value in row.items()}
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
            self.counts[name] += int(row[name])
        for index in range(WORDS):
            self.words[index] += int(row["digest"][8 * index : 8 * index + 8], 16)

    def add_all(self, others: Iterable[Usage]) -> Usage:
        for other in others:
            for name in COUNTS:
                self.counts[name] += other.counts[name]
            self.words = [a + other.words[index] for index, a in enumerate(self.words)]
        return self

    @property
    def digest(self) -> str:
        return "".join(f"{word % 2**32:08x}" for word in self.words)


class Export:
    """The tables of one format."""

    def __init__(self, folder: Path, kind: str, manifest: dict[str, Any], report: Report) -> None:
        self.folder, self.kind, self.manifest, self.report = folder, kind, manifest, report
        self.invoices: dict[str, Row] = {}
        self.lines: dict[str, list[Row]] = defaultdict(list)
        # by rate set
        self.usage: dict[Model, dict[str, Usage]] = defaultdict(lambda: defaultdict(Usage))
        self.rows = dict.fromkeys(("invoices", "lines", "usage"), 0)

    def check(self) -> None:
        self.read()
        for name, rows in self.rows.items():
            self.report.compare(f"{name}.{self.kind}", "number of rows", rows, self.manifest["rows"][name])
        for invoice in self.invoices.values():
            self.guard(name_of(invoice), self.check_invoice, invoice)
        for owner in sorted(set(self.lines) - set(self.invoices)):
            self.report.differs(f"lines.{self.kind}: invoice {owner} has lines, but is not among the invoices.")
        self.guard("Credit notes", self.check_credits)
        self.guard(MANIFEST, self.check_manifest)
        for key in sorted(self.usage.keys() | self.billed_models()):
            self.guard(name_of(self.invoices.get(key[0], {"invoice_id": key[0]})), self.check_usage, key)
        if self.kind == TABLE_FORMATS[0] or TABLE_FORMATS[0] not in self.manifest["formats"]:
            self.guard(FOCUS, self.check_focus)

    def read(self) -> None:
        for row in self.rows_of("invoices"):
            self.invoices[row["invoice_id"]] = row
        for row in self.rows_of("lines"):
            self.lines[row["invoice_id"]].append(row)
        for row in self.rows_of("usage"):
            key = (row["invoice_id"], row["period"], row["provider"], row["model"])
            self.guard(f"usage.{self.kind}, row {self.rows['usage']}", self.usage[key][row["rate_set_id"]].add, row)

    def rows_of(self, table: str) -> Iterator[Row]:
        for row in read_table(self.folder / f"{table}.{self.kind}", self.report):
            self.rows[table] += 1
            yield row

    def guard(self, where: str, check: Callable[..., None], *arguments: object) -> None:
        """A figure that is none is a difference too."""
        try:
            check(*arguments)
        except (ValueError, KeyError, InvalidOperation, TypeError) as error:
            self.report.differs(f"{where}: a value is missing or no number ({error!r}).")

    def check_invoice(self, invoice: Row) -> None:
        where, lines = name_of(invoice), self.lines[invoice["invoice_id"]]
        decimals = -int(Decimal(invoice["total"]).as_tuple().exponent)
        for line in lines:
            self.guard(
                f"{where}, line {line.get('position')}",
                self.check_line,
                f"{where}, line {line['position']}",
                line,
                decimals,
            )
        subtotal, tax = Decimal(invoice["subtotal"]), Decimal(invoice["tax"])
        self.report.compare(where, "the sum of its lines", total_of(lines, "amount"), subtotal)
        self.report.compare(
            where, "the residual of its lines", total_of(lines, "residual"), Decimal(invoice["residual"])
        )
        self.report.compare(where, "total", Decimal(invoice["total"]), subtotal + tax)
        if invoice["kind"] != "credit_note":
            self.report.compare(where, "tax", tax, tax_of(invoice, decimals))

    def check_line(self, where: str, line: Row, decimals: int) -> None:
        exact, amount = Decimal(line["exact_amount"]), Decimal(line["amount"])
        self.report.compare(where, "amount", amount, rounded(exact, decimals))
        self.report.compare(where, "residual", Decimal(line["residual"]), exact - amount)
        if line["unit_price_per_million"] and line["quantity"]:
            due = int(line["quantity"]) * Decimal(line["unit_price_per_million"]).scaleb(-6)
            self.report.compare(where, "exact amount", exact, due)

    def check_credits(self) -> None:
        """What is credited by parts rounds its tax by parts: the last note takes what is left."""
        notes: dict[str, list[Row]] = defaultdict(list)
        for invoice in self.invoices.values():
            if invoice["kind"] == "credit_note":
                notes[invoice["original_number"]].append(invoice)
        for original in self.invoices.values():
            for name in ("subtotal", "tax") if original["number"] in notes else ():
                asked, back = Decimal(original[name]), total_of(notes[original["number"]], name)
                if abs(back) > abs(asked) or asked * back > 0:
                    self.report.differs(
                        f"{name_of(original)}: {_plain(back)} of its {name} of {_plain(asked)} is credited."
                    )

    def check_manifest(self) -> None:
        told = {str(entry["invoice_id"]): entry for entry in self.manifest["invoices"]}
        for owner in sorted(told.keys() ^ self.invoices.keys()):
            self.report.differs(
                f"{name_of({'invoice_id': owner})}: it stands only in one of {MANIFEST} and the invoices."
            )
        for owner in sorted(told.keys() & self.invoices.keys()):
            for name in ("number", "kind", "state", "currency", "total", "content_digest"):
                due = told[owner][name] or ""
                self.report.compare(
                    name_of(self.invoices[owner]), f"{name} by {MANIFEST}", due, self.invoices[owner][name]
                )
        for currency, sums in self.manifest["totals"].items():
            ours = [invoice for invoice in self.invoices.values() if invoice["currency"] == currency]
            self.report.compare(MANIFEST, f"number of invoices in {currency}", sums["invoices"], len(ours))
            for name in ("subtotal", "tax", "total"):
                self.report.compare(MANIFEST, f"{name} in {currency}", Decimal(sums[name]), total_of(ours, name))

    # --- Usage --------------------------------------------------------------------------------------------------------

    def billed_models(self) -> set[Model]:
        return {model_of(line) for lines in self.lines.values() for line in lines if is_of_tokens(line)}

    def check_usage(self, key: Model) -> None:
        """At cost each rate set has lines of its own; at fixed prices a model's lines are for all of them."""
        usage = self.usage.get(key, {})
        lines = [line for line in self.lines.get(key[0], ()) if is_of_tokens(line) and model_of(line) == key]
        if any(rate_set_of(line) is not None for line in lines):
            for rate_set in sorted({*usage, *(rate_set_of(line) or "" for line in lines)}):
                part = [line for line in lines if rate_set_of(line) == rate_set]
                self.check_model(key, usage.get(rate_set, Usage()), part)
        else:
            self.check_model(key, Usage().add_all(usage.values()), lines)

    def check_model(self, key: Model, usage: Usage, lines: list[Row]) -> None:
        owner, period, provider, model = key
        invoice = self.invoices.get(owner, {"invoice_id": owner})
        where = f"{name_of(invoice)}, {provider} {model} of {period}"
        billed: dict[str, int] = defaultdict(int)
        for line in lines:
            billed[line["meter"]] += int(line["quantity"] or 0)
        for what, meters, tokens in (
            ("input tokens billed", INPUT_METERS, "prompt_tokens"),
            ("output tokens billed", OUTPUT_METERS, "completion_tokens"),
            *((f"{meter} tokens billed", (meter,), tokens) for meter, tokens in PART_TOKENS.items() if meter in billed),
        ):
            self.report.compare(
                where, what, sum(billed[meter] for meter in meters if meter in billed), usage.counts[tokens]
            )
        # A later invoice bills the difference to earlier ones, whose calls are not in this export.
        if invoice.get("kind") == "regular" and invoice["period"] == period:
            for line in lines:
                place = f"{name_of(invoice)}, line {line['position']}"
                self.report.compare(place, "number of calls", int(line["calls"]), usage.counts["calls"])
                self.report.compare(place, "digest of the calls", line["digest"], usage.digest)

    def check_focus(self) -> None:
        if "focus" not in self.manifest["formats"]:
            return
        sums: dict[str, Decimal] = defaultdict(Decimal)
        for row in read_table(self.folder / FOCUS, self.report):
            sums[row["InvoiceId"]] += Decimal(row["BilledCost"])
        for invoice in self.invoices.values():
            if invoice["number"]:
                where = f"{FOCUS}, {invoice['number']}"
                self.report.compare(where, "the sum of BilledCost", sums[invoice["number"]], Decimal(invoice["total"]))


def name_of(invoice: Row) -> str:
    return invoice.get("number") or f"Invoice {invoice['invoice_id']}"


def model_of(line: Row) -> Model:
    return (line["invoice_id"], line["period"], line["provider"], line["model"])


def is_of_tokens(line: Row) -> bool:
    """Web searches and corrections have lines without tokens; a credit note gives back money, not tokens."""
    return line["kind"] == "usage" and line["meter"] in (*INPUT_METERS, *OUTPUT_METERS) and line["quantity"] != ""


def rate_set_of(line: Row) -> str | None:
    """Of a line at cost, "" where calls had none; None of a line at a fixed price. It stands in the line's key."""
    basis = line["key"].split("|")[2] if line["key"].count("|") > 2 else ""
    return basis[len("cost:") :].replace("-", "") if basis.startswith("cost:") else None


def total_of(rows: Iterable[Row], name: str) -> Decimal:
    return sum((Decimal(row[name]) for row in rows), Decimal(0))


def tax_of(invoice: Row, decimals: int) -> Decimal:
    return rounded(Decimal(invoice["subtotal"]) * Decimal(invoice["tax_percent"]) / 100, decimals)


def rounded(amount: Decimal, decimals: int) -> Decimal:
    """Halves go away from zero."""
    return amount.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)


def _plain(value: object) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value) or "nothing"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

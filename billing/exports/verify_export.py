#!/usr/bin/env python3
"""Checks an export of invoices against itself, offline: python3 verify_export.py [FOLDER]

It needs Python 3.9 or later and nothing else, and reads nothing but the folder, by default its own. It checks that

  - every file is the one that manifest.json names, by size and SHA-256, that all files of its formats are there, and
    nothing else: no file more, and no link in a file's place;
  - every document and every day is of the period, or says that it is of an earlier one;
  - a line's quantity x unit price is its exact amount, its amount is that rounded, its residual the difference;
    changes to a month that was billed before are rounded together with what was billed;
  - an invoice's lines add up to its subtotal, with the tax to its total, and all invoices to the manifest's totals;
  - credit notes give back no more than was charged;
  - the usage adds up to what the lines bill, by model and kind of token, and in cost, and its calls have the lines'
    digests;
  - csv, jsonl and xlsx hold the same, cell by cell; the focus and xero files hold the names, descriptions, dates and
    figures of the documents and their lines, and add up to each total and tax.

Each difference is reported on a line of its own. Exit status: 0 no differences, 1 differences, 2 it can't be checked.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from decimal import Decimal, getcontext
from itertools import combinations
from pathlib import Path
from typing import Any

from billing.exports.verify_formats import BOOK, FOCUS, check_focus, check_xero, compare_tables, xero_files
from billing.exports.verify_reading import (
    MANIFEST,
    TABLES,
    CannotCheck,
    Model,
    Report,
    Row,
    Unreadable,
    plain,
    read_table,
    rounded,
    total_of,
)

LAYOUTS = {"llm-gateway-export/1": 1, "llm-gateway-export/2": 2}
"""The known formats. Layout 1 has no kinds of credit notes, and one tax rate per document."""
TABLE_FORMATS = ("csv", "jsonl")
FILES = {
    "csv": [f"{table}.csv" for table in TABLES],
    "jsonl": [f"{table}.jsonl" for table in TABLES],
    "xlsx": [BOOK],
    "focus": [FOCUS],
}

OF_BILLED_BEFORE = (" on another invoice", ", billed before")
"""How the descriptions of lines end that bill only part of their month, since other invoices have billed the rest."""
MAX_ROUNDINGS = 3
"""By so many units of a currency's last decimal, amounts billed in parts may differ from the rounded whole."""

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
MAX_RATE_SETS = 12
"""Of one model in a month; with more, finding those that a line stands for would take too long."""


def main(arguments: list[str]) -> int:
    getcontext().prec = 100
    folder = Path(arguments[0]) if arguments else Path(__file__).resolve().parent
    report = Report()
    try:
        manifest = read_manifest(folder)
        check_files(folder, manifest, report)
        exports = [Export(folder, kind, manifest, report) for kind in table_formats(manifest)]
        for export in exports:
            export.check()
        exports[0].check_other_formats()
    except (CannotCheck, OSError) as error:
        sys.stdout.write(f"{error}\n")
        return 1 if report.differences else 2
    except (KeyError, TypeError, AttributeError) as error:
        sys.stdout.write(f"{MANIFEST} is damaged: {error!r}.\n")
        return 1 if report.differences else 2
    if report.differences:
        sys.stdout.write(f"{report.differences} difference{'' if report.differences == 1 else 's'}.\n")
        return 1
    rows = ", ".join(f"{table} {number}" for table, number in manifest["rows"].items())
    sys.stdout.write(f"No differences: {rows}.\n")
    return 0


# --- Files ------------------------------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise CannotCheck(f"{folder} contains no {MANIFEST}: this is not an export.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CannotCheck(f"{MANIFEST} can't be read: {error}.") from error
    if not isinstance(manifest, dict) or manifest.get("format") not in LAYOUTS:
        raise CannotCheck(f"{MANIFEST} has a format that this script doesn't know; it knows {', '.join(LAYOUTS)}.")
    return manifest


def table_formats(manifest: dict[str, Any]) -> list[str]:
    if found := [kind for kind in TABLE_FORMATS if kind in manifest["formats"]]:
        return found
    raise CannotCheck("Only the files themselves were checked: for their figures, export as csv or jsonl too.")


def check_files(folder: Path, manifest: dict[str, Any], report: Report) -> None:
    named = {entry["name"]: entry for entry in manifest["files"]}
    present = {path.name for path in folder.iterdir()}
    for name in sorted(present - named.keys() - {MANIFEST, "__pycache__"}):
        report.differs(f"{name}: the manifest doesn't list this file.")
    for name in sorted({*named, MANIFEST} & present):
        if (folder / name).is_symlink() or not (folder / name).is_file():
            report.differs(f"{name}: it is a link, or not a regular file.")
    for name in sorted(due_files(manifest) - named.keys()):
        report.differs(f"{name}: the manifest doesn't list this file, but it should.")
    for name, entry in sorted(named.items()):
        if name not in present:
            report.differs(f"{name}: the file is missing.")
        elif (folder / name).is_file():
            size, digest = measure(folder / name)
            report.compare(name, "size in bytes", size, entry["bytes"])
            report.compare(name, "SHA-256", digest, entry["sha256"])


def due_files(manifest: dict[str, Any]) -> set[str]:
    """All files that an export of these formats has, except the manifest."""
    found = {"verify_export.py", *(name for kind in manifest["formats"] for name in FILES.get(kind, ()))}
    if "xero" in manifest["formats"]:
        kinds = [entry["kind"] == "credit_note" for entry in manifest["invoices"] if entry["state"] == "issued"]
        found.update(xero_files("xero-credit-notes", sum(kinds)), xero_files("xero-invoices", len(kinds) - sum(kinds)))
    return found


def measure(path: Path) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size += len(block)
            digest.update(block)
    return size, digest.hexdigest()


# --- Figures ----------------------------------------------------------------------------------------------------------


class Usage:
    """Sums of some rows of usage."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTS, 0)
        self.words = [0] * WORDS
        self.cost: Decimal | None = None

    def add(self, row: Row) -> None:
        for name in COUNTS:
            self.counts[name] += row.whole(name)
        if "cost_usd" in row:
            self.cost = (self.cost or Decimal(0)) + row.number("cost_usd")
        try:
            digest = bytes.fromhex(row["digest"])
        except ValueError:
            raise Unreadable(f"digest is “{row['digest']}”, which is not a valid digest") from None
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
        return digest_of([self.words])


class Export:
    """The tables of one format. usage: by model, then by rate set."""

    def __init__(self, folder: Path, kind: str, manifest: dict[str, Any], report: Report) -> None:
        self.folder, self.kind, self.manifest, self.report = folder, kind, manifest, report
        self.layout = LAYOUTS[manifest["format"]]
        self.invoices: dict[str, Row] = {}
        self.lines: dict[str, list[Row]] = defaultdict(list)
        self.usage: dict[Model, dict[str, Usage]] = defaultdict(lambda: defaultdict(Usage))

    def check(self) -> None:
        guard = self.report.guard
        for table, add in (("invoices", self.add_invoice), ("lines", self.add_line), ("usage", self.add_usage)):
            self.read(table, add)
        for owner in sorted(self.lines.keys() - self.invoices.keys()):
            self.report.differs(f"Invoice {owner}: it has lines, but is not among the invoices.")
        for owner in sorted({model[0] for model in self.usage} - self.invoices.keys() - self.lines.keys()):
            self.report.differs(f"Invoice {owner}: it has usage, but is not among the invoices.")
        for invoice in self.invoices.values():
            guard(invoice.name, self.check_invoice, invoice)
            for line in self.lines[invoice["invoice_id"]]:
                where = f"{invoice.name}, line {line.get('position')}"
                guard(where, self.check_line, where, line, invoice)
        guard("Credit notes", self.check_credits)
        guard(MANIFEST, self.check_manifest)
        for model in sorted(self.usage.keys() | self.billed_models()):
            guard(self.where(model), self.check_model, model)

    def check_other_formats(self) -> None:
        formats, arguments = self.manifest["formats"], (self.folder, self.invoices.values(), self.lines, self.report)
        for kind in ("csv", "jsonl", "xlsx"):
            for table in TABLES if kind in formats and kind != self.kind else ():
                compare_tables(self.folder, table, self.kind, kind, self.report)
        if "focus" in formats:
            self.report.guard(FOCUS, check_focus, *arguments)
        if "xero" in formats:
            self.report.guard("xero", lambda: check_xero(*arguments, with_tax=self.layout > 1))

    def read(self, table: str, add: Callable[[Row], None]) -> None:
        rows = 0
        for row in read_table(self.folder / f"{table}.{self.kind}", self.report):
            rows += 1
            self.report.guard(f"{table}.{self.kind}, row {rows}", add, row)
        self.report.compare(f"{table}.{self.kind}", "number of rows", rows, self.manifest["rows"][table])

    def add_invoice(self, row: Row) -> None:
        if self.layout == 1:
            row.setdefault("credit_kind", "")
        self.invoices[row["invoice_id"]] = row

    def add_line(self, row: Row) -> None:
        if self.layout == 1 and row["invoice_id"] in self.invoices:
            row.setdefault("tax_percent", self.invoices[row["invoice_id"]]["tax_percent"])
        self.lines[row["invoice_id"]].append(row)

    def add_usage(self, row: Row) -> None:
        where, invoice = f"usage.{self.kind}", self.invoices.get(row["invoice_id"])
        self.usage[row.model][row["rate_set_id"]].add(row)
        self.report.compare(where, f"month of the day {row['day']}", row["day"][:7], row["period"])
        if invoice is not None:
            self.report.same(where, row, number=invoice["number"], account_id=invoice["account_id"])
            if row["period"] > invoice["period"]:
                self.report.compare(where, "period", row["period"], invoice["period"])

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
        if "cost_usd" in invoice:
            compare(where, "cost_usd", invoice.number("cost_usd"), total_of(lines, "cost_usd"))

    def check_line(self, where: str, line: Row, invoice: Row) -> None:
        exact, amount = line.number("exact_amount"), line.number("amount")
        due = rounded(exact, decimals_of(invoice))
        if not may_round_otherwise(line, invoice, amount - due):
            self.report.compare(where, "amount", amount, due)
        self.report.compare(where, "residual", line.number("residual"), exact - amount)
        if line["unit_price_per_million"] and line["quantity"]:
            due = line.whole("quantity") * line.number("unit_price_per_million").scaleb(-6)
            self.report.compare(where, "exact amount", exact, due)

    def check_credits(self) -> None:
        """A note that credits part of an invoice rounds its tax on that part; the last note takes the remaining tax."""
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
            self.report.differs(f"Invoice {owner}: it is not in both {MANIFEST} and the table of invoices.")
        for owner in sorted(told.keys() & self.invoices.keys()):
            for column in ("number", "kind", "state", "currency", "total", "content_digest"):
                what, invoice = f"{column}, says {MANIFEST},", self.invoices[owner]
                self.report.compare(invoice.name, what, told[owner][column] or "", invoice[column])
            self.check_scope(self.invoices[owner])
        for currency, sums in self.manifest["totals"].items():
            ours = [invoice for invoice in self.invoices.values() if invoice["currency"] == currency]
            self.report.compare(MANIFEST, f"number of invoices in {currency}", sums["invoices"], len(ours))
            for column in ("subtotal", "tax", "total"):
                due = total_of(ours, column)
                self.report.compare(MANIFEST, f"{column} in {currency}", Row(sums).number(column), due)

    def check_scope(self, invoice: Row) -> None:
        """Whether the content matches the scope that the manifest states."""
        compare = self.report.compare
        compare(invoice.name, "period", invoice["period"], self.manifest["period"])
        if self.manifest["account_id"] is not None:
            compare(invoice.name, "account_id", invoice["account_id"], str(self.manifest["account_id"]))
        if not self.manifest["includes_drafts"]:
            compare(invoice.name, "state", invoice["state"], "issued")

    # --- Usage --------------------------------------------------------------------------------------------------------

    def billed_models(self) -> set[Model]:
        return {line.model for lines in self.lines.values() for line in lines if is_of_tokens(line)}

    def where(self, model: Model) -> str:
        owner, period, provider, name = model
        return f"{self.invoices.get(owner, Row(invoice_id=owner)).name}, {provider} {name} of {period}"

    def check_model(self, model: Model) -> None:
        """At cost, each meter and price has a line or, as in version 0.1.0, each rate set has its own lines; at fixed
        prices a model's lines stand for all of its calls.
        """
        usage = self.usage.get(model, {})
        lines = [line for line in self.lines.get(model[0], ()) if is_of_tokens(line) and line.model == model]
        self.check_cost(model, usage)
        at_cost = {rate_set for line in lines if (rate_set := rate_set_of(line)) is not None}
        is_by_price = any(basis_of(line).startswith("cost@") for line in lines)
        if at_cost and not is_by_price:
            for rate_set in sorted(usage.keys() | at_cost):
                part = [line for line in lines if rate_set_of(line) == rate_set]
                self.check_usage(model, usage.get(rate_set, Usage()), part)
            return
        whole = Usage()
        for sums in usage.values():
            whole.add_sums(sums)
        if not is_by_price:
            self.check_usage(model, whole, lines)
            return
        self.check_tokens(model, whole, lines)
        if self.bills_its_own_month(model):
            for meter in sorted({line["meter"] for line in lines}):
                self.check_calls(model, [line for line in lines if line["meter"] == meter], list(usage.values()))

    def check_calls(self, model: Model, lines: list[Row], rate_sets: list[Usage]) -> None:
        """lines: of one meter. They stand for the calls of some of the rate sets, since not every set has used the
        meter.
        """
        if len(lines) == 1 and len(rate_sets) <= 1:
            self.check_proof(model, lines[0], rate_sets[0] if rate_sets else Usage())
            return
        if len(rate_sets) > MAX_RATE_SETS:
            return
        stood_for = (sum(line.whole("calls") for line in lines), digest_of(words_of(line["digest"]) for line in lines))
        for size in range(len(rate_sets), -1, -1):
            for some in combinations(rate_sets, size):
                if stood_for == (sum(each.counts["calls"] for each in some), digest_of(each.words for each in some)):
                    return
        self.report.differs(
            f"{self.where(model)}: {lines[0]['meter']} lines bill {stood_for[0]:,} "
            f"{'call' if stood_for[0] == 1 else 'calls'} with the digest "
            f"{stood_for[1]}, which don't match its usage."
        )

    def bills_its_own_month(self, model: Model) -> bool:
        """Whether the line is of the invoice's month. Others are differences from invoices outside this export."""
        invoice = self.invoices.get(model[0], Row(kind=""))
        return invoice["kind"] == "regular" and invoice["period"] == model[1]

    def check_cost(self, model: Model, usage: dict[str, Usage]) -> None:
        costs = [sums.cost for sums in usage.values() if sums.cost is not None]
        if costs and self.bills_its_own_month(model):
            lines = [line for line in self.lines[model[0]] if line["kind"] == "usage" and line.model == model]
            self.report.compare(self.where(model), "cost_usd", total_of(lines, "cost_usd"), sum(costs))

    def check_usage(self, model: Model, usage: Usage, lines: list[Row]) -> None:
        self.check_tokens(model, usage, lines)
        if self.bills_its_own_month(model):
            for line in lines:
                self.check_proof(model, line, usage)

    def check_proof(self, model: Model, line: Row, usage: Usage) -> None:
        where = f"{self.invoices[model[0]].name}, line {line['position']}"
        self.report.compare(where, "number of calls", line.whole("calls"), usage.counts["calls"])
        self.report.compare(where, "digest of the calls", line["digest"], usage.digest)

    def check_tokens(self, model: Model, usage: Usage, lines: list[Row]) -> None:
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


def is_of_tokens(line: Row) -> bool:
    """Fees, web searches and corrections have lines without tokens; credit notes give back money, not tokens."""
    return line["kind"] == "usage" and line["meter"] in (*INPUT_METERS, *OUTPUT_METERS) and line["quantity"] != ""


def basis_of(line: Row) -> str:
    """Which price, tier or rate set a line of usage stands for."""
    return [*line["key"].split("|"), "", ""][2]


def words_of(digest: str) -> list[int]:
    """The eight words of a digest; zeros for none."""
    try:
        return [int(digest[8 * index : 8 * index + 8] or "0", 16) for index in range(WORDS)]
    except ValueError:
        raise Unreadable(f"digest is “{digest}”, which is not a valid digest") from None


def digest_of(parts: Iterable[list[int]]) -> str:
    """The sum of digests, word by word."""
    total = [0] * WORDS
    for words in parts:
        total = [a + b for a, b in zip(total, words, strict=True)]
    return "".join(f"{word % 2**32:08x}" for word in total)


def rate_set_of(line: Row) -> str | None:
    """Of a line at cost, "" if its calls had none; None for a line at a fixed price. It is part of the line's key."""
    basis = basis_of(line)
    return basis[len("cost:") :].replace("-", "") if basis.startswith("cost:") else None


def decimals_of(invoice: Row) -> int:
    """Of its currency, in which all its amounts are written."""
    return -int(invoice.number("total").as_tuple().exponent)


def may_round_otherwise(line: Row, invoice: Row, more: Decimal) -> bool:
    """Whether rounding may differ: a line that changes what was billed before is the rounded whole less what was
    printed before, perhaps on documents outside this export. A reduction may give back less than that.

    more: the line's amount less its own rounded exact amount.
    """
    if invoice["credit_kind"] == "reduction" and more > 0:
        return True
    is_own = invoice["kind"] == "regular" and line["period"] == invoice["period"]
    is_first = is_own and not line["description"].endswith(OF_BILLED_BEFORE)
    is_goodwill = invoice["kind"] == "credit_note" and invoice["credit_kind"] not in ("reduction", "correction")
    return not (is_first or is_goodwill) and abs(more) <= MAX_ROUNDINGS * Decimal(1).scaleb(-decimals_of(invoice))


def tax_due(invoice: Row, lines: Iterable[Row]) -> Decimal:
    """Each rate on the sum of its lines; none without lines."""
    nets: dict[Decimal, Decimal] = defaultdict(Decimal)
    for line in lines:
        nets[line.number("tax_percent")] += line.number("amount")
    taxes = (rounded(net * percent / 100, decimals_of(invoice)) for percent, net in nets.items())
    return sum(taxes, Decimal(0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

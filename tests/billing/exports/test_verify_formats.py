"""The script in an export compares all formats with each other: who changes one of them must change them all.

Each change here was made with the manifest's hash redone, by somebody who knows how.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from billing.exports.registry import FORMATS
from billing.invoices.crediting import credit
from billing.jobs.exports import export_month
from tests.billing.calls import make_call, make_price
from tests.billing.exports.months import (
    OCTOBER,
    approver,
    issued,
    make_customer,
    make_month,
    through_review,
    verify,
)
from tests.billing.exports.test_verify_export import Change, found_after, in_manifest, in_table, sign_again, without_row

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

YEAR = timezone.now().year
INVOICE, NOTE = f"INV-{YEAR}-000002", f"CN-{YEAR}-000001"
NAME = "=Büro, “Acme” & Söhne <r>株式会社"


@pytest.fixture(scope="module")
def good(django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """October in all formats: an invoice with late usage of September at another rate of tax, and a credit note."""
    folder = tmp_path_factory.mktemp("exports") / "good"
    with django_db_blocker.unblock():
        account = make_month(make_customer(legal_name=NAME, po_number="-7\n8", tax_percent=Decimal(7)))
        issued(account)
        account.billing_profile.tax_percent = Decimal(19)
        account.billing_profile.save()
        price = make_price("late", input="2.500001")
        for day in (date(2026, 9, 7), date(2026, 10, 7)):
            make_call(account, price=price, model="late", day=day, prompt_tokens=1_000_001)
        invoice = issued(account, OCTOBER)
        line = invoice.lines.order_by("position").first()
        assert line is not None
        through_review(credit(invoice.pk, user=approver(), reason="sorry", amounts={line.pk: Decimal("0.07")}))
        export_month(OCTOBER, folder, tuple(FORMATS))
        call_command("flush", interactive=False, verbosity=0)
    return folder


def in_jsonl(table: str, row: int, **values: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / f"{table}.jsonl"
        records = [json.loads(line) for line in path.read_bytes().splitlines()]
        assert records[row].keys() >= values.keys()
        records[row].update(values)
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        sign_again(folder, path)

    return change


def in_book(sheet: int, pattern: str, replacement: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / "export.xlsx"
        name = f"xl/worksheets/sheet{sheet}.xml"
        with zipfile.ZipFile(path) as book:
            parts = {each: book.read(each) for each in book.namelist()}
        text, number = re.subn(pattern, replacement, parts[name].decode(), count=1)
        assert number == 1
        parts[name] = text.encode()
        with zipfile.ZipFile(path, "w") as book:
            for each, content in parts.items():
                book.writestr(each, content)
        sign_again(folder, path)

    return change


def dropped(name: str) -> Change:
    """From the folder and from the list."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        in_manifest(lambda document: document.update(files=[f for f in document["files"] if f["name"] != name]))(folder)

    return change


def linked(name: str) -> Change:
    def change(folder: Path) -> None:
        shutil.move(folder / name, folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return change


def test_a_good_export_in_all_formats_is_in_order(good: Path) -> None:
    assert verify(good) == (0, "No differences: invoices 2, lines 3, usage 2.\n")


CHANGES: dict[str, tuple[Change, str]] = {
    # Of the kinds that were not named once.
    "description": (in_table("lines", 0, description="Other"), "lines.jsonl, row 1: description is"),
    "legal name": (in_table("invoices", 0, legal_name="Other"), "invoices.jsonl, row 1: legal_name is"),
    "day": (in_table("usage", 0, day="2026-10-08"), "usage.jsonl, row 1: day is"),
    "day of another month": (in_table("usage", 0, day="2026-08-08"), "usage.csv: month of the day 2026-08-08 is"),
    "cost of usage": (in_table("usage", 1, cost_usd="1"), f"{INVOICE}, openai late of 2026-10: cost_usd is"),
    "cost of a line": (in_table("lines", 1, cost_usd="1"), f"{INVOICE}: cost_usd is"),
    "cost of an invoice": (in_table("invoices", 1, cost_usd="1"), f"{INVOICE}: cost_usd is 1, but should be"),
    "estimated cost": (in_table("usage", 0, estimated_cost_usd="1"), "usage.jsonl, row 1: estimated_cost_usd is"),
    "due date": (in_table("invoices", 0, due_on="2030-01-01"), "invoices.jsonl, row 1: due_on is"),
    "owner of usage": (in_table("usage", 0, account_id="99"), "usage.csv: account_id is 99"),
    "jsonl alone": (in_jsonl("invoices", 0, legal_name="Other"), "invoices.jsonl, row 1: legal_name is Other"),
    "a row of jsonl": (without_row("usage", 1), "usage.csv: number of rows is 1, but should be 2."),
    # The workbook.
    "number in the book": (in_book(1, r"<v>5\.66</v>", "<v>5.67</v>"), "export.xlsx, invoices, row 2: total is 5.67"),
    "text in the book": (in_book(2, "late, input tokens", "late, output tokens"), "export.xlsx, lines, row 1: descr"),
    "day in the book": (in_book(3, "2026-10-07", "2026-10-08"), "export.xlsx, usage, row 2: day is 2026-10-08"),
    "formula in the book": (
        in_book(2, r"<v>2\.50</v>", "<f>1+1</f><v>2.50</v>"),
        "export.xlsx: it can't be read completely: cell",
    ),
    "a row of the book": (
        in_book(3, r'<row r="3".*?</row>', ""),
        "export.xlsx, usage, row 2: it is not in both this file and",
    ),
    # FOCUS.
    "name in focus": (in_table("focus-1.2", 0, BillingAccountName="Other"), "BillingAccountName is Other"),
    "words in focus": (in_table("focus-1.2", 0, ChargeDescription="Other"), "line 1: ChargeDescription is Other"),
    "month in focus": (in_table("focus-1.2", 0, ChargePeriodStart="2026-08-01T00:00:00Z"), "line 1: ChargePeriodStart"),
    "another cost in focus": (in_table("focus-1.2", 0, EffectiveCost="1"), "EffectiveCost is 1, but should be"),
    "tax in focus": (in_table("focus-1.2", -1, ChargeCategory="Adjustment"), "the sum of its taxes is 0"),
    "document in focus": (
        in_table("focus-1.2", 0, InvoiceId=f"INV-{YEAR}-000099"),
        f"INV-{YEAR}-000099: it is not among",
    ),
    # Xero.
    "amount in xero": (in_table("xero-invoices", 0, **{"*UnitAmount": "9.99"}), "*UnitAmount is 9.99, but should be"),
    "tax in xero": (in_table("xero-invoices", 0, TaxAmount="9.99"), "the sum of TaxAmount is"),
    "rate in xero": (in_table("xero-invoices", 0, **{"*TaxType": "7%"}), "*TaxType is 7%, but should be 19%."),
    "total in xero": (in_table("xero-credit-notes", 0, Total="1.00"), f"xero-credit-notes, {NOTE}: Total is 1.00"),
    "contact in xero": (in_table("xero-invoices", 1, **{"*ContactName": "Other"}), "line 2: *ContactName is Other"),
    "words in xero": (in_table("xero-invoices", 1, **{"*Description": "Other"}), "line 2: *Description is Other"),
    "date in xero": (in_table("xero-invoices", 0, **{"*DueDate": "01/01/2030"}), "line 1: *DueDate is 01/01/2030"),
    "a line in xero": (without_row("xero-invoices", 1), f"{INVOICE}: number of lines is 1, but should be 2."),
    # The folder and the manifest.
    "a dropped table": (dropped("usage.jsonl"), "usage.jsonl: the manifest doesn't list this file"),
    "a dropped book": (dropped("export.xlsx"), "export.xlsx: the manifest doesn't list this file"),
    "dropped focus": (dropped("focus-1.2.csv"), "focus-1.2.csv: the manifest doesn't list this file"),
    "dropped xero": (dropped("xero-credit-notes.csv"), "xero-credit-notes.csv: the manifest doesn't list this file"),
    "a link": (linked("usage.csv"), "usage.csv: it is a link, or not a regular file."),
    "a link as manifest": (linked("manifest.json"), "manifest.json: it is a link, or not a regular file."),
    "period": (in_manifest(lambda document: document.update(period="2026-09")), f"{INVOICE}: period is 2026-10"),
    "account": (in_manifest(lambda document: document.update(account_id=99)), f"{INVOICE}: account_id is"),
}


@pytest.mark.parametrize(("change", "sentence"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_of_one_format_is_named(good: Path, tmp_path: Path, change: Change, sentence: str) -> None:
    found = found_after(change, good, tmp_path)
    assert [each for each in found if sentence in each], found

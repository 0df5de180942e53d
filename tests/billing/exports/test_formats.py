"""What each format makes of an invoice, cell by cell. The invoices come past all rating: any line can be had."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from billing.enums import InvoiceKind, InvoiceState, LineKind
from billing.exports import focus, xero, xlsx_file
from billing.jobs.exports import export_month
from billing.models import BilledUsage, BillingProfile, DailyUsage, Invoice
from billing.periods import BillingPeriod
from tests.billing.calls import make_key
from tests.billing.factories import OCTOBER, make_account, make_invoice, make_profile

pytestmark = pytest.mark.django_db

SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def export(folder: Path, *formats: str, **options: Any) -> Path:
    export_month(BillingPeriod(OCTOBER), folder, formats, **options)
    return folder


def issued(profile: BillingProfile, **values: Any) -> Invoice:
    return make_invoice(profile, state=InvoiceState.ISSUED, **values)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def sheets_of(path: Path) -> dict[str, list[list[tuple[str, str]]]]:
    """By name: rows of (type, text), where the type is n for numbers and inlineStr for text."""
    with zipfile.ZipFile(path) as book:
        names = re.findall(r'<sheet name="([^"]+)"', book.read("xl/workbook.xml").decode())
        parts = [
            ET.fromstring(book.read(f"xl/worksheets/sheet{number}.xml"))  # noqa: S314 - we wrote it
            for number in range(1, len(names) + 1)
        ]
    return {
        name: [[(cell.get("t", "n"), "".join(cell.itertext())) for cell in row] for row in part.iter(f"{SHEET}row")]
        for name, part in zip(names, parts, strict=True)
    }


def bill_days(invoice: Invoice, days: int, *, model: str = "gpt-4o") -> None:
    """Usage of so many days, in the rollups and on the invoice, which must be a draft."""
    key = make_key(invoice.account)
    sums = {"calls": 1, "prompt_tokens": 2, "completion_tokens": 3, "digest_0": 5}
    for day in range(days):
        DailyUsage.objects.create(
            account=invoice.account,
            api_key=key,
            local_day=OCTOBER.replace(day=day + 1),
            provider="openai",
            model=model,
            **sums,
        )
    BilledUsage.objects.create(
        invoice=invoice,
        period_start=OCTOBER,
        provider="openai",
        model=model,
        **{name: days * each for name, each in sums.items()},
    )


def test_csv_is_as_rfc_4180_has_it(tmp_path: Path) -> None:
    issued(make_profile(legal_name='Ac,me "Ltd"\nBüro'))
    content = (export(tmp_path / "out", "csv") / "invoices.csv").read_bytes()
    assert content.count(b"\r\n") == 2
    assert content.endswith(b"\r\n")
    assert ',"Ac,me ""Ltd""\nBüro",'.encode() in content


def test_names_that_look_like_formulas_are_harmless_in_every_format_but_jsonl(tmp_path: Path) -> None:
    profile = make_profile(legal_name="=HYPERLINK(1)", po_number="-7", tax_id="@x")
    line = {"amount": "-10.00", "description": "+evil", "model": "=m", "provider": "p"}
    issued(profile, lines=(line, {"amount": "10.00"}))
    folder = export(tmp_path / "out", "csv", "xlsx", "jsonl", "focus", "xero")
    [head] = rows_of(folder / "invoices.csv")
    assert (head["legal_name"], head["po_number"], head["tax_id"]) == ("'=HYPERLINK(1)", "'-7", "'@x")
    assert (head["subtotal"], head["total"]) == ("0.00", "0.00")
    [line, _] = rows_of(folder / "lines.csv")
    assert (line["description"], line["model"], line["exact_amount"]) == ("'+evil", "'=m", "-10")
    [row, _] = rows_of(folder / "focus-1.2.csv")
    assert (row["ChargeDescription"], row["BilledCost"], row["ResourceName"]) == ("'+evil", "-10", "'=m")
    [row, _] = rows_of(folder / "xero-invoices.csv")
    assert (row["*ContactName"], row["*UnitAmount"], row["Reference"]) == ("'=HYPERLINK(1)", "-10.00", "'-7")
    record = json.loads((folder / "invoices.jsonl").read_bytes())
    assert (record["legal_name"], record["total"]) == ("=HYPERLINK(1)", "0.00")
    texts = {text for rows in sheets_of(folder / "export.xlsx").values() for row in rows for _, text in row}
    assert {"'=HYPERLINK(1)", "'-7", "'@x", "'+evil", "'=m"} <= texts
    with zipfile.ZipFile(folder / "export.xlsx") as book:
        assert not [name for name in book.namelist() if b"<f>" in book.read(name)]


def test_a_workbook_has_numbers_where_excel_keeps_them_and_text_elsewhere(tmp_path: Path) -> None:
    exact = "0.004995000000000000000001"
    line = {
        "amount": "9.95",
        "exact_amount": Decimal(exact) + Decimal("9.95"),
        "residual": Decimal(exact),
        "quantity": 1234567890123456,
    }
    issued(make_profile(legal_name="<r>x</r>"), lines=(line,), tax_percent="19")
    sheets = sheets_of(export(tmp_path / "out", "xlsx") / "export.xlsx")
    assert list(sheets) == ["Invoices", "Lines", "Usage"]
    head = dict(zip((text for _, text in sheets["Invoices"][0]), sheets["Invoices"][1], strict=False))
    assert len(sheets["Usage"]) == 1
    values = sheets["Invoices"][1]
    assert ("n", "9.95") in values
    assert ("n", "11.84") in values
    assert ("inlineStr", "'<r>x</r>") in values
    assert ("inlineStr", exact) in values
    assert head["invoice_id"][0] == "n"
    assert ("inlineStr", "9.954995000000000000000001") in sheets["Lines"][1]
    assert ("inlineStr", "1234567890123456") in sheets["Lines"][1]


def test_a_full_sheet_goes_on_in_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx_file, "MAX_ROWS", 3)
    draft = make_invoice()
    bill_days(draft, 5)
    sheets = sheets_of(export(tmp_path / "out", "xlsx", includes_drafts=True) / "export.xlsx")
    assert [(name, len(rows)) for name, rows in sheets.items()] == [
        ("Invoices", 2),
        ("Lines", 2),
        ("Usage", 3),
        ("Usage 2", 3),
        ("Usage 3", 2),
    ]
    assert sheets["Usage"][0] == sheets["Usage 3"][0]


def test_focus_rows_add_up_to_the_invoice_with_rounding_and_tax_apart(tmp_path: Path) -> None:
    usage = {
        "amount": "2.50",
        "exact_amount": Decimal("2.5005075"),
        "residual": Decimal("0.0005075"),
        "quantity": 1000203,
        "unit_price": Decimal("2.5"),
        "provider": "openai",
        "model": "gpt-4o",
        "meter": "input",
        "key": "usage|input|cost:1|openai|gpt-4o",
    }
    discount = {"amount": "-0.25", "exact_amount": Decimal("-0.25"), "kind": LineKind.DISCOUNT, "description": "10 %"}
    fee = {"amount": "5.00", "kind": LineKind.FLAT_FEE, "description": "Monthly fee"}
    late = {**usage, "amount": "-1.00", "exact_amount": Decimal(-1), "residual": Decimal(0), "quantity": -400000}
    lines = (usage, discount, fee, {**late, "period_start": date(2026, 9, 1)})
    invoice = issued(make_profile(), lines=lines, tax_percent="20")
    rows = rows_of(export(tmp_path / "out", "focus") / "focus-1.2.csv")
    told = [(row["ChargeCategory"], row["ChargeClass"], row["ChargeFrequency"], row["BilledCost"]) for row in rows]
    assert told == [
        ("Usage", "", "Usage-Based", "2.5005075"),
        ("Credit", "", "One-Time", "-0.25"),
        ("Purchase", "", "Recurring", "5"),
        ("Usage", "Correction", "Usage-Based", "-1"),
        ("Adjustment", "", "One-Time", "-0.0005075"),
        ("Tax", "", "One-Time", "1.45"),
        ("Tax", "Correction", "One-Time", "-0.2"),
    ]
    assert sum(Decimal(row["BilledCost"]) for row in rows) == invoice.total == Decimal("7.50")
    first, fee_row, late_row = rows[0], rows[2], rows[3]
    names = ("PricingQuantity", "PricingUnit", "ContractedUnitPrice", "ListCost", "ConsumedQuantity", "ConsumedUnit")
    assert [first[name] for name in names] == ["1.000203", "1000000 Tokens", "2.5", "2.5005075", "1000203", "Tokens"]
    assert [fee_row[name] for name in names] == ["1", "Units", "5", "5", "", ""]
    assert [late_row[name] for name in names] == ["-0.4", "1000000 Tokens", "2.5", "-1", "-400000", "Tokens"]
    assert (first["ChargePeriodStart"], first["ChargePeriodEnd"]) == ("2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z")
    assert (late_row["ChargePeriodStart"], late_row["BillingPeriodStart"]) == (
        "2026-09-01T00:00:00Z",
        "2026-10-01T00:00:00Z",
    )
    assert {row["InvoiceId"] for row in rows} == {invoice.label}
    assert (first["PublisherName"], first["ProviderName"], first["SkuMeter"]) == ("openai", "Gateway GmbH", "input")


def test_focus_has_the_columns_of_its_version() -> None:
    standard = [name for name in focus.COLUMNS if not name.startswith("x_")]
    assert (len(standard), standard) == (57, sorted(standard))


def test_xero_gets_one_piece_a_line_and_credit_notes_in_a_file_of_their_own(tmp_path: Path) -> None:
    profile = make_profile(address="1 Street\nFloor 2\nWing C\nDoor 4\nLisbon", country="PT", email="pay@acme.example")
    invoice = issued(profile, lines=({"amount": "2.50"}, {"amount": "-0.25"}), tax_percent="19.6")
    note = {"kind": InvoiceKind.CREDIT_NOTE, "original": invoice, "credit_sequence": 1}
    issued(profile, lines=({"amount": "-2.25"},), number=1, **note)
    folder = export(tmp_path / "out", "xero")
    rows = rows_of(folder / "xero-invoices.csv")
    assert [(row["*Quantity"], row["*UnitAmount"], row["*TaxType"]) for row in rows] == [
        ("1", "2.50", "19.6%"),
        ("1", "-0.25", "19.6%"),
    ]
    assert (rows[0]["*InvoiceNumber"], rows[0]["*InvoiceDate"], rows[0]["*DueDate"]) == (
        "INV-2026-000017",
        "03/11/2026",
        "03/12/2026",
    )
    assert [rows[0][f"POAddressLine{number}"] for number in range(1, 5)] == [
        "1 Street",
        "Floor 2",
        "Wing C",
        "Door 4, Lisbon",
    ]
    [credit] = rows_of(folder / "xero-credit-notes.csv")
    assert (credit["*CreditNoteNumber"], credit["*UnitAmount"], credit["Reference"], credit["*TaxType"]) == (
        "CN-2026-000001",
        "2.25",
        "INV-2026-000017",
        "Tax Exempt",
    )


def test_xero_is_told_the_tax_of_each_line_and_lines_add_up_to_the_total(tmp_path: Path) -> None:
    """Each of the three lines alone has 0.01 of tax, all of them 0.02; late usage has the rate of its own month."""
    profile = make_profile()
    lines = ({"amount": "0.03"}, {"amount": "0.03"}, {"amount": "0.04"})
    late = {"amount": "1.00", "period_start": date(2026, 9, 1), "tax_percent": Decimal(7)}
    invoice = issued(
        profile,
        lines=(*lines, late),
        tax_percent="19",
        taxes=[{"percent": "19", "net": "0.1", "tax": "0.02"}, {"percent": "7", "net": "1", "tax": "0.07"}],
    )
    note = {"kind": InvoiceKind.CREDIT_NOTE, "original": invoice, "credit_sequence": 1}
    credited = tuple({**line, "amount": f"-{line['amount']}"} for line in lines)
    issued(profile, lines=credited, number=1, tax_percent="19", **note)
    folder = export(tmp_path / "out", "xero")
    rows = rows_of(folder / "xero-invoices.csv")
    assert [(row["*UnitAmount"], row["*TaxType"], row["TaxAmount"]) for row in rows] == [
        ("0.03", "19%", "0.01"),
        ("0.03", "19%", "0.00"),
        ("0.04", "19%", "0.01"),
        ("1.00", "7%", "0.07"),
    ]
    assert sum(Decimal(row["*UnitAmount"]) + Decimal(row["TaxAmount"]) for row in rows) == Decimal(rows[0]["Total"])
    rows = rows_of(folder / "xero-credit-notes.csv")
    assert [row["TaxAmount"] for row in rows] == ["0.01", "0.00", "0.01"]
    assert sum(Decimal(row["*UnitAmount"]) + Decimal(row["TaxAmount"]) for row in rows) == Decimal(rows[0]["Total"])


def test_xero_gets_no_more_documents_a_file_than_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xero, "MAX_DOCUMENTS", 2)
    for number in range(1, 6):
        issued(make_profile(make_account(f"Customer {number}")), number=number)
    folder = export(tmp_path / "out", "xero")
    counts = {path.name: len(rows_of(path)) for path in folder.glob("*.csv")}
    assert counts == {"xero-invoices.csv": 2, "xero-invoices-2.csv": 2, "xero-invoices-3.csv": 1}

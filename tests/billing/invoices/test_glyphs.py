"""What no font has is named on the draft, and a font that can't be used stops the start."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pytest_django import Settings

from billing.checks import check_fonts
from billing.enums import InvoiceState
from billing.fonts import character_name, missing_characters
from billing.invoices.glyphs import find_missing, missing_sentence
from billing.invoices.parties import BillTo
from billing.models import Invoice, InvoiceLine
from tests.billing.documents.synthetic_fonts import write_collection, write_font


def missing(
    *, lines: Iterable[str] = (), seller: dict[str, str] | None = None, source: str = "", **bill_to: str
) -> tuple[str, ...]:
    rows = [cast("InvoiceLine", SimpleNamespace(description=each)) for each in lines]
    rate = SimpleNamespace(source=source) if source else None
    invoice = SimpleNamespace(state=InvoiceState.APPROVED, seller=seller or {"name": "x"}, exchange_rate=rate)
    return find_missing(cast("Invoice", invoice), rows, BillTo(**cast("dict[str, Any]", bill_to)))


@pytest.mark.parametrize("field", ["legal_name", "address", "tax_id", "tax_note", "po_number"])
def test_every_text_of_the_customer_is_looked_at(field: str) -> None:
    assert missing(**cast("Any", {field: "Acme 株 Łódź שלום نور"})) == ("株",)


@pytest.mark.parametrize("field", ["name", "address", "tax_id", "email", "payment"])
def test_every_text_of_the_seller_is_looked_at(field: str) -> None:
    assert missing(seller={field: "株"}) == ("株",)


def test_lines_and_the_source_of_the_rate_are_looked_at() -> None:
    assert missing(lines=["model, input tokens", "模 tokens"], source="株 Bank") == ("模", "株")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Łódź Ю́рий नहीं", ("न", "ह", "ी", "ं")),
        ("\U0001f468\u200d\U0001f469\ufe0f", ("\U0001f468", "\U0001f469")),
        ("می‌خواهم שָׁלוֹם \u202e\u2066", ()),
        ("a\u3000b\n\tc\u0007", ("\u0007",)),
        ("株\U000e0100株", ("株",)),
        ("\u0378", ("\u0378",)),
    ],
)
def test_each_missing_character_is_named_once(text: str, named: tuple[str, ...]) -> None:
    assert missing_characters([text]) == named


def test_a_configured_font_is_enough(settings: Settings, tmp_path: Path) -> None:
    settings.BILLING_FONTS = [str(write_font(tmp_path / "a.ttf", "株"))]
    assert missing_characters(["株式"]) == ("式",)


def test_the_sentence_names_ten_and_shows_nothing_that_harms() -> None:
    assert [character_name(char) for char in "株\u0007\u20dd\u202e"] == ["株 (U+682A)", "U+0007", "U+20DD", "U+202E"]
    assert missing_sentence(()) == ""
    assert missing_sentence(("株",)) == (
        "No font has 株 (U+682A): the PDF shows □ instead. Add a font to BILLING_FONTS, or change the text."
    )
    assert " and 2 more: " in missing_sentence(tuple("株式会社東京都千代田区"[:12].ljust(12, "模")))


def test_a_wrong_font_stops_the_start_and_says_why(settings: Settings, tmp_path: Path) -> None:
    text, broken = tmp_path / "a.txt", tmp_path / "broken.ttf"
    text.write_text("no font")
    broken.write_text("no font")
    collection = write_collection(tmp_path / "c.ttc", "株", "式")
    good = [str(write_font(tmp_path / "good.ttf", "株")), f"{collection}:1"]
    settings.BILLING_FONTS = [*good, str(tmp_path / "none.ttf"), str(text), str(broken), f"{collection}:2"]

    assert [(each.id, each.msg) for each in check_fonts(None)] == [
        (
            "billing.E001",
            f"BILLING_FONTS names {tmp_path / 'none.ttf'}, which is not a file; install the font or correct the path.",
        ),
        ("billing.E001", f"BILLING_FONTS names {text}, which must be a font file: .ttf, .otf, .ttc, .otc."),
        (
            "billing.E001",
            f"BILLING_FONTS names {broken}, which is not a TrueType or OpenType font with outlines; choose another.",
        ),
        (
            "billing.E001",
            f"BILLING_FONTS names {collection}, which has no face 2; there are 2, numbered from 0.",
        ),
    ]
    settings.BILLING_FONTS = good
    assert check_fonts(None) == []

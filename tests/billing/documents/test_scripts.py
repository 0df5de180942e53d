"""PDFs with texts that are shaped, or that fonts of BILLING_FONTS stand in for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_django import Settings

from billing.documents import invoice_context, render_pdf
from billing.documents.pdf import write_pdf
from billing.enums import InvoiceState
from billing.models import BillingProfile, Invoice
from tests.billing.documents.pdf_reading import Text, lines_of, read_pages
from tests.billing.documents.synthetic_fonts import write_collection, write_font
from tests.billing.factories import make_invoice

pytestmark = pytest.mark.slow

POINTS_PER_MM = 72 / 25.4
BILL_TO_X, RIGHT = 108 * POINTS_PER_MM, 192 * POINTS_PER_MM


def bill_to(profile: BillingProfile, name: str, address: str = "") -> list[Text]:
    """What stands in the column of the one who pays, down to the tax ID."""
    profile.legal_name, profile.address = name, address
    profile.save()
    invoice = Invoice.objects.filter(account=profile.account).first() or make_invoice(profile)
    invoice.account.refresh_from_db()
    (page,) = read_pages(render_pdf(invoice))
    assert all(piece.has_glyphs for piece in page if piece.text)
    top = next(piece.y for piece in page if piece.text == "Bill to")
    end = next(piece.y for piece in page if piece.text.startswith("Tax ID FR"))
    return [piece for piece in page if BILL_TO_X - 0.01 <= piece.x < RIGHT and end < piece.y < top]


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("חברת אור 77", "77 רוא תרבח"),
        ("Acme אור 3, Ltd", "Acme 3 רוא, Ltd"),
        # The letters are joined: each has the form of its place in the word.
        ("نور 12", "12 رون"),
    ],
)
def test_words_from_right_to_left_and_numbers_in_their_order(profile: BillingProfile, name: str, seen: str) -> None:
    pieces = bill_to(profile, name)

    assert lines_of(pieces)[0] == seen
    assert min(piece.x for piece in pieces) == pytest.approx(BILL_TO_X, abs=0.01)


def test_arabic_letters_are_joined(profile: BillingProfile) -> None:
    joined = bill_to(profile, "ببب")
    apart = bill_to(profile, "ب ب ب")

    widths = [max(piece.x for piece in pieces) - BILL_TO_X for pieces in (joined, apart)]
    # Two spaces of 0.348 of the size, and 4 points since the first and the middle form are narrower than that alone.
    assert widths[0] < widths[1] - 2 * 9 * 0.348 - 4


def test_amounts_beside_shaped_descriptions_stay_in_their_columns(profile: BillingProfile) -> None:
    invoice = make_invoice(profile, lines=({"amount": "1.25"}, {"amount": "22.25"}))
    document = invoice_context(invoice)
    (section,) = document.sections

    def amounts(description: str) -> set[tuple[str, float]]:
        lines = tuple(replace(line, description=description) for line in section.lines)
        (page,) = read_pages(write_pdf(replace(document, sections=(replace(section, lines=lines),))))
        return {(piece.text, piece.x) for piece in page if piece.text in {"1.25", "22.25", "23.25 EUR"}}

    assert amounts("مودل 2, input tokens") == amounts("model 2, input tokens")


def test_long_names_wrap_within_their_column(profile: BillingProfile) -> None:
    pieces = bill_to(profile, "شركة النور للتقنية 12 " * 9, "רחוב הרצל ארוך 3 " * 10)

    assert len({round(piece.y, 1) for piece in pieces if piece.text.strip()}) >= 6
    assert max(piece.x for piece in pieces) < RIGHT


def test_a_configured_font_stands_in_for_what_is_missing(
    profile: BillingProfile, settings: Settings, tmp_path: Path
) -> None:
    first, second = write_font(tmp_path / "a.ttf", "株式"), write_collection(tmp_path / "b.ttc", "x", "式会社")
    settings.BILLING_FONTS = [str(first), f"{second}:1"]

    pieces = bill_to(profile, "株式会社 Acme 12\U0001fae8")

    assert lines_of(pieces)[0] == "株式会社 Acme 12□"


def test_bold_text_takes_a_bold_font_where_there_is_one(
    profile: BillingProfile, settings: Settings, tmp_path: Path
) -> None:
    fonts = [write_font(tmp_path / "r.ttf", "株式"), write_font(tmp_path / "b.ttf", "株", weight=700)]
    settings.BILLING_FONTS = list(map(str, fonts))
    profile.legal_name = profile.address = "株式"
    profile.save()

    pdf = render_pdf(make_invoice(profile))

    (page,) = read_pages(pdf)
    # Two fonts for the name, one for the address.
    drawn = [piece.text for piece in page if piece.text and piece.text in "株式"]
    assert "".join(drawn) == "株式株式"
    assert len(re.findall(rb"/Type0", pdf)) == 4


@pytest.mark.parametrize("name", ["Acme S.A. Łódź", "שלום"])
def test_a_font_that_a_document_does_not_need_changes_no_byte(
    profile: BillingProfile, settings: Settings, tmp_path: Path, name: str
) -> None:
    profile.legal_name = name
    profile.save()
    invoice = make_invoice(profile, state=InvoiceState.ISSUED)
    before = render_pdf(invoice)

    settings.BILLING_FONTS = [str(write_font(tmp_path / "a.ttf", "株A"))]

    assert render_pdf(invoice) == before


def test_a_document_with_a_configured_font_is_the_same_bytes_each_time(
    profile: BillingProfile, settings: Settings, tmp_path: Path
) -> None:
    settings.BILLING_FONTS = [str(write_font(tmp_path / "a.ttf", "株式会社"))]
    profile.legal_name = "株式会社 שלום 12"
    profile.save()
    invoice = make_invoice(profile, state=InvoiceState.ISSUED)

    assert render_pdf(invoice) == render_pdf(invoice)


@pytest.mark.parametrize(
    "text",
    [
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "e\u20dd\u0301",
        "\u0301\u0301",
        "ش\u0301\u0654\u20e3",
        "\u0378\U0010ffff",
        "\u202e12 ש\u2066",
        "{nb} ש {nb}",
        "**ש**",
        "\u200fא",
        "ﷺ",
        "ש\u0007",
        "\ue000 ש",
    ],
)
def test_no_text_is_a_crash(profile: BillingProfile, text: str) -> None:
    profile.legal_name = profile.address = profile.po_number = profile.tax_note = text
    profile.save()
    lines = ({"amount": "1.00", "description": text},)

    (page,) = read_pages(render_pdf(make_invoice(profile, lines=lines)))

    assert "1.00" in [piece.text for piece in page]

"""Of the PDF, read back from its bytes."""

# ruff: noqa: RUF001

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from itertools import pairwise

import pytest
import time_machine
from fpdf.fonts import TTFFont

from billing.documents import invoice_context, render_pdf
from billing.documents.pdf import PdfWriter
from billing.enums import InvoiceKind, InvoiceState
from billing.models import BillingProfile
from tests.billing.documents.pdf_reading import Text, read_pages, text_of
from tests.billing.factories import make_exchange_rate, make_invoice, make_profile

pytestmark = pytest.mark.slow

POINTS_PER_MM = 72 / 25.4
LEFT, RIGHT = 18 * POINTS_PER_MM, 192 * POINTS_PER_MM


def texts(page: list[Text]) -> list[str]:
    return [piece.text for piece in page]


def usage_lines(count: int, *, description: str = "model {}, input tokens") -> tuple[dict[str, object], ...]:
    return tuple(
        {
            "amount": f"{number}.25",
            "description": description.format(number),
            "quantity": number * 1_000_003,
            "unit_price": Decimal("0.25"),
        }
        for number in range(1, count + 1)
    )


def test_invoice_fits_a_small_page_and_can_be_read_back(profile: BillingProfile) -> None:
    rate = make_exchange_rate("EUR", "0.9213")
    invoice = make_invoice(
        profile,
        state=InvoiceState.ISSUED,
        lines=usage_lines(12),
        tax_percent="19",
        exchange_rate=rate,
        per_usd=rate.per_usd,
    )

    pdf = render_pdf(invoice)

    pages = read_pages(pdf)
    assert len(pages) == 1
    assert len(pdf) < 100_000
    for text in (
        *("Invoice", "INV-2026-000017", "3 November 2026", "3 December 2026", "1\u201331 October 2026 (Europe/Berlin)"),
        *("Northwind Inference GmbH", "Lagerstraße 12", "Tax ID DE 312 456 789", "Acme S.A.", "75016 Paris", "FR"),
        *(
            "96.39 EUR due 3 December 2026",
            "Per million (EUR)",
            "model 12, input tokens",
            "12,000,036",
            "0.25",
            "12.25",
        ),
        *("Subtotal", "81.00", "Tax 19%", "15.39", "Reverse charge", "Total", "96.39 EUR"),
        *("Due 3 December 2026, 30 days after issue.", "BIC BYLADEM1001", "1 USD = 0.9213 EUR"),
        *("2026-11-01 06:00:12.345678 UTC", invoice.content_digest, "Page 1 of 1"),
    ):
        assert text in texts(pages[0])


def test_file_says_what_it_is(profile: BillingProfile) -> None:
    pdf = render_pdf(make_invoice(profile, state=InvoiceState.ISSUED))

    assert pdf.startswith(b"%PDF-1.")
    assert b"/Title (Invoice INV-2026-000017)" in pdf
    assert b"/Author (Northwind Inference GmbH)" in pdf
    assert b"/Lang (en)" in pdf
    assert b"/CreationDate (D:20261103093000Z)" in pdf
    assert re.findall(rb"/MediaBox \[(.*?)\]", pdf) == [b"0 0 595.28 841.89"]


def test_same_invoice_gives_the_same_bytes_whenever_it_is_drawn(profile: BillingProfile) -> None:
    invoice = make_invoice(profile, state=InvoiceState.ISSUED, lines=usage_lines(60))
    with time_machine.travel("2026-11-03 10:00:00+00:00"):
        first = render_pdf(invoice)
    invoice.state, invoice.paid_on = InvoiceState.PAID, date(2026, 12, 1)
    invoice.save()
    invoice.refresh_from_db()
    with time_machine.travel("2031-01-01 00:00:00+00:00"):
        second = render_pdf(invoice)

    assert first == second


@pytest.mark.parametrize(
    "name",
    [
        "Łódź Żółw Þórður Őrült İstanbul",
        "Ñandú Đặng Văn Nguyễn Ȟáče Ĳ ŉ ﬁ",
        "Αφοί Παπαδόπουλοι Ο.Ε., Ἀθῆναι",
        "ООО «Щит і Меч», Ґанок",
        "Ђорђевић, Қазақ, Өнер, Ѣ",
        # No composed letter exists for these.
        "Ẹ̀gbá Ọ̀ṣun Ю́рий M̄ẍ́ Q̄",
    ],
)
def test_latin_greek_and_cyrillic_names_are_drawn_whole(profile: BillingProfile, name: str) -> None:
    profile.legal_name = name
    profile.save()

    (page,) = read_pages(render_pdf(make_invoice(profile)))

    assert name in "".join(texts(page))
    assert all(piece.has_glyphs for piece in page)
    assert "□" not in "".join(texts(page))


def test_accent_is_raised_above_a_capital(profile: BillingProfile) -> None:
    profile.address = "Ẹ̀gbá\nẹ̀gbá"
    profile.save()

    (page,) = read_pages(render_pdf(make_invoice(profile)))

    (capital, small) = [(letter, mark) for letter, mark in pairwise(page) if mark.text == "\u0300"]
    assert capital[1].y - capital[0].y > 1.5
    # Its letter is a little higher than an x.
    assert small[1].y - small[0].y < 0.2


def test_what_no_font_has_is_replaced_visibly_and_the_page_says_so(profile: BillingProfile) -> None:
    profile.legal_name = "株式会社 Acme \U0001fae8\u0378"
    profile.save()

    (page,) = read_pages(render_pdf(make_invoice(profile)))

    assert "□□□□ Acme □□" in texts(page)
    assert "□ stands for a character that the font of this document does not have." in texts(page)
    assert all(piece.has_glyphs for piece in page)


def test_control_and_direction_characters_neither_crash_nor_reorder(profile: BillingProfile) -> None:
    lines = ({"amount": "1.00", "description": "a\u202eb\u0007c\u200bd\\(e)"},)

    (page,) = read_pages(render_pdf(make_invoice(profile, lines=lines)))

    assert "ab□cd\\(e)" in texts(page)


def test_six_hundred_lines_go_over_pages_that_each_have_a_head(profile: BillingProfile) -> None:
    pages = read_pages(render_pdf(make_invoice(profile, lines=usage_lines(600))))

    described = [text for page in pages for text in texts(page) if text.startswith("model ")]
    assert described == [f"model {number}, input tokens" for number in range(1, 601)]
    assert 12 <= len(pages) <= 16
    for number, page in enumerate(pages, start=1):
        on_page = texts(page)
        assert f"Page {number} of {len(pages)}" in on_page
        assert on_page.count("Description") == any(text.startswith("model ") for text in on_page)
        assert (number == 1) == ("Invoice October 2026 · Acme S.A." not in on_page)


def test_totals_and_payment_never_stand_alone(profile: BillingProfile) -> None:
    document = invoice_context(make_invoice(profile, lines=usage_lines(40)))
    (section,) = document.sections
    pages_of_counts = []
    for count in range(18, 34):
        lines = section.lines[:count]
        with PdfWriter(replace(document, sections=(replace(section, lines=lines),))) as writer:
            pages = writer.pages()
        last = {line for row in pages[-1] for cell in row.cells for line in cell.lines}
        assert {"Description", "Subtotal", "Total", "Payment", "Usage recorded by"} <= last
        assert {line.description for line in lines[-2:]} <= last
        pages_of_counts.append(len(pages))

    assert pages_of_counts[0] == 1
    assert pages_of_counts[-1] == 2


def test_all_text_stays_on_its_page_and_lines_do_not_overlap(profile: BillingProfile) -> None:
    profile.legal_name = "Wide" * 50
    profile.address = "\n".join(
        f"{number} a rather long line of an address, which goes on and on" for number in range(90)
    )
    profile.po_number = "W" * 100
    profile.tax_note = "Reverse charge " * 13
    profile.save()
    invoice = make_invoice(profile, lines=usage_lines(40, description="{} " + "W" * 290))

    pages = read_pages(render_pdf(invoice))

    assert text_of(render_pdf(invoice)).count("Reverse") == 13
    for page in pages:
        body, foot = page[:-2], page[-2:]
        assert min(piece.x for piece in page) >= LEFT - 0.01
        assert max(piece.x for piece in page) < RIGHT
        assert min(piece.y for piece in body if piece.text != "DRAFT") > max(piece.y for piece in foot) + 8
        rows = sorted({(piece.x, piece.y) for piece in body if piece.text != "DRAFT"})
        assert all(one[1] + 5 < other[1] for one, other in pairwise(rows) if one[0] == other[0])


def test_amounts_end_at_the_right_margin(profile: BillingProfile) -> None:
    lines = ({"amount": "1.00"}, {"amount": "1234567890.00"}, {"amount": "-12.00"})

    (page,) = read_pages(render_pdf(make_invoice(profile, lines=lines)))

    widths = {piece.text: RIGHT - piece.x for piece in page if piece.text in {"1.00", "1,234,567,890.00", "-12.00"}}
    # In DejaVu a digit is 0.636 of the size, a comma or a point 0.318, a hyphen 0.361.
    assert widths == {
        "1.00": pytest.approx(9 * (3 * 0.636 + 0.318), abs=0.02),
        "1,234,567,890.00": pytest.approx(9 * (12 * 0.636 + 4 * 0.318), abs=0.02),
        "-12.00": pytest.approx(9 * (4 * 0.636 + 0.318 + 0.361), abs=0.02),
    }


@pytest.mark.parametrize("currency", ["JPY", "KWD"])
def test_largest_amounts_and_longest_prices_are_whole(db: None, currency: str) -> None:
    price = Decimal("12345678901234.000000000000000000000001")
    amount = {"JPY": "9" * 14, "KWD": f"{'9' * 14}.999"}[currency]
    lines = ({"amount": amount, "quantity": 2**63 - 1, "unit_price": price},)

    (page,) = read_pages(render_pdf(make_invoice(make_profile(currency=currency), lines=lines)))

    together = "".join(texts(page))
    assert "12,345,678,901,234.000000000000000000000001" in together
    assert "9,223,372,036,854,775,807" in together
    assert f"{Decimal(amount):,f} {currency}" in together


def test_credit_note_cites_and_is_negative(profile: BillingProfile) -> None:
    original = make_invoice(profile, state=InvoiceState.ISSUED)
    note = make_invoice(
        profile,
        state=InvoiceState.ISSUED,
        kind=InvoiceKind.CREDIT_NOTE,
        original=original,
        credit_sequence=1,
        number=3,
        lines=({"amount": "-10.00", "quantity": -4_000},),
    )

    (page,) = read_pages(render_pdf(note))

    for text in (
        *("Credit note", "CN-2026-000003", "Credits invoice INV-2026-000017 of 3 November 2026", "-4,000"),
        *("-10.00", "-10.00 EUR", "-10.00 EUR credited", "No payment is due on this document."),
    ):
        assert text in texts(page)
    assert "IBAN" not in "".join(texts(page))


@pytest.mark.parametrize(
    ("state", "mark"),
    [
        (InvoiceState.DRAFT, ["DRAFT"]),
        (InvoiceState.APPROVED, ["DRAFT"]),
        (InvoiceState.VOID, ["VOID"]),
        (InvoiceState.ISSUED, []),
    ],
)
def test_every_page_of_what_was_not_issued_is_marked_large(
    profile: BillingProfile, state: InvoiceState, mark: list[str]
) -> None:
    pages = read_pages(render_pdf(make_invoice(profile, state=state, lines=usage_lines(60))))

    assert len(pages) == 2
    for page in pages:
        assert [piece.text for piece in page if piece.size > 100] == mark


@pytest.fixture
def _rare_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_rare_collector")
def test_a_pdf_leaves_no_font_in_memory(profile: BillingProfile) -> None:
    invoice = make_invoice(profile)
    before = {id(font) for font in fonts_in_memory()}
    render_pdf(invoice)
    assert [font for font in fonts_in_memory() if id(font) not in before] == []


def fonts_in_memory() -> list[TTFFont]:
    """Those of other tests may be among them."""
    return [thing for thing in gc.get_objects() if type(thing) is TTFFont]

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from django.contrib.staticfiles import finders

from billing.documents import render_html
from billing.enums import InvoiceState
from billing.models import BillingProfile
from tests.billing.factories import make_exchange_rate, make_invoice

HOSTILE = '<script>alert("1")</script>'


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, set[str]] = {}
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")

    def handle_data(self, data: str) -> None:
        if text := " ".join(data.split()):
            self.texts.append(text)


def test_page_says_what_the_document_says(profile: BillingProfile) -> None:
    rate = make_exchange_rate("EUR", "0.9213")
    invoice = make_invoice(profile, state=InvoiceState.ISSUED, exchange_rate=rate, per_usd=rate.per_usd)

    page = _Page(render_html(invoice))

    for text in (
        *("Invoice INV-2026-000017", "Acme S.A.", "75016 Paris", "Tax ID FR 12 345678901", "Northwind Inference GmbH"),
        *("10.00 EUR due 3 December 2026", "gpt-test, input tokens", "Reverse charge", "10.00 EUR", "Tax 0%"),
        *("IBAN DE02 1203 0000 0000 2020 51", "1 USD = 0.9213 EUR", "2026-11-01 06:00:12.345678 UTC"),
        invoice.content_digest,
    ):
        assert text in page.texts
    assert page.attributes["lang"] == {"en"}
    assert "DRAFT" not in page.texts


def test_page_has_no_style_or_script_of_its_own(profile: BillingProfile) -> None:
    page = _Page(render_html(make_invoice(profile)))

    assert not {"style", "script"}.intersection(page.tags)
    assert not [name for name in page.attributes if name == "style" or name.startswith("on")]
    assert page.attributes["href"] == {"/static/billing/invoice.css", "/static/llm/favicon.svg"}
    assert finders.find("billing/invoice.css")


def test_hostile_names_are_text(profile: BillingProfile) -> None:
    for name in ("legal_name", "address", "tax_id", "tax_note", "po_number"):
        setattr(profile, name, HOSTILE)
    profile.save()

    page = _Page(render_html(make_invoice(profile, lines=({"amount": "1.00", "description": HOSTILE},))))

    assert "script" not in page.tags
    assert page.texts.count(HOSTILE) == 5
    assert f"Tax ID {HOSTILE}" in page.texts


@pytest.mark.parametrize(("state", "mark"), [(InvoiceState.DRAFT, "DRAFT"), (InvoiceState.VOID, "VOID")])
def test_page_of_what_was_not_issued_is_marked(profile: BillingProfile, state: InvoiceState, mark: str) -> None:
    page = _Page(render_html(make_invoice(profile, state=state)))

    assert page.attributes["data-mark"] == {mark}
    assert mark in page.texts
    assert f"{mark}: Invoice October 2026" in page.texts

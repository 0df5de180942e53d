"""Finance without a console, in a real browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from billing.enums import InvoiceState
from billing.jobs import books
from billing.models import BooksJob, Invoice, Payment
from tests.billing.admin.pages import make_draft, make_issued, page_url
from tests.billing.calls import make_call
from tests.billing.factories import make_account
from tests.browser.conftest import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]

SignIn = Callable[[str], Page]


@pytest.fixture
def page(sign_in: SignIn) -> Page:
    User.objects.create_superuser("root", password=PASSWORD)
    return sign_in("root")


def open_step(page: Page, invoice: Invoice, label: str) -> None:
    page.goto(page_url(invoice))
    page.locator(".object-tools").get_by_role("link", name=label).click()


def test_a_setup_fee_is_added_and_an_invoice_is_paid_in_parts(page: Page, complaints: list[str]) -> None:
    draft = make_draft()
    open_step(page, draft, "Add a line")
    page.get_by_label("Description").fill("Setup fee")
    page.get_by_label("Amount").fill("500")
    page.get_by_label("Reason").fill("contract of 1 October")
    page.get_by_role("button", name="Add a line").click()
    expect(page.get_by_role("heading", name="One-off lines")).to_be_visible()
    expect(page.get_by_text("contract of 1 October").first).to_be_visible()

    issued = make_issued("Globex", tokens=50_000_000, mails_invoices=True)
    open_step(page, issued, "Mark as paid")
    page.get_by_label("Amount").fill("40")
    page.get_by_label("Reference").fill("wire 4711")
    page.get_by_role("button", name="Mark as paid").click()
    expect(page.get_by_text("60.00 USD are outstanding")).to_be_visible()
    title, buttons = (page.locator(each).first.bounding_box() for each in ("h1", ".object-tools"))
    assert title
    assert buttons
    assert title["y"] + title["height"] <= buttons["y"]
    open_step(page, issued, "Mark as paid")
    page.get_by_role("button", name="Mark as paid").click()
    expect(page.get_by_text("was marked as paid")).to_be_visible()
    issued.refresh_from_db()
    assert (issued.state, Payment.objects.count()) == (InvoiceState.PAID, 2)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(page_url(issued))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto("/admin/billing/invoice/")
    assert complaints == []


def test_a_model_and_its_past_calls_are_priced_in_one_place(page: Page, complaints: list[str]) -> None:
    make_call(make_account(), model="new-model", prompt_tokens=1_000_000)
    page.goto("/admin/llm/price/unpriced/")
    page.get_by_role("link", name="Set a price").click()
    page.locator("#id_rate_input").fill("2")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Past calls without a price can have it too.")).to_be_visible()
    page.get_by_role("button", name="Preview").click()
    books.run_waiting()
    page.reload()
    expect(page.get_by_text("1 call, 1,000,000 tokens, would cost 2.00 USD instead of 0.00 USD.")).to_be_visible()
    page.get_by_role("button", name="Apply to these calls").click()
    books.run_waiting()
    page.reload()
    expect(page.get_by_text("cost 2.00 USD instead of 0.00 USD.")).to_be_visible()
    page.goto("/admin/billing/booksjob/")
    assert BooksJob.objects.count() == 2
    page.goto("/admin/billing/booksjob/import-prices/")
    page.goto("/admin/billing/booksjob/import-costs/")
    assert complaints == []

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest
from pytest_django import Settings

from billing.enums import InvoiceState
from billing.invoices.parties import BillTo, Seller, bill_to_facts, bill_to_of, seller_facts, seller_of
from billing.periods import BillingPeriod
from billing.timezones import set_time_zone
from tests.billing.factories import OCTOBER, make_account, make_invoice, make_profile

SELLER = {
    "name": "Northwind GmbH",
    "address": "Lagerstraße 12\n20357 Hamburg",
    "tax_id": "DE 312 456 789",
    "email": "billing@northwind.example",
    "payment": "IBAN DE02 1203 0000 0000 2020 51",
}

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _seller(settings: Settings) -> None:
    settings.BILLING_SELLER = SELLER


def test_facts_are_json_of_all_that_a_document_says() -> None:
    profile = make_profile(legal_name="Acme Ltd", address="1 Road\nLondon", country="GB", tax_id="GB 1", po_number="7")

    assert json.loads(json.dumps(seller_facts())) == SELLER
    assert json.loads(json.dumps(bill_to_facts(profile))) == {
        "legal_name": "Acme Ltd",
        "address": "1 Road\nLondon",
        "country": "GB",
        "email": "",
        "tax_id": "GB 1",
        "tax_note": "",
        "po_number": "7",
        "payment_days": 30,
        "time_zone": "UTC",
    }


def test_draft_follows_the_profile_and_the_settings(settings: Settings) -> None:
    profile = make_profile(legal_name="Acme Ltd")
    invoice = make_invoice(profile)
    profile.legal_name = "Acme Holding Ltd"
    profile.save()
    settings.BILLING_SELLER = {**SELLER, "name": "Northwind SE"}
    invoice.refresh_from_db()

    assert bill_to_of(invoice).legal_name == "Acme Holding Ltd"
    assert seller_of(invoice).name == "Northwind SE"


@pytest.mark.parametrize("state", [InvoiceState.IN_REVIEW, InvoiceState.ISSUED, InvoiceState.VOID])
def test_what_was_frozen_stays(state: InvoiceState, settings: Settings) -> None:
    profile = make_profile(legal_name="Acme Ltd")
    invoice = make_invoice(profile, state=state)
    profile.legal_name = "Acme Holding Ltd"
    profile.save()
    settings.BILLING_SELLER = {**SELLER, "name": "Northwind SE"}
    invoice.refresh_from_db()

    assert bill_to_of(invoice).legal_name == "Acme Ltd"
    assert seller_of(invoice) == Seller(**SELLER)


def test_draft_that_was_sent_back_follows_the_profile_again() -> None:
    profile = make_profile(legal_name="Acme Ltd")
    invoice = make_invoice(profile, bill_to={"legal_name": "Former name"}, seller={"name": "Former seller"})

    assert bill_to_of(invoice).legal_name == "Acme Ltd"
    assert seller_of(invoice).name == "Northwind GmbH"


def test_what_was_frozen_before_a_fact_was_added_can_still_be_read() -> None:
    invoice = make_invoice(state=InvoiceState.VOID)
    invoice.bill_to = {"legal_name": "Acme"}

    assert bill_to_of(invoice) == BillTo(legal_name="Acme")


def test_time_zone_to_come_does_not_count_for_a_period_before_it() -> None:
    profile = make_profile(make_account("Kiribati", time_zone="Pacific/Kiritimati"))
    profile = set_time_zone(profile.pk, "Europe/Berlin", now=datetime(2026, 10, 15, tzinfo=UTC))

    assert bill_to_facts(profile, period=BillingPeriod(OCTOBER))["time_zone"] == "Pacific/Kiritimati"
    assert bill_to_facts(profile, period=BillingPeriod(date(2026, 11, 1)))["time_zone"] == "Europe/Berlin"

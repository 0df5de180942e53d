"""What the documents' tests share: a seller and a customer that have everything."""

from __future__ import annotations

from datetime import date

import pytest
from pytest_django import Settings

from billing.models import BillingProfile, Plan, PlanVersion
from tests.billing.factories import make_account, make_profile


@pytest.fixture(autouse=True)
def _seller(settings: Settings) -> None:
    settings.BILLING_SELLER = {
        "name": "Northwind Inference GmbH",
        "address": "Lagerstraße 12\n20357 Hamburg",
        "tax_id": "DE 312 456 789",
        "email": "billing@northwind.example",
        "payment": "IBAN DE02 1203 0000 0000 2020 51\nBIC BYLADEM1001",
    }


@pytest.fixture
def profile(db: None) -> BillingProfile:
    """Billed in EUR, by days of Berlin."""
    plan = Plan.objects.create(name="Standard")
    PlanVersion.objects.create(plan=plan, effective_from=date(2026, 1, 1), currency="EUR")
    return make_profile(
        make_account("Acme", time_zone="Europe/Berlin"),
        legal_name="Acme S.A.",
        address="48, avenue Foch\n75016 Paris",
        country="FR",
        tax_id="FR 12 345678901",
        tax_note="Reverse charge",
        po_number="PO-4711",
        currency="EUR",
        plan=plan,
    )

"""What a month would cost under another plan, before anybody has it."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from billing.models import Invoice, Plan, PlanVersion
from billing.plans import add_version
from tests.billing.admin.pages import make_draft, sign_in, text_of

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


def version(currency: str = "USD") -> PlanVersion:
    plan = Plan.objects.create(name="Growth")
    start = date(2027, 1, 1)
    return add_version(plan, effective_from=start, currency=currency, markup_percent=Decimal(50), flat_fee=Decimal(10))


def url_of(found: PlanVersion) -> str:
    return f"/admin/billing/planversion/{found.pk}/estimate/"


def test_a_month_is_calculated_beside_its_invoice() -> None:
    make_draft(tokens=50_000_000)
    client = sign_in("paula", "view_planversion", "view_invoice")
    found = version()
    assert "Try on a month" in text_of(client.get(f"/admin/billing/planversion/{found.pk}/change/"))

    page = text_of(client.get(url_of(found), {"account": "acme", "month": "2026-10"}))

    for said in ("160.00", "100.00", "Monthly fee", "50,000,000"):
        assert said in page
    assert Invoice.objects.count() == 1
    empty = text_of(client.get(url_of(found), {"account": "acme", "month": "2026-08"}))
    assert ">none<" in empty
    assert "10.00" in empty


def test_what_cant_be_calculated_says_why() -> None:
    make_draft()
    client = sign_in("paula", "view_planversion", "view_invoice")
    found = version("EUR")

    assert "EUR" in text_of(client.get(url_of(found), {"account": "acme", "month": "2026-10"}))
    assert "No account has this name" in text_of(client.get(url_of(found), {"account": "x", "month": "2026-10"}))
    assert "is not a month" in text_of(client.get(url_of(found), {"account": "acme", "month": "2026-13"}))
    assert client.get("/admin/billing/planversion/99999/estimate/").status_code == 404
    assert sign_in("vera", "view_invoice").get(url_of(found)).status_code == 403

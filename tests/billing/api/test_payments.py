"""Payments over the management API."""

from __future__ import annotations

from typing import Any

import pytest

from billing.enums import TokenScope
from billing.models import Invoice, Payment
from tests.billing.admin.pages import make_issued
from tests.billing.api.asking import Asker, customer, make_staff, staff_asker, token_of

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


@pytest.fixture
def invoice() -> Invoice:
    """2.00."""
    return make_issued()


def path_of(invoice: Invoice, payment: int | None = None) -> str:
    path = f"invoices/{invoice.pk}/payments/"
    return path if payment is None else f"{path}{payment}/reversal/"


def day_of(invoice: Invoice) -> str:
    return str(invoice.issued_on)


def test_a_payment_is_recorded_and_undone(invoice: Invoice) -> None:
    staff = staff_asker("view_invoice", "issue_invoice")
    part = staff.post(path_of(invoice), {"paid_on": day_of(invoice), "amount": "0.50", "reference": "4711"})
    assert part.status_code == 201, part.content
    assert (part.json()["state"], part.json()["outstanding"], part.json()["is_overdue"]) == ("issued", "1.50", False)
    whole = staff.post(path_of(invoice), {"paid_on": day_of(invoice)}).json()
    assert (whole["state"], whole["outstanding"]) == ("paid", "0.00")
    first, last = staff.get(path_of(invoice)).json()
    assert (first["amount"], first["reference"], first["recorded_by"]) == ("0.50", "4711", "finance")
    undone = staff.post(path_of(invoice, last["id"]), {"reason": "bounced"})
    assert (undone.status_code, undone.json()["outstanding"]) == (200, "1.50")
    assert undone.json()["payments"][-1]["reverses"] == last["id"]
    assert staff.post(path_of(invoice, last["id"]), {"reason": "bounced"}).status_code == 400
    [listed] = staff.results("invoices/")
    assert listed["outstanding"] == "1.50"


def test_customers_see_their_payments_and_record_none(invoice: Invoice) -> None:
    staff = staff_asker("issue_invoice")
    staff.post(path_of(invoice), {"paid_on": day_of(invoice), "amount": "0.50", "reason": "by cheque"})
    _, owner = customer(invoice.account)
    [payment] = owner.get(path_of(invoice)).json()
    assert set(payment) == {"id", "amount", "paid_on", "reference", "reverses"}
    assert owner.get(f"invoices/{invoice.pk}/").json()["outstanding"] == "1.50"
    assert owner.post(path_of(invoice), {"paid_on": day_of(invoice)}).status_code == 403
    scoped = Asker(token_of(make_staff("issue_invoice", name="narrow"), TokenScope.READ))
    assert scoped.post(path_of(invoice), {"paid_on": day_of(invoice)}).status_code == 403
    assert Payment.objects.count() == 1


@pytest.mark.parametrize(
    "asked",
    [{}, {"paid_on": "2020-01-01"}, {"amount": "2.01"}, {"amount": "-1"}, {"amount": 1e300}, {"reference": "x" * 101}],
)
def test_what_cant_have_been_paid_is_refused(invoice: Invoice, asked: dict[str, Any]) -> None:
    staff = staff_asker("issue_invoice")
    given = {"paid_on": day_of(invoice), **asked} if asked else {}
    assert staff.post(path_of(invoice), given).status_code == 400
    assert not Payment.objects.exists()

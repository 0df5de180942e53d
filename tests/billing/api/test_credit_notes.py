"""Credit notes over the management API: staff draft them, customers see those that were issued."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from billing.enums import CreditKind, InvoiceState
from billing.invoices.crediting import credit
from billing.models import Invoice, InvoiceEvent
from tests.billing.api.asking import Asker, customer, staff_asker
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.months import IN_SEPTEMBER, SEPTEMBER, approver, close_and_issue, through_review

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


@pytest.fixture
def staff() -> Asker:
    return staff_asker("view_invoice", "credit_invoice")


@pytest.fixture
def invoice() -> Invoice:
    """2.00 of input and 8.00 of output at 19 %."""
    account = make_account()
    make_profile(account, tax_percent=Decimal(19))
    make_call(account, day=IN_SEPTEMBER, price=make_price(), prompt_tokens=1_000_000, completion_tokens=1_000_000)
    [issued] = close_and_issue(account, SEPTEMBER)
    return issued


@pytest.mark.parametrize(
    ("asked", "kind", "total"),
    [
        ({"kind": "goodwill", "lines": None}, CreditKind.GOODWILL, "-11.90"),
        ({"kind": "goodwill", "lines": [{"position": 2, "amount": "1.50"}]}, CreditKind.GOODWILL, "-1.79"),
        ({"kind": "correction"}, CreditKind.CORRECTION, "-11.90"),
        ({"kind": "correction", "lines": [{"position": 1}]}, CreditKind.CORRECTION, "-2.38"),
    ],
)
def test_staff_draft_a_credit_note(
    staff: Asker, invoice: Invoice, asked: dict[str, Any], kind: CreditKind, total: str
) -> None:
    response = staff.post(f"invoices/{invoice.pk}/credit-notes/", {**asked, "reason": "a mistake"})

    assert response.status_code == 201, response.content
    shown = response.json()
    assert (shown["credit_kind"], shown["state"], shown["total"]) == (kind, "draft", total)
    assert (shown["original"], shown["taxes"][0]["percent"]) == (invoice.pk, "19.00")
    assert response["Location"].endswith(f"/api/v1/invoices/{shown['id']}/")
    assert [note["id"] for note in staff.results(f"invoices/{invoice.pk}/credit-notes/")] == [shown["id"]]
    assert invoice.events.latest("id").reason == "a mistake"


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        ({"kind": "correction", "reason": ""}, "reason: This field may not be blank."),
        ({"kind": "reduction", "reason": "x"}, "kind: “reduction” is not a valid choice."),
        ({"kind": "goodwill", "reason": "x", "lines": []}, "lines: This list may not be empty."),
        ({"kind": "goodwill", "reason": "x", "lines": [{"position": 1}]}, "lines: Give an amount for each line."),
        (
            {"kind": "correction", "reason": "x", "lines": [{"position": 1, "amount": "1"}]},
            "lines: A correction takes no amounts.",
        ),
        (
            {"kind": "correction", "reason": "x", "lines": [{"position": 3}]},
            "lines: This invoice has no line 3.",
        ),
        (
            {"kind": "correction", "reason": "x", "lines": [{"position": 1}, {"position": 1}]},
            "lines: Name each line once.",
        ),
        (
            {"kind": "goodwill", "reason": "x", "lines": [{"position": 1, "amount": "2.01"}]},
            "2.01 exceeds the 2.00 USD left on this line.",
        ),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_made(
    staff: Asker, invoice: Invoice, asked: dict[str, Any], detail: str
) -> None:
    events = InvoiceEvent.objects.count()
    response = staff.post(f"invoices/{invoice.pk}/credit-notes/", asked)
    assert (response.status_code, response.json()) == (400, {"detail": detail.replace("“", '"').replace("”", '"')})
    assert (Invoice.objects.count(), InvoiceEvent.objects.count()) == (1, events)


def test_only_who_may_credits(invoice: Invoice) -> None:
    _, key = customer(invoice.account)
    viewer = staff_asker("view_invoice", name="vera")
    asked = {"kind": "correction", "reason": "mine"}
    for asker in (key, viewer):
        assert asker.post(f"invoices/{invoice.pk}/credit-notes/", asked).status_code == 403
    assert Invoice.objects.count() == 1


def test_customers_see_the_notes_of_their_invoice_once_they_are_issued(invoice: Invoice) -> None:
    _, key = customer(invoice.account)
    _, other = customer(make_account("Other"))
    note = credit(invoice.pk, user=approver(), reason="an outage")
    path = f"invoices/{invoice.pk}/credit-notes/"

    assert key.results(path) == []
    assert through_review(note).state == InvoiceState.ISSUED
    [shown] = key.results(path)
    assert (shown["total"], shown["credit_kind"], shown["due_on"]) == ("-11.90", "goodwill", None)
    assert other.get(path).status_code == 404

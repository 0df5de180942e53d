"""Invoices over the management API: what staff see, and what of it customers see."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from billing.enums import InvoiceAction, InvoiceKind, InvoiceState
from billing.models import InvoiceEvent
from tests.billing.api.asking import Asker, customer, staff_asker
from tests.billing.factories import make_account, make_exchange_rate, make_invoice, make_profile, make_user

pytestmark = pytest.mark.django_db

OURS = {
    "plan_version",
    "cost_usd",
    "previous_total",
    "previous_cost_usd",
    "estimated_permille",
    "flags",
    "needs_second_person",
    "prepared_by",
    "approved_by",
    "submitted_at",
    "approved_at",
    "events",
}


@pytest.fixture
def staff() -> Asker:
    return staff_asker("view_invoice")


def test_an_issued_invoice_is_shown_as_it_is_printed(staff: Asker) -> None:
    lines = (
        {"amount": "10.01", "exact_amount": Decimal("10.005"), "residual": Decimal("-0.005"), "quantity": 10**12},
        {"amount": "1234.50", "unit_price": Decimal("2.5"), "cost_usd": Decimal("0.000000000001")},
    )
    invoice = make_invoice(state=InvoiceState.ISSUED, lines=lines, tax_percent="19", flags=["first_invoice"])

    shown = staff.get(f"invoices/{invoice.pk}/").json()

    assert (shown["number"], shown["period"], shown["currency"], shown["state"]) == (
        "INV-2026-000017",
        "2026-10",
        "USD",
        "issued",
    )
    assert (shown["subtotal"], shown["tax_percent"], shown["tax"], shown["total"]) == (
        "1244.51",
        "19.00",
        "236.46",
        "1480.97",
    )
    assert (shown["issued_on"], shown["due_on"], shown["cutoff_at"]) == (
        "2026-11-03",
        "2026-12-03",
        "2026-11-01T06:00:12.345678Z",
    )
    assert (shown["flags"], shown["prepared_by"], shown["approved_by"]) == (["first_invoice"], "preparer", "approver")
    assert shown["bill_to"]["legal_name"] == "Acme"
    first, second = shown["lines"]
    assert (first["amount"], first["exact_amount"], first["quantity"]) == ("10.01", "10.005", 10**12)
    assert (second["amount"], second["unit_price"], second["cost_usd"]) == ("1234.50", "2.50", "0.000000000001")


@pytest.mark.parametrize(("currency", "amount"), [("JPY", "1234"), ("KWD", "12.345"), ("EUR", "12.30")])
def test_amounts_have_the_decimals_of_their_currency(staff: Asker, currency: str, amount: str) -> None:
    rate = make_exchange_rate(currency, "151.25")
    profile = make_profile()
    invoice = make_invoice(
        profile, currency=currency, lines=({"amount": amount},), exchange_rate=rate, per_usd=rate.per_usd
    )

    shown = staff.get(f"invoices/{invoice.pk}/").json()

    assert (shown["total"], shown["lines"][0]["amount"], shown["per_usd"]) == (amount, amount, "151.25")


def test_staff_see_the_history(staff: Asker) -> None:
    invoice = make_invoice()
    for action, user in ((InvoiceAction.DRAFT, None), (InvoiceAction.VOID, make_user("approver"))):
        InvoiceEvent.objects.create(invoice=invoice, action=action, to_state="draft", user=user, reason="because")

    events = staff.get(f"invoices/{invoice.pk}/").json()["events"]

    assert [(event["action"], event["user"], event["reason"]) for event in events] == [
        ("draft", None, "because"),
        ("void", "approver", "because"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("state", InvoiceState.values)
def test_customers_see_an_invoice_once_it_is_issued(state: str) -> None:
    _, asker = customer(make_account())
    invoice = make_invoice(state=InvoiceState(state))
    is_seen = state in ("issued", "paid")

    assert len(asker.results("invoices/")) == is_seen
    for path in (f"invoices/{invoice.pk}/", f"invoices/{invoice.pk}/pdf/"):
        assert asker.get(path).status_code == (200 if is_seen else 404)


def test_customers_see_nothing_of_our_side() -> None:
    _, asker = customer(make_account(shows_cost=True))
    invoice = make_invoice(state=InvoiceState.ISSUED, lines=({"amount": "1.00", "cost_usd": Decimal("0.50")},))

    shown = asker.get(f"invoices/{invoice.pk}/").json()

    assert not OURS & set(shown)
    assert not {"cost_usd", "key"} & set(shown["lines"][0])
    assert not OURS & set(asker.results("invoices/")[0])


def test_other_accounts_invoices_are_as_unknown_as_none() -> None:
    _, asker = customer(make_account())
    foreign = make_invoice(make_profile(make_account("Other")), state=InvoiceState.ISSUED)

    assert asker.results("invoices/") == []
    for path in (f"invoices/{foreign.pk}/", f"invoices/{foreign.pk}/pdf/", f"invoices/{10**30}/"):
        assert asker.refusal(path, status=404) == "No Invoice matches the given query."


def test_customers_see_their_credit_notes() -> None:
    _, asker = customer(make_account())
    profile = make_profile()
    invoice = make_invoice(profile, state=InvoiceState.ISSUED)
    make_invoice(
        profile,
        kind=InvoiceKind.CREDIT_NOTE,
        state=InvoiceState.ISSUED,
        original=invoice,
        credit_sequence=1,
        lines=({"amount": "-10.00"},),
    )

    note = asker.results("invoices/", {"kind": "credit_note"})[0]

    assert (note["number"], note["total"], note["original"]) == ("CN-2026-000017", "-10.00", invoice.pk)


def test_filters_narrow(staff: Asker) -> None:
    acme, other = make_profile(), make_profile(make_account("Other"))
    draft = make_invoice(acme)
    issued = make_invoice(other, state=InvoiceState.ISSUED, period_start=date(2026, 9, 1))
    supplement = make_invoice(acme, kind=InvoiceKind.SUPPLEMENT)

    for query, expected in (
        ({}, [supplement, issued, draft]),
        ({"account": acme.account_id}, [supplement, draft]),
        ({"period": "2026-09"}, [issued]),
        ({"state": "draft"}, [supplement, draft]),
        ({"kind": "supplement"}, [supplement]),
    ):
        assert [row["id"] for row in staff.results("invoices/", query)] == [row.pk for row in expected]


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ({"period": "October"}, "period: “October” is not a month such as 2026-10."),
        ({"period": "%s"}, "period: “%s” is not a month such as 2026-10."),
        ({"period": "2026-13"}, "period: “2026-13” is not a month such as 2026-10."),
        ({"period": "0000-01"}, "period: “0000-01” is not a month from 2000-01 to 2999-12."),
        ({"state": "lost"}, "state: Select a valid choice. lost is not one of the available choices."),
        ({"account": "0"}, "account: This id does not exist."),
        ({"order": "total"}, "order: Unknown parameter. Allowed:"),
    ],
)
def test_a_filter_that_is_wrong_says_which_and_why(staff: Asker, query: dict[str, str], detail: str) -> None:
    assert staff.refusal("invoices/", query).startswith(detail)


@pytest.mark.slow
def test_the_pdf_is_the_document(staff: Asker) -> None:
    invoice = make_invoice(state=InvoiceState.ISSUED)

    response = staff.get(f"invoices/{invoice.pk}/pdf/")

    assert (response.status_code, response["Content-Type"]) == (200, "application/pdf")
    assert response.content.startswith(b"%PDF-")
    assert "INV-2026-000017" in response["Content-Disposition"]
    assert response.content == staff.get(f"invoices/{invoice.pk}/pdf/").content

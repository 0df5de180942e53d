"""One-off lines over the management API."""

from __future__ import annotations

from typing import Any

import pytest

from billing.enums import TokenScope
from billing.models import Invoice, OneOffLine
from tests.billing.admin.pages import make_draft
from tests.billing.api.asking import Asker, customer, make_staff, staff_asker, token_of

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

FEE = {"description": "Setup fee", "amount": "500.00", "reason": "agreed"}


@pytest.fixture
def draft() -> Invoice:
    return make_draft()


def path_of(draft: Invoice, line: int | None = None) -> str:
    path = f"invoices/{draft.pk}/one-off-lines/"
    return path if line is None else f"{path}{line}/removal/"


def test_staff_add_a_line_and_remove_it(draft: Invoice) -> None:
    staff = staff_asker("view_invoice", "prepare_invoice")
    added = staff.post(path_of(draft), FEE)
    assert added.status_code == 201, added.content
    last = added.json()["lines"][-1]
    assert (last["kind"], last["description"], last["amount"]) == ("one_off", "Setup fee", "500.00")
    assert added.json()["total"] == "502.00"
    [listed] = staff.get(path_of(draft)).json()
    assert (listed["amount"], listed["tax_percent"], listed["added_by"]) == ("500.00", None, "finance")
    removed = staff.post(path_of(draft, listed["id"]), {"reason": "a mistake"})
    assert (removed.status_code, removed.json()["total"]) == (200, "2.00")
    assert staff.get(path_of(draft)).json() == []
    assert staff.post(path_of(draft, listed["id"]), {"reason": "a mistake"}).status_code == 400


@pytest.mark.parametrize(
    "asked",
    [
        {**FEE, "amount": "0"},
        {**FEE, "amount": "1.001"},
        {**FEE, "amount": 1e300},
        {**FEE, "amount": "NaN"},
        {**FEE, "tax_percent": "-1"},
        {**FEE, "tax_percent": "Infinity"},
        {**FEE, "amount": "-1", "tax_percent": "7"},
        {**FEE, "description": "x" * 151},
        {**FEE, "reason": ""},
        {**FEE, "kind": "fee"},
        {"amount": "1"},
        [],
    ],
)
def test_what_makes_no_sense_is_refused(draft: Invoice, asked: Any) -> None:
    staff = staff_asker("view_invoice", "prepare_invoice")
    assert staff.post(path_of(draft), asked).status_code == 400
    assert not OneOffLine.objects.exists()


def test_it_needs_the_permission_and_the_scope(draft: Invoice) -> None:
    reader = staff_asker("view_invoice")
    scoped = Asker(token_of(make_staff("prepare_invoice", name="narrow"), TokenScope.READ, TokenScope.CREDIT))
    _, owner = customer(draft.account)
    for asker in (reader, scoped, owner):
        assert asker.post(path_of(draft), FEE).status_code == 403
        assert asker.post(path_of(draft, 1), {"reason": "x"}).status_code == 403
    assert owner.get(path_of(draft)).status_code == 404
    assert not OneOffLine.objects.exists()

"""Rows that travel as one document arrive as Django would have written them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError
from django.forms.models import model_to_dict

from billing.enums import LineKind
from billing.invoices.bulk_insert import insert_rows
from billing.models import InvoiceLine
from tests.billing.factories import make_invoice

pytestmark = pytest.mark.django_db

MOST = Decimal("99999999999999.999999999999999999999999")


def line(position: int, **values: Any) -> InvoiceLine:
    invoice = values.pop("invoice")
    fixed: dict[str, Any] = {
        "kind": LineKind.USAGE,
        "key": f"usage|{position}",
        "period_start": date(2026, 10, 1),
        "plan_version": invoice.plan_version,
        "description": "tokens",
        "exact_amount": Decimal("0.000000000000000000000001"),
        "amount": Decimal(0),
        "residual": Decimal("-0.5"),
    }
    return InvoiceLine(invoice=invoice, position=position, **{**fixed, **values})


def test_every_kind_of_value_comes_back_as_it_was() -> None:
    invoice = make_invoice()
    rows = [
        line(101, invoice=invoice, description='quote " backslash \\ Ünïcødé “%s” \x7f', quantity=-(2**63)),
        line(102, invoice=invoice, quantity=2**63 - 1, exact_amount=MOST, cost_usd=Decimal("-1.5"), digest="ab"),
        line(103, invoice=invoice, unit_price=Decimal("2.5"), cutoff_at=datetime(2026, 11, 1, 5, 6, 7, 8, UTC)),
    ]
    insert_rows(InvoiceLine, rows)
    found = {row.position: row for row in invoice.lines.filter(position__gt=100)}
    for row in rows:
        twin = line(row.position + 100, invoice=invoice)
        for name, value in model_to_dict(row, exclude=["id", "invoice", "plan_version", "position"]).items():
            setattr(twin, name, value)
        twin.plan_version, twin.key, twin.cutoff_at = row.plan_version, f"twin {row.position}", row.cutoff_at
        twin.save()
        twin.refresh_from_db()
        theirs, ours = (model_to_dict(each, exclude=["id", "key", "position"]) for each in (twin, found[row.position]))
        assert ours == theirs
        assert found[row.position].key == row.key


def test_no_rows_are_no_statement(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        insert_rows(InvoiceLine, [])


def test_what_a_column_cannot_hold_exactly_is_refused_and_nothing_written() -> None:
    invoice = make_invoice()
    before = InvoiceLine.objects.count()
    with pytest.raises(ValueError, match="more than 24 decimals"):
        insert_rows(InvoiceLine, [line(101, invoice=invoice), line(102, invoice=invoice, residual=Decimal("1e-25"))])
    with pytest.raises(TypeError, match="takes Decimal"):
        insert_rows(InvoiceLine, [line(101, invoice=invoice, residual=0.5)])
    assert InvoiceLine.objects.count() == before


@pytest.mark.django_db(transaction=True)
def test_constraints_hold() -> None:
    invoice = make_invoice()
    with pytest.raises(IntegrityError):
        insert_rows(InvoiceLine, [line(101, invoice=invoice), line(101, invoice=invoice, key="another")])

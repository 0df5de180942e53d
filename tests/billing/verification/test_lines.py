"""What `verify_books --month` finds on a line that was changed so that sums and the invoice's digest still fit."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from billing.invoices.closing import close_month
from billing.invoices.digests import content_digest
from billing.invoices.review import submit
from billing.models import Invoice, InvoiceLine
from billing.verification import verify_month
from llm.db.triggers import drop_triggers
from llm.digests import digest_hex
from llm.models import Account, Price
from tests.billing.admin.pages import OCTOBER
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account
from tests.billing.people import make_preparer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("every_month_is_over")]

NOVEMBER = OCTOBER.following
INPUT, OUTPUT = "“gpt-4o, input tokens”", "“gpt-4o, output tokens”"


def submitted(account: Account, number: int) -> Invoice:
    """The month so many after October."""
    period = [OCTOBER, NOVEMBER][number]
    close_month(period)
    draft = Invoice.objects.get(account=account, period_start=period.start)
    return submit(draft.pk, user=make_preparer(f"preparer {number}"))


@pytest.fixture
def october() -> Invoice:
    """Two calls: 3,000,000 tokens in at 2 USD and 500 out at 8 USD per million."""
    account, price = make_account(), make_price()
    make_call(account, price=price, prompt_tokens=1_000_000, completion_tokens=500)
    make_call(account, price=price, prompt_tokens=2_000_000)
    invoice = submitted(account, 0)
    drop_triggers(connection)
    return invoice


def forge(invoice: Invoice, meter: str, **values: Any) -> None:
    """The line of October, and the digest that would give it away."""
    changed = InvoiceLine.objects.filter(invoice=invoice, meter=meter, period_start=OCTOBER.start).update(**values)
    assert changed == 1
    invoice.refresh_from_db()
    Invoice.objects.filter(pk=invoice.pk).update(content_digest=content_digest(invoice))
    invoice.events.exclude(content_digest="").update(content_digest=content_digest(invoice))


def findings() -> list[str]:
    start = "Acme, 2026-10: "
    return [sentence.removeprefix(start) for sentence in verify_month(OCTOBER).sentences]


@pytest.mark.slow
def test_a_line_with_other_calls_is_named(october: Invoice) -> None:
    forge(october, "output", calls=3)
    assert findings() == [f"{OUTPUT} bills 3 calls, but should bill 2."]


def test_a_line_with_another_cost_is_named(october: Invoice) -> None:
    forge(october, "input", cost_usd=Decimal("5.5"))
    assert findings() == [f"{INPUT} has a cost of 5.500000000000 USD, but should have 6.000000000000."]


@pytest.mark.slow
def test_a_line_with_another_digest_is_named(october: Invoice) -> None:
    digest = InvoiceLine.objects.get(invoice=october, meter="input").digest
    other = digest_hex((1, 0, 0, 0, 0, 0, 0, 0))
    forge(october, "input", digest=other)
    assert findings() == [f"{INPUT} has the digest {other}, but that of its calls is {digest}."]
    forge(october, "input", digest="")
    assert findings() == [f"{INPUT} has the digest {'0' * 64}, but that of its calls is {digest}."]


def test_a_line_with_another_unit_price_is_named(october: Invoice) -> None:
    forge(october, "input", unit_price=Decimal(3))
    by_itself, by_usage = findings()
    assert "line 1 charges 6.0" in by_itself
    assert "for 3,000,000, which at its unit price of 3.0" in by_itself
    assert by_usage.startswith(f"{INPUT} has the unit price 3.0")
    assert "but should have 2.0" in by_usage


@pytest.mark.slow
def test_a_line_whose_unit_price_is_gone_is_named(october: Invoice) -> None:
    forge(october, "input", unit_price=None)
    [sentence] = findings()
    assert sentence.startswith(f"{INPUT} has the unit price none, but should have 2.0")


def test_of_a_line_that_is_gone_its_charge_alone_is_told(october: Invoice) -> None:
    InvoiceLine.objects.filter(invoice=october, meter="output").delete()
    told = [sentence for sentence in findings() if sentence.startswith(OUTPUT)]
    assert len(told) == 1
    assert "is billed at 0, but should be at 0.004" in told[0]


@pytest.mark.slow
def test_lines_that_later_invoices_change_are_compared_with_them(october: Invoice) -> None:
    """The late call has tokens in alone, so that no later line says how many calls the tokens out stand for by now."""
    make_call(october.account, price=Price.objects.get(), prompt_tokens=7)
    late = submitted(october.account, 1)
    assert [(line.calls, line.quantity) for line in late.lines.all()] == [(1, 7)]
    assert findings() == []
    forge(october, "input", calls=5, cost_usd=Decimal(7))
    assert findings() == [
        f"{INPUT} has a cost of 7.000014000000 USD, but should have 6.000014000000.",
        f"{INPUT} bills 6 calls, but should bill 3.",
    ]
    forge(october, "input", calls=2, cost_usd=Decimal(6))
    forge(october, "output", cost_usd=Decimal(1))
    assert findings() == [f"{OUTPUT} has a cost of 1.000000000000 USD, but should have 0.004000000000."]


def test_calls_without_a_price_make_no_finding() -> None:
    """Their lines have no unit price, those of free calls have 0."""
    account = make_account()
    make_call(account, prompt_tokens=5)
    invoice = submitted(account, 0)
    assert [line.unit_price for line in invoice.lines.all()] == [None]
    assert findings() == []

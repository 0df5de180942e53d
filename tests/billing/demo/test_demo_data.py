"""`manage.py demo_data`, with two of its customers and three months."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db.models import Sum
from django.utils import timezone

from billing.enums import InvoiceKind, InvoiceState
from billing.invoices.digests import content_digest
from billing.management.commands import demo_data
from billing.management.demo.cast import CUSTOMERS
from billing.management.demo.usage import PROCESS
from billing.models import Invoice
from billing.verification import verify_month
from llm.audit import verify
from llm.limits.periods import period_of
from llm.models import Account, Limit, LimitWindow, Usage
from tests.billing.calls import make_call
from tests.billing.factories import make_account, make_invoice

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

UNTIL = datetime(2026, 3, 20, 15, tzinfo=UTC)
FEW = tuple(
    replace(customer, joined=min(customer.joined, 2), calls_a_day=1, keys=customer.keys[:2])
    for customer in CUSTOMERS
    if customer.name in ("Contoso Bank", "Fabrikam Robotics", "Carbon Ledger", "Bluebird Travel")
)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_data, "CUSTOMERS", FEW)
    monkeypatch.setattr(timezone, "now", lambda: UNTIL)


def figures() -> list[Any]:
    return list(Usage.objects.order_by("id").values_list("id", "account__name", "model", "prompt_tokens", "cost"))


def test_books_and_months_are_sound_and_a_second_run_adds_only_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("demo_data")

    assert "no problems" in capsys.readouterr().out
    states = set(Invoice.objects.order_by().values_list("period_start__month", "state"))
    assert {
        (1, InvoiceState.PAID),
        (1, InvoiceState.ISSUED),
        (2, InvoiceState.IN_REVIEW),
        (2, InvoiceState.DRAFT),
    } <= states
    assert Invoice.objects.filter(kind=InvoiceKind.CREDIT_NOTE, state=InvoiceState.ISSUED).count() == 1
    paid = Invoice.objects.filter(state=InvoiceState.PAID).first()
    assert paid is not None
    assert str(paid.issued_on) == "2026-02-04"
    assert [f"{event.at:%Y-%m-%d}" for event in paid.events.order_by("id")][:4] == [
        "2026-02-02",
        "2026-02-02",
        "2026-02-04",
        "2026-02-04",
    ]
    assert content_digest(paid) == paid.content_digest
    assert verify_month(paid.period).sentences == []
    assert timezone.now() == UNTIL
    first = figures()

    monkeypatch.setattr(timezone, "now", lambda: UNTIL.replace(day=22))
    call_command("demo_data")

    later = figures()
    assert later[: len(first)] == first
    assert len(later) > len(first)
    assert verify().sentences == []
    # The limit that is used up counts all calls of its key.
    limit = Limit.objects.get(account__name="Fabrikam Robotics")
    window = LimitWindow.objects.get(limit=limit, starts_at=period_of(limit.per, "UTC", UNTIL).starts_at)
    calls = Usage.objects.filter(api_key=limit.api_key).aggregate(all=Sum("prompt_tokens") + Sum("completion_tokens"))
    assert window.used == calls["all"]


@pytest.mark.parametrize("what", ["call", "invoice", "account"])
def test_a_database_in_use_is_refused_and_left_alone(what: str) -> None:
    found = {"call": "there are real calls", "invoice": "was issued to Acme", "account": "an account Contoso Bank"}
    if what == "call":
        make_call(make_account())
    elif what == "invoice":
        make_invoice(state=InvoiceState.ISSUED)
    else:
        make_account("Contoso Bank")

    with pytest.raises(CommandError, match=found[what]) as refused:
        call_command("demo_data")

    assert "Use a new database" in str(refused.value)
    assert not Usage.objects.filter(process_id=PROCESS).exists()
    assert Account.objects.count() == 1

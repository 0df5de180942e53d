"""What comes late for a month that was issued: the invoice stays, the next one has the difference, once."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from billing.enums import InvoiceState, LineKind, TierMode
from billing.invoices.closing import close_month
from billing.invoices.review import approve, issue, submit
from billing.models import Invoice, Plan, PlanRate
from billing.periods import BillingPeriod
from billing.plans import add_version
from billing.verification import verify_month
from llm.enums import AdjustmentSource
from llm.models import Account
from tests.billing.calls import adjust_call, make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.people import make_approver, make_preparer

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

BILLED = BillingPeriod.parse("2025-09")
DAY = date(2025, 9, 15)


@pytest.fixture
def account() -> Account:
    """On 4.00 a million, and 3.00 for all of them from a million on; 5.00 a month at least."""
    plan = Plan.objects.create(name="Volume")
    tiers = [
        PlanRate(
            model_pattern="gpt-*", meter="input", tier_mode=TierMode.VOLUME, from_tokens=start, price_per_million=price
        )
        for start, price in ((0, Decimal(4)), (1_000_000, Decimal(3)))
    ]
    output = PlanRate(model_pattern="gpt-*", meter="output", price_per_million=Decimal(10))
    add_version(plan, effective_from=date(2025, 1, 1), minimum_commitment=Decimal(5), rates=[*tiers, output])
    account = make_account()
    make_profile(account, plan=plan)
    return account


def issued(period: BillingPeriod) -> Invoice:
    close_month(period, account=make_account())
    draft = Invoice.objects.get(period_start=period.start, state=InvoiceState.DRAFT)
    submit(draft.pk, user=make_preparer(f"pre-{period}"))
    approver = make_approver(f"app-{period}")
    approve(draft.pk, user=approver)
    return issue(draft.pk, user=approver)


def said(invoice: Invoice) -> Any:
    return Invoice.objects.filter(pk=invoice.pk).values()[0], list(invoice.lines.order_by("position").values())


@pytest.mark.parametrize("following", ["2025-10", "2025-11", "2026-10"], ids=["1 h", "40 d", "400 d"])
def test_what_comes_late_is_the_difference_on_the_next_invoice(account: Account, following: str) -> None:
    price = make_price()
    make_call(account, day=DAY, price=price, prompt_tokens=900_000)
    disputed = make_call(account, day=DAY, price=price, prompt_tokens=100_000, is_billable=False, is_disputed=True)
    first = issued(BILLED)
    before = said(first)
    assert [line.amount for line in first.lines.order_by("position")] == [Decimal("3.6"), Decimal("1.4")]

    make_call(account, day=DAY, price=price, prompt_tokens=200_000)
    adjust_call(disputed, AdjustmentSource.DECISION, is_billable=True)
    second = issued(BillingPeriod.parse(following))

    late = second.lines.filter(period_start=BILLED.start).order_by("position")
    assert [(line.kind, line.quantity, line.amount) for line in late] == [
        (LineKind.USAGE, 1_200_000, Decimal("3.6")),
        (LineKind.USAGE, -900_000, Decimal("-3.6")),
    ]
    assert {line.plan_version for line in late} == {first.plan_version}
    assert said(first) == before
    assert verify_month(BILLED).sentences == verify_month(BillingPeriod.parse(following)).sentences == []
    after = BillingPeriod.parse(following).following
    assert close_month(after, account=account).drafted == [account.name]
    assert not Invoice.objects.get(period_start=after.start).lines.filter(period_start=BILLED.start).exists()


def test_a_corrected_price_is_given_back_by_a_credit_note(account: Account) -> None:
    """At cost, where the price of the provider matters."""
    Plan.objects.filter(name="Volume").get().versions.get().rates.all().delete()
    call = make_call(account, day=DAY, price=make_price(), prompt_tokens=3_000_000)
    first = issued(BILLED)
    before = said(first)

    adjust_call(call, AdjustmentSource.PROVIDER, cost=Decimal(-2))
    report = close_month(BILLED.following, account=account)

    assert (report.drafted, report.credited) == ([account.name], [account.name])
    note = Invoice.objects.get(original=first)
    assert [(line.kind, line.amount) for line in note.lines.order_by("position")] == [
        (LineKind.USAGE, Decimal(-2)),
        (LineKind.COMMITMENT, Decimal(1)),
    ]
    assert (first.total, note.total, said(first)) == (Decimal(6), Decimal(-1), before)
    assert verify_month(BILLED).sentences == []

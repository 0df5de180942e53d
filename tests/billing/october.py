"""A month with a bit of everything that the database protects."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from django.contrib.auth.models import User

from billing.invoices.crediting import credit
from billing.invoices.drafting import draft_invoice
from billing.invoices.review import approve, issue, mark_paid, submit
from billing.models import Invoice, OneOffLine, Plan
from billing.periods import BillingPeriod
from billing.plans import add_version
from llm.enums import AdjustmentSource
from tests.billing.calls import adjust_call, make_call, make_price
from tests.billing.factories import make_account, make_exchange_rate, make_profile
from tests.billing.people import make_approver, make_preparer

OCTOBER = BillingPeriod.parse("2026-10")


def make_october() -> None:
    """Calls with adjustments; an issued invoice of Acme in EUR with a credit note on it; a paid one of Globex."""
    price = make_price()
    plan = Plan.objects.create(name="Euro")
    add_version(plan, effective_from=date(2026, 1, 1), currency="EUR", markup_percent=Decimal(10))
    make_exchange_rate("EUR", "0.9")
    make_exchange_rate("GBP", "0.8")
    acme, globex = make_account("Acme"), make_account("Globex")
    make_profile(acme, plan=plan, currency="EUR", tax_percent=Decimal(19), address="Street 1")
    for account in (acme, globex):
        calls = [make_call(account, price=price, prompt_tokens=1_000_000 * number) for number in (1, 2, 3)]
        adjust_call(calls[0], AdjustmentSource.PROVIDER, prompt_tokens=500, cost=Decimal("0.001"))
    invoices = [_issued(draft_invoice(account, OCTOBER)) for account in (acme, globex)]
    line = invoices[0].lines.order_by("position")[0]
    _issued(credit(invoices[0].pk, user=_alex(), reason="An outage.", amounts={line.pk: Decimal("1.25")}))
    OneOffLine.objects.create(
        account=globex,
        period_start=OCTOBER.following.start,
        currency="USD",
        description="Setup fee",
        amount=Decimal(5),
        reason="agreed",
        added_by=_pat(),
    )
    mark_paid(invoices[1].pk, user=_alex(), paid_on=date(2026, 11, 20))


def _alex() -> User:
    return User.objects.filter(username="alex").first() or make_approver()


def _pat() -> User:
    return User.objects.filter(username="pat").first() or make_preparer()


def _issued(draft: Invoice | None) -> Invoice:
    assert draft is not None
    submit(draft.pk, user=_pat())
    approve(draft.pk, user=_alex())
    return issue(draft.pk, user=_alex())

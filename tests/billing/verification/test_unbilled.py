"""Who used a month and has no invoice of it is named by `verify_books --month`, unless that is as it should be."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from billing.invoices.closing import close_month
from billing.invoices.review import void
from billing.models import Invoice, Plan
from billing.plans import add_version
from billing.verification import verify_month
from llm.enums import AccountStatus
from llm.models import Account
from tests.billing.admin.pages import OCTOBER, make_draft
from tests.billing.calls import adjust_call, make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.people import make_approver

pytestmark = pytest.mark.django_db


def findings(*, now: datetime | None = None, account_id: int | None = None) -> list[str]:
    return verify_month(OCTOBER, now=now, account_id=account_id).sentences


def void_draft(draft: Invoice) -> None:
    void(draft.pk, user=make_approver(), reason="a mistake")


def test_a_month_that_was_never_closed_is_named() -> None:
    price = make_price()
    for name in ("Acme & Sons", "Acme & Sons", "Other"):
        make_call(make_account(name), price=price, prompt_tokens=10)
    acme, other = findings()
    assert acme == (
        "Acme & Sons, 2026-10: it has no invoice, and nothing bills its 2 billable calls: "
        "generate its invoice with “manage.py close_month 2026-10 --account 'Acme & Sons'”."
    )
    assert findings(account_id=make_account("Other").pk) == [other]
    close_month(OCTOBER, account=make_account("Acme & Sons"))
    assert findings() == [other]


def test_a_month_whose_invoice_is_void_is_named_until_it_is_closed_again() -> None:
    draft = make_draft()
    assert findings() == []
    void_draft(draft)
    [sentence] = findings()
    assert sentence.startswith(
        "Acme, 2026-10: its invoice is void, and nothing else bills its 1 billable call: generate"
    )
    close_month(OCTOBER, account=draft.account)
    assert findings() == []


def test_accounts_that_are_billed_from_a_later_month_on_are_left_out() -> None:
    account = make_account()
    make_profile(account, billed_from=OCTOBER.following.start)
    make_call(account, price=make_price(), prompt_tokens=10)
    assert findings() == []


def test_a_month_that_is_not_over_where_the_account_is_has_no_findings() -> None:
    price, recorded_at = make_price(), datetime(2026, 10, 20, tzinfo=UTC)
    for name, time_zone in (("Far", "Pacific/Kiritimati"), ("Here", "UTC")):
        account = make_account(name, time_zone=time_zone)
        make_call(account, price=price, prompt_tokens=10, recorded_at=recorded_at)
    assert findings(now=datetime(2026, 10, 31, 9, tzinfo=UTC)) == []
    [sentence] = findings(now=datetime(2026, 10, 31, 23, tzinfo=UTC))
    assert sentence.startswith("Far, 2026-10: it has no invoice")


def test_calls_that_make_no_line_are_not_owed() -> None:
    account, price = make_account(), make_price()
    make_call(account, price=price)
    make_call(account, price=price, prompt_tokens=10, is_billable=False)
    adjust_call(make_call(account, price=price, prompt_tokens=10), is_billable=False)
    close_month(OCTOBER)
    assert not Invoice.objects.exists()
    assert findings() == []


def make_fees(**terms: Any) -> Plan:
    plan = Plan.objects.create(name="Fees")
    add_version(plan, effective_from=date(2026, 1, 1), **terms)
    return plan


@pytest.mark.parametrize("term", ["flat_fee", "minimum_commitment"])
def test_fees_of_a_month_without_an_invoice_are_named(term: str) -> None:
    account = make_account()
    Account.objects.update(created_at=datetime(2026, 9, 1, tzinfo=UTC))
    make_profile(account, plan=make_fees(**{term: Decimal(9)}))
    now = datetime(2026, 11, 3, tzinfo=UTC)
    [sentence] = findings(now=now)
    assert sentence == (
        "Acme, 2026-10: it has no invoice, and nothing bills its fees: "
        "generate its invoice with “manage.py close_month 2026-10 --account Acme”."
    )
    close_month(OCTOBER, account=account)
    assert findings(now=now) == []
    void_draft(Invoice.objects.get())
    [sentence] = findings(now=now, account_id=account.pk)
    assert sentence.startswith("Acme, 2026-10: its invoice is void, and nothing else bills its fees: generate")


@pytest.mark.parametrize(
    "values",
    [
        {"created_at": datetime(2026, 11, 1, tzinfo=UTC)},
        {"status": AccountStatus.CLOSED, "closed_at": datetime(2026, 9, 30, tzinfo=UTC)},
    ],
    ids=["created later", "closed before"],
)
def test_months_without_fees_are_not_owed(values: dict[str, Any]) -> None:
    account = make_account()
    Account.objects.update(**{"created_at": datetime(2026, 9, 1, tzinfo=UTC), **values})
    make_profile(account, plan=make_fees(flat_fee=Decimal(9)))
    assert findings(now=datetime(2026, 11, 3, tzinfo=UTC)) == []


def test_a_month_that_the_plan_began_after_is_not_owed() -> None:
    account = make_account()
    Account.objects.update(created_at=datetime(2026, 9, 1, tzinfo=UTC))
    make_profile(account, plan=make_fees(flat_fee=Decimal(9)), plan_from=OCTOBER.following.start)
    assert findings(now=datetime(2026, 11, 3, tzinfo=UTC)) == []

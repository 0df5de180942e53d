"""Calls in doubt: lost ones hold up their invoice, disputed ones are only pointed out; both are billed once decided."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from billing.blockers import blockers_of, unsettled_of
from billing.errors import InvoiceError
from billing.flags import labels_of
from billing.invoicing import draft_invoice
from billing.models import Invoice
from billing.periods import Period
from billing.review import approve, issue, submit
from llm.books.adjusting import decide_call
from llm.enums import Outcome, UsageSource, UsageStatus
from llm.models import Account, Price, Usage
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.people import make_approver, make_preparer

pytestmark = pytest.mark.django_db

OCTOBER = Period.parse("2026-10")


@pytest.fixture
def account() -> Account:
    """With a call of 2 USD in October."""
    account = make_account()
    make_profile(account, address="1 Street", email="pay@acme.example")
    make_priced(account)
    return account


def make_priced(account: Account, **values: Any) -> Usage:
    """Of 2 USD."""
    price = Price.objects.first() or make_price()
    return make_call(account, price=price, **{"prompt_tokens": 1_000_000, **values})


def make_doubtful(account: Account, **values: Any) -> Usage:
    """Of 2 USD, counted by us and not billable."""
    return make_priced(
        account,
        status=UsageStatus.ESTIMATED,
        usage_source=UsageSource.ESTIMATED,
        is_billable=False,
        **values,
    )


def make_lost(account: Account, **values: Any) -> Usage:
    return make_doubtful(account, outcome=Outcome.LOST, **values)


def make_disputed(account: Account, **values: Any) -> Usage:
    return make_doubtful(account, is_disputed=True, disputed_usage={"prompt_tokens": -5}, **values)


def draft(account: Account, period: Period = OCTOBER) -> Invoice:
    invoice = draft_invoice(account, period)
    assert invoice is not None
    return invoice


def decide(row: Usage, *, is_billable: bool = True) -> None:
    decide_call(row.pk, counts=None, is_billable=is_billable, reason="their dashboard", user=None)


def issue_now(invoice: Invoice) -> Invoice:
    approver = make_approver()
    submit(invoice.pk, user=make_preparer())
    approve(invoice.pk, user=approver)
    return issue(invoice.pk, user=approver)


def test_calls_in_doubt_are_counted_for_their_account_and_month(account: Account) -> None:
    other = make_account("Other")
    make_lost(account)
    make_disputed(account)
    make_disputed(account)
    make_disputed(account, day=date(2026, 11, 1))
    make_disputed(other)
    decide(make_lost(account), is_billable=False)
    decide(make_disputed(account))
    found = unsettled_of(account.pk, OCTOBER)
    assert (found.open_calls, found.undecided_calls, found.disputed_calls, found.unpriced_calls) == (0, 1, 2, 0)


def test_a_lost_call_holds_up_its_invoice_until_somebody_decides(account: Account) -> None:
    row = make_lost(account)
    invoice = draft(account)
    assert labels_of(invoice).count("lost calls") == 1
    with pytest.raises(InvoiceError, match=r"1 calls of .* were lost with their process: decide what they used"):
        issue_now(invoice)
    decide(row)
    assert blockers_of(invoice) == []


def test_a_disputed_call_is_pointed_out_and_holds_up_nothing(account: Account) -> None:
    make_disputed(account)
    invoice = draft(account)
    assert "disputed" in invoice.flags
    assert blockers_of(invoice) == []
    issued = issue_now(invoice)
    assert (issued.subtotal, "disputed" in issued.flags) == (Decimal(2), True)


def test_a_disputed_call_that_is_decided_on_in_time_is_billed_with_its_month(account: Account) -> None:
    decide(make_disputed(account))
    invoice = draft(account)
    assert (invoice.subtotal, "disputed" in invoice.flags) == (Decimal(4), False)


def test_a_disputed_call_that_is_decided_on_after_the_issue_is_billed_with_the_next_month(account: Account) -> None:
    row = make_disputed(account)
    issue_now(draft(account))
    decide(row)
    make_priced(account, day=date(2026, 11, 2), prompt_tokens=500_000)
    november = draft(account, OCTOBER.following)
    late = [line.amount for line in november.lines.all() if line.period_start == OCTOBER.start]
    assert (late, november.subtotal) == ([Decimal(2)], Decimal(3))


# --- Calls without a price --------------------------------------------------------------------------------------------


def test_a_tier_that_a_caller_chose_is_named_with_what_sets_its_price(account: Account) -> None:
    price = Price.objects.get()
    make_call(account, prompt_tokens=10, price=price, cost=None, service_tier="flex", inference_geo="us")
    make_call(account, prompt_tokens=10, model="mystery-1")
    invoice = draft_invoice(account, OCTOBER)
    assert invoice is not None
    assert blockers_of(invoice) == [
        (
            "1 calls of 2026-10 to openai gpt-4o have no price for inference_geo:us, service_tier:flex: set one "
            "(“manage.py set_price” with --inference-geo us --service-tier flex) and run “manage.py rerate”."
        ),
        "1 calls of 2026-10 to openai mystery-1 have no price: set one and run “manage.py rerate”.",
    ]


def test_a_tool_without_a_price_is_named(account: Account) -> None:
    price = Price.objects.get()
    make_call(account, prompt_tokens=10, price=price, cost=None, extra_meters={"web_searches": 2})
    invoice = draft_invoice(account, OCTOBER)
    assert invoice is not None
    [blocker] = blockers_of(invoice)
    assert "to openai gpt-4o have no price for web_searches: set one" in blocker
    assert "--per-thousand web_searches=USD" in blocker

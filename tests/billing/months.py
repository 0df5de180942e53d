"""Months of an account on their way through review, and prices that change behind them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal

from django.contrib.auth.models import User

from billing.enums import InvoiceState
from billing.invoices.closing import close_month
from billing.invoices.review import approve, issue, submit
from billing.models import Invoice
from billing.periods import BillingPeriod
from billing.verification import verify_month
from llm.books.rerating import rerate
from llm.enums import Meter
from llm.models import Account, Price
from llm.money import exact_sum
from llm.prices.staff import set_price
from tests.billing.people import make_approver, make_preparer

SEPTEMBER = BillingPeriod.parse("2025-09")
OCTOBER = SEPTEMBER.following
NOVEMBER = OCTOBER.following
IN_SEPTEMBER = date(2025, 9, 15)


def preparer() -> User:
    return User.objects.filter(username="pat").first() or make_preparer()


def approver() -> User:
    return User.objects.filter(username="alex").first() or make_approver()


def through_review(invoice: Invoice) -> Invoice:
    submit(invoice.pk, user=preparer())
    approve(invoice.pk, user=approver())
    return issue(invoice.pk, user=approver())


def close_and_issue(account: Account, period: BillingPeriod) -> list[Invoice]:
    """All drafts that the closing leaves, issued one after the other."""
    close_month(period, account=account)
    return [through_review(draft) for draft in drafts_of(account)]


def drafts_of(account: Account) -> list[Invoice]:
    return list(Invoice.objects.filter(account=account, state=InvoiceState.DRAFT).order_by("id"))


def reprice(price: str, *, period: BillingPeriod = SEPTEMBER, model: str = "gpt-4o", provider: str = "openai") -> None:
    """Input tokens at this price from the month on, output at 50, and the month's calls priced again; "0": all free."""
    # Of one moment there is one price, and the latest before a call holds.
    since = datetime.combine(period.start, time(0, Price.objects.count()), UTC)
    rates = {Meter.INPUT: Decimal(price), Meter.OUTPUT: Decimal(50)}
    is_free = price == "0"
    set_price(provider, model, effective_from=since, rates={} if is_free else rates, is_free=is_free)
    rerate(provider, model, first_day=period.start, last_day=period.last_day, reason="the price list changed")


def charged(account: Account) -> Decimal:
    """In all, tax included, by what was issued."""
    return exact_sum(Invoice.objects.filter(account=account).final().values_list("total", flat=True))


def findings(*periods: BillingPeriod) -> list[str]:
    return [sentence for period in periods for sentence in verify_month(period).sentences]

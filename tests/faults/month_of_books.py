"""What becomes of a month at the hands of staff and tasks, for a process that is connected as some role of PostgreSQL.

Run by `manage.py shell` in a database of its own: it ends with an exception where a step is refused.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from django.db import connection
from django.utils import timezone

from billing.enums import InvoiceState
from billing.invoices.closing import close_month
from billing.invoices.crediting import credit, credit_and_bill_again
from billing.invoices.review import approve, mark_paid, send_back, submit, void
from billing.models import Invoice
from billing.tasks import close_due_months, refresh_rollups
from llm.books.adjusting import decide_call
from llm.enums import CallOutcome, UsageSource, UsageStatus
from llm.keys import create_key, revoke_key
from llm.models import Account, BooksCheck, UsageAdjustment
from llm.tasks import prune_outbox, prune_sign_in_counts, prune_windows, reap_lost_calls, verify_books
from llm.types import TokenCounts
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.months import (
    IN_SEPTEMBER,
    NOVEMBER,
    OCTOBER,
    SEPTEMBER,
    approver,
    close_and_issue,
    drafts_of,
    findings,
    preparer,
    reprice,
    through_review,
)


def run() -> None:
    """Prints who it was, and what was issued: the states and totals of all documents, in their order."""
    account = _account()
    september = _september(account)
    _credits(account, september)
    _a_void_draft(account)
    _a_reduction(account)
    _tasks()
    assert findings(SEPTEMBER, OCTOBER, NOVEMBER) == [], findings(SEPTEMBER, OCTOBER, NOVEMBER)
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        [(role,)] = cursor.fetchall()
    documents = Invoice.objects.order_by("id")
    print(role, *(f"{each.credit_kind or each.kind}:{each.state}:{each.total.normalize():f}" for each in documents))


def make_leak(key: str) -> None:
    """A closed call whose provider has put our key into its error."""
    make_call(make_account("leaky"), error_code=f"bad {key}")


def _account() -> Account:
    account = make_account("monthly")
    make_profile(account)
    key, _ = create_key(account, name="another")
    revoke_key(key)
    return account


def _september(account: Account) -> Invoice:
    """A call of 100 USD and one that was lost, which is decided."""
    price = make_price(input="100")
    make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=1_000_000)
    how: dict[str, Any] = {
        "status": UsageStatus.ESTIMATED,
        "usage_source": UsageSource.ESTIMATED,
        "outcome": CallOutcome.LOST,
    }
    lost = make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=100, is_billable=False, **how)
    decide_call(lost.pk, counts=TokenCounts(500_000, 0), is_billable=True, reason="their log", user=approver())
    close_month(SEPTEMBER, account=account)
    [september] = drafts_of(account)
    submit(september.pk, user=preparer())
    send_back(september.pk, user=approver(), reason="look again")
    issued = through_review(september)
    mark_paid(issued.pk, user=approver(), paid_on=timezone.now().date())
    return issued


def _credits(account: Account, september: Invoice) -> None:
    """Goodwill of 10, then all of it is billed again with October's run."""
    [line] = september.lines.all()
    through_review(credit(september.pk, user=approver(), reason="an outage", amounts={line.pk: Decimal(10)}))
    through_review(credit_and_bill_again(september.pk, user=approver(), reason="another address"))
    close_and_issue(account, OCTOBER)


def _a_void_draft(account: Account) -> None:
    make_call(account, day=date(2025, 11, 3), price=make_price("gpt-5", input="1"), model="gpt-5", prompt_tokens=10**6)
    close_month(NOVEMBER, account=account)
    [draft] = drafts_of(account)
    submit(draft.pk, user=preparer())
    approve(draft.pk, user=approver())
    void(draft.pk, user=approver(), reason="not agreed")


def _a_reduction(account: Account) -> None:
    """September's calls are priced again, and cost less than was billed of them."""
    reprice("60")
    assert UsageAdjustment.objects.exclude(rerating=None).exists()
    close_and_issue(account, NOVEMBER)
    assert not Invoice.objects.filter(state=InvoiceState.DRAFT).exists()


def _tasks() -> None:
    """The nightly ones, and those of each few minutes."""
    for task in (refresh_rollups, reap_lost_calls, prune_windows, prune_outbox, prune_sign_in_counts, close_due_months):
        task()
    earlier = list(BooksCheck.objects.values_list("pk", flat=True))
    for _ in range(2):
        verify_books()
    checks = BooksCheck.objects.exclude(pk__in=earlier)
    assert list(checks.values_list("problems", flat=True)) == [0, 0], checks.values("findings")

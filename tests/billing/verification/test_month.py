"""What `verify_books --month` finds: everything is reckoned again from the calls."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from billing.invoices.closing import close_month
from billing.invoices.drafting import draft_invoice
from billing.invoices.review import approve, issue, submit
from billing.models import AccountDay, BilledUsage, DailyUsage, Invoice, InvoiceLine, InvoiceSeries
from billing.periods import BillingPeriod
from billing.verification import verify_month
from llm.db.triggers import drop_triggers, install_triggers
from llm.enums import AdjustmentSource
from llm.models import Usage
from tests.billing.calls import adjust_call, make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.people import make_approver, make_preparer

pytestmark = [pytest.mark.slow, pytest.mark.django_db, pytest.mark.usefixtures("every_month_is_over")]

OCTOBER = BillingPeriod.parse("2026-10")
NOVEMBER = OCTOBER.following


def issue_month(period: BillingPeriod, name: str) -> Invoice:
    close_month(period)
    draft = Invoice.objects.get(period_start=period.start)
    submit(draft.pk, user=make_preparer(f"pre-{name}"))
    approver = make_approver(f"app-{name}")
    approve(draft.pk, user=approver)
    return issue(draft.pk, user=approver)


@pytest.fixture
def books() -> Usage:
    """October was issued, then a call came late and another was corrected, and both were submitted in November."""
    account = make_account()
    make_profile(account, tax_percent=Decimal(19))
    price = make_price("gpt-4o", input="2.50", output="10", cache_read="1.25")
    call = make_call(account, price=price, prompt_tokens=123_457, cache_read_tokens=77, completion_tokens=999)
    make_call(account, price=price, prompt_tokens=1, completion_tokens=1)
    issue_month(OCTOBER, "october")
    make_call(account, price=price, prompt_tokens=5_000_000)
    adjust_call(call, AdjustmentSource.PROVIDER, prompt_tokens=-57, cost=Decimal("-0.0001425"))
    make_call(account, price=price, day=date(2026, 11, 2), prompt_tokens=10)
    close_month(NOVEMBER)
    submit(Invoice.objects.get(period_start=NOVEMBER.start).pk, user=make_preparer("pre-november"))
    drop_triggers(connection)
    return call


def findings(period: BillingPeriod = OCTOBER) -> list[str]:
    return verify_month(period).sentences


def test_good_books_have_no_findings(books: Usage) -> None:
    october, november = verify_month(OCTOBER), verify_month(NOVEMBER)
    assert (october.sentences, november.sentences) == ([], [])
    assert (october.windows, october.rows) == (1, 3)
    assert (november.windows, november.rows) == (1, 1)


def test_a_call_that_was_changed_is_named_with_both_figures(books: Usage) -> None:
    Usage.objects.filter(pk=books.pk).update(prompt_tokens=123_458)
    assert "Acme, 2026-10: openai gpt-4o at rates" in findings()[0]
    assert "5,123,401 prompt_tokens are billed, but its calls come to 5,123,402" in findings()[0]


def test_a_call_whose_digest_alone_differs_is_found(books: Usage) -> None:
    Usage.objects.filter(pk=books.pk).update(digest_3=12345)
    [sentence] = findings()
    assert sentence.endswith("its calls are not the ones that were billed, although their figures agree.")


def test_a_line_that_was_changed_is_found_three_ways(books: Usage) -> None:
    InvoiceLine.objects.filter(invoice__period_start=OCTOBER.start, meter="output").update(amount=Decimal("0.02"))
    found = " ".join(findings())
    assert "its content no longer matches the submitted digest" in found
    assert "its lines come to" in found
    assert "line 3" in found


def test_a_line_at_another_price_is_found(books: Usage) -> None:
    line = InvoiceLine.objects.get(invoice__period_start=OCTOBER.start, meter="output")
    InvoiceLine.objects.filter(pk=line.pk).update(exact_amount=line.exact_amount + 1, amount=line.amount + 1)
    assert any("is billed at" in sentence for sentence in findings())


def test_usage_that_was_billed_and_is_gone_is_found(books: Usage) -> None:
    BilledUsage.objects.filter(invoice__period_start=OCTOBER.start).update(calls=7)
    assert any("8 calls are billed, but its calls come to 3" in sentence for sentence in findings())


def test_a_gap_in_the_numbers_is_found(books: Usage) -> None:
    InvoiceSeries.objects.update(last_number=2)
    [sentence] = findings()
    assert sentence.startswith("Series INV-")
    assert "2 numbers assigned, 1 invoice numbered" in sentence


def test_an_invoice_that_skipped_a_state_is_found(books: Usage) -> None:
    Invoice.objects.filter(period_start=OCTOBER.start).update(state="paid", paid_on=date(2026, 11, 24))
    label = Invoice.objects.get(period_start=OCTOBER.start).label
    assert findings() == [
        f"{label}: its history does not end in its current state.",
        f"{label}: its number or its dates don't match its history.",
        f"{label}: it is marked as paid, but 0.38 USD are outstanding.",
    ]


def test_a_day_whose_sums_over_all_accounts_are_wrong_is_named(books: Usage) -> None:
    AccountDay.objects.update(prompt_tokens=1)
    days = sorted(DailyUsage.objects.filter(local_day__lt=NOVEMBER.start).values_list("local_day", flat=True))
    assert findings() == [
        f"{day}: the totals over all accounts don't match that day's rows; reports are wrong until “manage.py "
        f"rebuild_rollups --from {day} --to {day}” has run."
        for day in days
    ]
    assert len(days) == 1


def test_the_command_tells_and_fails(books: Usage, capsys: pytest.CaptureFixture[str]) -> None:
    install_triggers()
    call_command("verify_books", "--month", "2026-10")
    assert capsys.readouterr().out == "1 invoice of 2026-10 and the 3 calls behind it: no problems found.\n"
    InvoiceSeries.objects.update(last_number=2)
    with pytest.raises(CommandError, match="1 problem in 1 invoice of 2026-10"):
        call_command("verify_books", "--month", "2026-10")
    with pytest.raises(CommandError, match="is not a month"):
        call_command("verify_books", "--month", "10/2026")


def test_what_came_late_without_any_figure_is_in_order(books: Usage) -> None:
    """A call that used nothing and a correction by nothing are on no line, but in what December bills of October."""
    december = NOVEMBER.following
    make_call(books.account, price=books.price)
    adjust_call(books, AdjustmentSource.DECISION)
    make_call(books.account, price=books.price, day=date(2026, 12, 1), prompt_tokens=10)
    draft = draft_invoice(books.account, december)
    assert draft is not None
    submit(draft.pk, user=make_preparer("pre-december"))
    assert sum(row.calls for row in BilledUsage.objects.filter(invoice=draft, period_start=OCTOBER.start)) == 1
    assert not draft.lines.filter(period_start=OCTOBER.start).exists()
    assert findings() == []

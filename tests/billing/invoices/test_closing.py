"""The end of a month, account by account, in each one's own time."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing.enums import CreditKind, InvoiceKind, InvoiceState
from billing.errors import NotBillableError
from billing.invoices import closing
from billing.invoices.closing import close_due_months, close_month, last_ended
from billing.invoices.crediting import credit
from billing.invoices.drafting import draft_invoices
from billing.invoices.reductions import accounts_to_look_at
from billing.invoices.review import approve, issue, submit, void
from billing.models import BilledUsage, Invoice, InvoiceEvent, InvoiceLine, Plan, RollupMark
from billing.periods import BillingPeriod
from billing.plans import add_version
from billing.rollup import FIRST_DAY, refresh
from llm.enums import AccountStatus
from llm.models import Account, ApiKey, Price
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.months import reprice
from tests.billing.people import make_approver, make_preparer

pytestmark = pytest.mark.django_db

OCTOBER = BillingPeriod.parse("2026-10")
AFTER_OCTOBER = datetime(2026, 11, 3, tzinfo=UTC)


def issued(account: Account, period: BillingPeriod = OCTOBER) -> Invoice:
    close_month(period, account=account)
    invoice = Invoice.objects.get(account=account, period_start=period.start, state=InvoiceState.DRAFT)
    number = Invoice.objects.count()
    submit(invoice.pk, user=make_preparer(f"p{number}"))
    approver = make_approver(f"a{number}")
    approve(invoice.pk, user=approver)
    return issue(invoice.pk, user=approver)


def test_each_account_with_something_to_bill_gets_a_draft() -> None:
    price = make_price()
    busy, idle = make_account("Busy"), make_account("Idle")
    make_call(busy, price=price, prompt_tokens=1_000_000)
    report = close_month(OCTOBER)
    assert (report.drafted, report.empty, report.kept, report.failed) == ([busy.name], [idle.name], [], [])
    assert close_month(OCTOBER).drafted == [busy.name]
    assert Invoice.objects.get().total == Decimal(2)


def test_what_was_submitted_is_kept() -> None:
    account = make_account()
    price = make_price()
    make_call(account, price=price, prompt_tokens=1_000_000)
    invoice = issued(account)
    make_call(account, price=price, prompt_tokens=1_000_000)
    assert close_month(OCTOBER).kept == [account.name]
    invoice.refresh_from_db()
    assert invoice.total == Decimal(2)


def test_one_account_that_cannot_be_billed_stops_no_other() -> None:
    price = make_price()
    good, bad = make_account("Good"), make_account("Bad")
    make_profile(bad, currency="EUR")
    for account in (good, bad):
        make_call(account, price=price, prompt_tokens=1_000_000)
    report = close_month(OCTOBER)
    assert report.drafted == ["Good"]
    [(name, why)] = report.failed
    assert name == "Bad"
    assert "the profile bills in EUR" in why


@pytest.mark.slow
def test_accounts_that_are_closed_together_each_owe_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "ACCOUNTS_AT_A_TIME", 20)
    price = make_price()
    accounts = [make_account(f"Account {number:02}") for number in range(23)]
    for number, account in enumerate(accounts):
        make_call(account, price=price, prompt_tokens=number * 1_000_000)
    steps: list[tuple[int, int]] = []
    report = close_month(OCTOBER, on_progress=lambda done, of: steps.append((done, of)))
    assert (report.drafted, report.empty) == ([account.name for account in accounts[1:]], [accounts[0].name])
    assert steps == [(20, 23), (23, 23)]
    totals = dict(Invoice.objects.values_list("account__name", "total"))
    assert totals == {account.name: Decimal(2 * number) for number, account in enumerate(accounts) if number}
    assert close_month(OCTOBER).drafted == report.drafted
    assert dict(Invoice.objects.values_list("account__name", "total")) == totals
    assert InvoiceLine.objects.count() == BilledUsage.objects.count() == InvoiceEvent.objects.count() == 22


@pytest.mark.slow
def test_late_usage_goes_to_the_account_that_had_it() -> None:
    price = make_price()
    punctual, late = make_account("Punctual"), make_account("Late")
    for account in (punctual, late):
        make_call(account, price=price, prompt_tokens=1_000_000)
        issued(account)
        make_call(account, day=date(2026, 11, 5), price=price, prompt_tokens=1_000_000)
    make_call(late, price=price, prompt_tokens=3_000_000)
    close_month(OCTOBER.following)
    november = Invoice.objects.filter(period_start=OCTOBER.end)
    assert dict(november.values_list("account__name", "total")) == {"Punctual": Decimal(2), "Late": Decimal(8)}


def test_ten_accounts_are_closed_in_as_many_queries_as_one() -> None:
    price = make_price()
    for number in range(10):
        account = make_account(f"Account {number}")
        make_profile(account)
        make_call(account, price=price, prompt_tokens=1_000_000)
    refresh()
    accounts = list(Account.objects.select_related("billing_profile"))
    with CaptureQueriesContext(connection) as for_one:
        draft_invoices(accounts[:1], OCTOBER)
    with CaptureQueriesContext(connection) as for_nine:
        draft_invoices(accounts[1:], OCTOBER)
    assert len(for_nine) == len(for_one)
    assert Invoice.objects.count() == 10


@pytest.mark.parametrize(
    ("zone", "moment", "expected"),
    [
        ("UTC", "2026-11-01T05:59", "2026-09"),
        ("UTC", "2026-11-01T06:00", "2026-10"),
        ("Pacific/Kiritimati", "2026-10-31T15:59", "2026-09"),
        ("Pacific/Kiritimati", "2026-10-31T16:00", "2026-10"),
        ("America/New_York", "2026-11-01T09:59", "2026-09"),
        ("America/New_York", "2026-11-01T10:00", "2026-10"),
    ],
)
def test_a_month_is_over_where_the_account_is(zone: str, moment: str, expected: str) -> None:
    account = Account(name="x", time_zone=zone)
    assert str(last_ended(account, datetime.fromisoformat(moment).replace(tzinfo=UTC))) == expected


def test_due_months_are_drafted_once_they_have_ended() -> None:
    account = make_account()
    price = make_price()
    for day in (date(2026, 9, 30), date(2026, 10, 1), date(2026, 11, 1)):
        make_call(account, day=day, price=price, prompt_tokens=1_000_000)
    close_due_months(now=AFTER_OCTOBER)
    assert [str(invoice.period) for invoice in Invoice.objects.order_by("period_start")] == ["2026-09", "2026-10"]
    assert close_due_months(now=AFTER_OCTOBER).drafted == [account.name] * 2
    assert Invoice.objects.count() == 2


def test_a_month_whose_invoice_was_voided_is_left_to_people() -> None:
    account = make_account()
    make_call(account, price=make_price(), prompt_tokens=1_000_000)
    close_due_months(now=AFTER_OCTOBER)
    void(Invoice.objects.get().pk, user=make_approver(), reason="not this one")
    assert close_due_months(now=AFTER_OCTOBER).drafted == []
    assert close_month(OCTOBER).drafted == [account.name]


def test_months_before_billing_began_are_not_drafted() -> None:
    account = make_account()
    make_profile(account, billed_from=date(2026, 10, 1))
    price = make_price()
    for day in (date(2026, 9, 30), date(2026, 10, 1)):
        make_call(account, day=day, price=price, prompt_tokens=1_000_000)
    close_due_months(now=AFTER_OCTOBER)
    assert [str(invoice.period) for invoice in Invoice.objects.all()] == ["2026-10"]


def test_a_month_is_closed_for_those_who_were_there_and_billed() -> None:
    """Fees fall due without usage, so who came later, or is billed from later on, would owe them."""
    fees = Plan.objects.create(name="Fees")
    add_version(fees, effective_from=date(2026, 1, 1), flat_fee=Decimal(9))
    there, newcomer, later, moved = (make_account(name) for name in ("There", "Newcomer", "Later", "Moved in"))
    Account.objects.filter(pk__in=(there.pk, later.pk)).update(created_at=datetime(2026, 10, 31, tzinfo=UTC))
    Account.objects.filter(pk__in=(newcomer.pk, moved.pk)).update(created_at=datetime(2026, 11, 1, tzinfo=UTC))
    for account in (there, newcomer, moved):
        make_profile(account, plan=fees)
    make_profile(later, plan=fees, billed_from=date(2026, 11, 1))
    make_call(moved, price=make_price(), prompt_tokens=1_000_000)
    report = close_month(OCTOBER)
    assert report.failed == []
    assert (report.drafted, report.empty) == ([there.name, moved.name], [newcomer.name, later.name])
    assert {invoice.account for invoice in Invoice.objects.all()} == {there, moved}
    assert close_month(OCTOBER, account=newcomer).drafted == [newcomer.name]


def months_drafted(account: Account) -> list[str]:
    drafts = Invoice.objects.filter(account=account).order_by("period_start")
    return [str(invoice.period) for invoice in drafts]


def make_fees(**terms: Any) -> Plan:
    plan = Plan.objects.create(name="Fees")
    add_version(plan, effective_from=date(2026, 1, 1), **terms)
    return plan


@pytest.mark.slow
@pytest.mark.parametrize("term", ["flat_fee", "minimum_commitment"])
def test_fees_of_every_month_since_the_plan_began_are_due(term: str) -> None:
    """The first run ever, or the first after months in which each failed."""
    account = make_account(created_at=datetime(2026, 1, 1, tzinfo=UTC))
    Account.objects.update(created_at=datetime(2026, 7, 20, tzinfo=UTC))
    plan = make_fees()
    terms: dict[str, Any] = {term: Decimal(9)}
    add_version(plan, effective_from=date(2026, 8, 1), **terms)
    make_profile(account, plan=plan, address="1 Street", email="pay@acme.example")
    close_due_months(now=datetime(2026, 12, 2, tzinfo=UTC))
    assert months_drafted(account) == ["2026-08", "2026-09", "2026-10", "2026-11"]
    flags = {str(invoice.period): "catch_up" in invoice.flags for invoice in Invoice.objects.all()}
    assert (flags["2026-08"], flags["2026-09"]) == (True, True)
    assert {invoice.total for invoice in Invoice.objects.all()} == {Decimal(9)}
    close_due_months(now=datetime(2026, 12, 2, tzinfo=UTC))
    assert Invoice.objects.count() == 4


def test_fees_are_due_from_when_the_account_has_the_plan() -> None:
    account = make_account()
    Account.objects.update(created_at=datetime(2026, 1, 20, tzinfo=UTC))
    make_profile(account, plan=make_fees(flat_fee=Decimal(9)), plan_from=date(2026, 9, 1))
    close_due_months(now=AFTER_OCTOBER)
    assert months_drafted(account) == ["2026-09", "2026-10"]


def test_a_month_that_was_voided_is_not_due_again() -> None:
    account = make_account()
    Account.objects.update(created_at=datetime(2026, 9, 1, tzinfo=UTC))
    make_profile(account, plan=make_fees(flat_fee=Decimal(9)))
    close_due_months(now=AFTER_OCTOBER)
    september = Invoice.objects.get(period_start=date(2026, 9, 1))
    void(september.pk, user=make_approver(), reason="not agreed")
    close_due_months(now=AFTER_OCTOBER)
    assert months_drafted(account) == ["2026-09", "2026-10"]


@pytest.mark.parametrize(
    ("zone", "created_at", "months"),
    [
        ("Asia/Tokyo", datetime(2026, 10, 31, 20, tzinfo=UTC), []),
        ("America/Los_Angeles", datetime(2026, 11, 1, 3, tzinfo=UTC), ["2026-10"]),
        ("UTC", datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC), ["2026-10"]),
    ],
    ids=["1 Nov 05:00 in Tokyo", "31 Oct 20:00 in Los Angeles", "31 Oct 23:59:59 in UTC"],
)
def test_an_account_owes_fees_from_the_month_of_its_birth_where_it_is(
    zone: str, created_at: datetime, months: list[str]
) -> None:
    account = make_account(time_zone=zone)
    Account.objects.update(created_at=created_at)
    make_profile(account, plan=make_fees(flat_fee=Decimal(9)))
    close_due_months(now=AFTER_OCTOBER)
    assert months_drafted(account) == months
    assert close_month(OCTOBER).drafted == ([account.name] if months else [])


def test_a_closed_account_owes_fees_until_the_month_in_which_it_was_closed() -> None:
    account = make_account(status=AccountStatus.CLOSED, closed_at=datetime(2026, 10, 12, tzinfo=UTC))
    Account.objects.update(created_at=datetime(2026, 9, 1, tzinfo=UTC))
    make_profile(account, plan=make_fees(flat_fee=Decimal(9)))
    close_due_months(now=datetime(2026, 12, 2, tzinfo=UTC))
    assert months_drafted(account) == ["2026-09", "2026-10"]


def test_the_month_of_an_account_that_was_closed_is_drafted_without_waiting_for_its_end() -> None:
    account = make_account()
    make_call(account, price=make_price(), prompt_tokens=1_000_000)
    Account.objects.update(status=AccountStatus.CLOSED, closed_at=datetime(2026, 10, 16, tzinfo=UTC))
    close_due_months(now=datetime(2026, 10, 17, tzinfo=UTC))
    assert months_drafted(account) == ["2026-10"]


@pytest.mark.parametrize(
    ("zone", "created_at", "is_new"),
    [
        ("Asia/Tokyo", datetime(2026, 9, 30, 20, tzinfo=UTC), True),
        ("Asia/Tokyo", datetime(2026, 10, 31, 20, tzinfo=UTC), False),
        ("America/Los_Angeles", datetime(2026, 11, 1, 3, tzinfo=UTC), True),
        ("America/Los_Angeles", datetime(2026, 10, 1, 3, tzinfo=UTC), False),
    ],
)
def test_a_key_is_new_in_the_month_of_the_accounts_own_days(zone: str, created_at: datetime, is_new: bool) -> None:
    account = make_account(time_zone=zone)
    make_call(account, price=make_price(), prompt_tokens=1_000_000)
    ApiKey.objects.update(created_at=created_at)
    close_month(OCTOBER)
    assert ("new_key" in Invoice.objects.get().flags) is is_new


@pytest.mark.slow
def test_late_usage_of_a_closed_account_gets_a_supplement() -> None:
    account = make_account()
    price = make_price()
    make_call(account, price=price, prompt_tokens=1_000_000)
    regular = issued(account)
    Account.objects.update(status=AccountStatus.CLOSED)
    account.refresh_from_db()
    make_call(account, price=price, prompt_tokens=500_000)
    assert close_month(OCTOBER.following).drafted == [account.name]
    supplement = Invoice.objects.get(kind=InvoiceKind.SUPPLEMENT)
    assert (supplement.period, supplement.total, supplement.plan_version) == (OCTOBER, Decimal(1), regular.plan_version)
    final = issued_supplement(supplement)
    assert final.label.endswith("-000002")
    assert close_month(OCTOBER.following).drafted == []


def issued_supplement(supplement: Invoice) -> Invoice:
    submit(supplement.pk, user=make_preparer("sam"))
    approver = make_approver("sue")
    approve(supplement.pk, user=approver)
    return issue(supplement.pk, user=approver)


def test_the_command_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    make_call(make_account(), price=make_price(), prompt_tokens=1_000_000)
    call_command("close_month", "2026-10")
    assert capsys.readouterr().out == "2026-10: 1 draft, 0 already submitted, 0 accounts with nothing to bill.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("2026-13",), "“2026-13” is not a month such as 2026-10."),
        (("9999-12",), "“9999-12” is not a month from 2000-01 to 2999-12."),
        (("2999-12",), "2999-12 has not started: its invoices can be generated once it has ended."),
        (("2026-10", "--account", "nobody"), "There is no account “nobody”."),
    ],
)
def test_the_command_refuses_what_it_does_not_know(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call_command("close_month", *arguments)
    assert not Invoice.objects.exists()


@pytest.mark.parametrize("arguments", [(), ("--account", "acme")])
def test_a_month_that_has_begun_only_in_the_far_east_is_billed_to_nobody_else(arguments: tuple[str, ...]) -> None:
    make_account("tokyo", time_zone="Asia/Tokyo")
    account = make_account("acme")
    make_profile(account, plan=Plan.objects.create(name="Flat"))
    add_version(account.billing_profile.plan, effective_from=date(2026, 1, 1), flat_fee=Decimal(49))
    with time_machine.travel(datetime(2026, 11, 30, 20, tzinfo=UTC), tick=False):
        if arguments:
            with pytest.raises(CommandError, match="2026-12 has not started"):
                call_command("close_month", "2026-12", *arguments)
        else:
            call_command("close_month", "2026-12")
    assert not Invoice.objects.exists()


# --- Reductions of issued months, whether a month is due or not -------------------------------------------------------


def october_of_2(account: Account) -> Invoice:
    price = Price.objects.order_by("id").first() or make_price()
    make_call(account, price=price, prompt_tokens=1_000_000)
    return issued(account)


def reductions() -> list[tuple[str, Decimal]]:
    found = Invoice.objects.filter(credit_kind=CreditKind.REDUCTION).order_by("id")
    return [(note.state, note.total) for note in found]


def test_a_reduction_does_not_wait_for_the_next_month() -> None:
    invoice = october_of_2(make_account())
    assert close_due_months(now=AFTER_OCTOBER).credited == []
    reprice("1", period=OCTOBER)
    assert close_due_months(now=AFTER_OCTOBER).credited == [invoice.account.name]
    assert reductions() == [("draft", Decimal(-1))]
    reprice("0.5", period=OCTOBER)
    close_due_months(now=AFTER_OCTOBER)
    assert reductions() == [("draft", Decimal("-1.5"))]
    reprice("2", period=OCTOBER)
    close_due_months(now=AFTER_OCTOBER)
    assert reductions() == [("void", Decimal("-1.5"))]


def test_only_accounts_whose_issued_months_have_changed_are_looked_at() -> None:
    busy, changed = make_account("Busy"), make_account("Changed")
    for account in (busy, changed):
        october_of_2(account)
    assert close_due_months(now=AFTER_OCTOBER).kept == []
    assert accounts_to_look_at() == set()
    # Usage of a month that isn't issued, and then of one that is.
    make_call(busy, day=date(2026, 11, 2), price=Price.objects.earliest("id"), prompt_tokens=1_000_000)
    refresh()
    assert accounts_to_look_at() == set()
    make_call(changed, price=Price.objects.earliest("id"), prompt_tokens=1_000_000)
    refresh()
    assert accounts_to_look_at() == {changed.pk}
    close_due_months(now=AFTER_OCTOBER)
    assert (accounts_to_look_at(), reductions()) == (set(), [])


def test_days_that_are_made_anew_keep_the_earliest() -> None:
    account = make_account()
    price = make_price()
    make_call(account, day=date(2026, 10, 20), price=price, prompt_tokens=1)
    refresh()
    assert RollupMark.objects.get().changed_from == FIRST_DAY
    RollupMark.objects.update(changed_from=None)
    for day, earliest in ((20, 20), (5, 5), (9, 5)):
        make_call(account, day=date(2026, 10, day), price=price, prompt_tokens=1)
        refresh()
        assert RollupMark.objects.get().changed_from == date(2026, 10, earliest)


def test_a_reduction_that_waits_is_drafted_once_it_can_be() -> None:
    """A correction holds what is left of the invoice, until it is withdrawn."""
    invoice = october_of_2(make_account())
    user = make_approver("ann")
    held = credit(invoice.pk, user=user, reason="an outage")
    reprice("1", period=OCTOBER)
    close_due_months(now=AFTER_OCTOBER)
    close_due_months(now=AFTER_OCTOBER)
    assert reductions() == []
    void(held.pk, user=user, reason="no outage")
    close_due_months(now=AFTER_OCTOBER)
    assert reductions() == [("draft", Decimal(-1))]


def test_what_goodwill_made_up_for_is_given_back_once_it_is_withdrawn() -> None:
    invoice = october_of_2(make_account())
    user = make_approver("ann")
    note = credit(invoice.pk, user=user, reason="an outage", amounts={invoice.lines.get().pk: Decimal(1)})
    submit(note.pk, user=make_preparer("pia"))
    reprice("1", period=OCTOBER)
    close_due_months(now=AFTER_OCTOBER)
    assert reductions() == []
    void(note.pk, user=user, reason="no outage")
    close_due_months(now=AFTER_OCTOBER)
    assert reductions() == [("draft", Decimal(-1))]


def test_a_reduction_that_cannot_be_computed_is_reported_and_its_draft_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    invoice = october_of_2(make_account())
    reprice("1", period=OCTOBER)
    close_due_months(now=AFTER_OCTOBER)

    def refuse(*args: object, **values: object) -> None:
        raise NotBillableError("The plan doesn't fit.")

    with monkeypatch.context() as patched:
        patched.setattr("billing.invoices.reductions.part_of_month", refuse)
        why = "The current cost of 2026-10 could not be calculated: The plan doesn't fit."
        assert close_due_months(now=AFTER_OCTOBER).failed == [(invoice.account.name, why)]
        assert (invoice.account.name, why) in close_month(OCTOBER).failed
        note = Invoice.objects.get(credit_kind=CreditKind.REDUCTION)
        with pytest.raises(NotBillableError, match="doesn't fit"):
            submit(note.pk, user=make_preparer("pia"))
        assert reductions() == [("draft", Decimal(-1))]
    reprice("2", period=OCTOBER)
    assert close_due_months(now=AFTER_OCTOBER).failed == []
    assert reductions() == [("void", Decimal(-1))]

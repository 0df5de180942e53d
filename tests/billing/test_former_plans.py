"""Months before a change of plan go by the plan of then, and months in which an account was closed have no fees."""

from __future__ import annotations

import importlib
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.apps import apps
from django.test import Client

from billing.calendar import was_open_in
from billing.enums import InvoiceKind, InvoiceState
from billing.invoices.closing import close_due_months, close_month
from billing.invoices.crediting import credit_and_bill_again
from billing.models import BillingProfile, Invoice, Plan
from billing.periods import BillingPeriod
from billing.plans import add_version, keep_former_plans, problems_of_version
from billing.verification import verify_month
from llm.enums import AccountStatus
from llm.models import Account, Price
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account, make_exchange_rate, make_invoice, make_profile
from tests.billing.months import (
    IN_SEPTEMBER,
    NOVEMBER,
    OCTOBER,
    SEPTEMBER,
    approver,
    charged,
    close_and_issue,
    findings,
    through_review,
)
from tests.pages import send

pytestmark = pytest.mark.django_db

AUGUST, DECEMBER = SEPTEMBER.previous, NOVEMBER.following
LIST = "/admin/billing/billingprofile/"


def make_plan(name: str, **terms: Any) -> Plan:
    plan = Plan.objects.create(name=name)
    add_version(plan, effective_from=date(2025, 1, 1), **terms)
    return plan


def change(profile: BillingProfile, *, since: BillingPeriod | None, **values: Any) -> None:
    """As the admin saves it."""
    before = BillingProfile.objects.get(pk=profile.pk)
    after = BillingProfile.objects.get(pk=profile.pk)
    for name, value in {**values, "plan_from": since and since.start}.items():
        setattr(after, name, value)
    after.save()
    keep_former_plans(before, after)


def plans_by_month(*months: BillingPeriod) -> list[str]:
    profile = BillingProfile.objects.get()
    return [profile.plan_in(month).name for month in months]


def test_a_month_goes_by_the_plan_that_was_in_force() -> None:
    profile = make_profile(plan=make_plan("A"))
    change(profile, plan=make_plan("B"), since=OCTOBER)
    change(profile, plan=make_plan("C"), since=DECEMBER)
    months = (SEPTEMBER, OCTOBER, NOVEMBER, DECEMBER)
    assert plans_by_month(*months) == ["A", "B", "B", "C"]
    change(profile, since=NOVEMBER)
    assert plans_by_month(*months) == ["A", "B", "C", "C"]
    change(profile, since=DECEMBER)
    assert plans_by_month(*months) == ["A", "B", "B", "C"]
    change(profile, plan=Plan.objects.get(name="A"), since=DECEMBER.following)
    assert plans_by_month(*months, DECEMBER.following) == ["A", "B", "B", "C", "A"]


@pytest.mark.parametrize(
    ("since", "expected"),
    [(SEPTEMBER, ["A", "D", "D"]), (OCTOBER, ["A", "A", "D"]), (None, ["D", "D", "D"]), (AUGUST, ["D", "D", "D"])],
)
def test_a_change_from_a_past_month_on_is_retroactive(since: BillingPeriod | None, expected: list[str]) -> None:
    profile = make_profile(plan=make_plan("A"))
    change(profile, plan=make_plan("B"), since=OCTOBER)
    change(profile, plan=make_plan("C"), since=NOVEMBER)
    change(profile, plan=make_plan("D"), since=since)
    assert plans_by_month(AUGUST, SEPTEMBER, OCTOBER) == expected


def used_in_september(**terms: Any) -> Account:
    account = make_account()
    Account.objects.update(created_at=datetime(2025, 9, 1, tzinfo=UTC))
    make_profile(account, plan=make_plan("A", **terms), address="1 Street", email="pay@acme.example")
    make_call(account, day=IN_SEPTEMBER, price=make_price(input="100"), prompt_tokens=1_000_000)
    return account


@pytest.mark.slow
def test_a_month_that_is_closed_late_is_billed_by_its_own_plan() -> None:
    account = used_in_september(markup_percent=Decimal(10))
    make_call(account, day=date(2025, 10, 5), price=Price.objects.earliest("id"), prompt_tokens=1_000_000)
    change(account.billing_profile, plan=make_plan("B", markup_percent=Decimal(50)), since=OCTOBER)
    [september] = close_and_issue(account, SEPTEMBER)
    [october] = close_and_issue(account, OCTOBER)
    assert (september.total, october.total) == (Decimal(110), Decimal(150))
    assert [each.plan_version.plan.name for each in (september, october)] == ["A", "B"]
    assert findings(SEPTEMBER, OCTOBER) == []


@pytest.mark.slow
@pytest.mark.parametrize(("since", "ends_at"), [(OCTOBER, 110), (SEPTEMBER, 150)])
def test_a_corrected_month_is_billed_again_by_the_plan_in_force_in_it(since: BillingPeriod, ends_at: int) -> None:
    """Whoever wants another one gives the profile that plan from that month on."""
    account = used_in_september(markup_percent=Decimal(10))
    [september] = close_and_issue(account, SEPTEMBER)
    change(account.billing_profile, plan=make_plan("B", markup_percent=Decimal(50)), since=since)
    through_review(credit_and_bill_again(september.pk, user=approver(), reason="wrong"))
    [october] = close_and_issue(account, OCTOBER)
    assert october.total == Decimal(ends_at)
    assert charged(account) == Decimal(ends_at)
    assert findings(SEPTEMBER, OCTOBER) == []


@pytest.mark.slow
def test_months_before_another_currency_are_billed_in_theirs() -> None:
    account = used_in_september()
    [september] = close_and_issue(account, SEPTEMBER)
    make_call(account, day=date(2025, 10, 5), price=Price.objects.earliest("id"), prompt_tokens=1_000_000)
    make_call(account, day=date(2025, 11, 5), price=Price.objects.earliest("id"), prompt_tokens=1_000_000)
    make_exchange_rate("EUR", "0.5", on=date(2025, 1, 1))
    change(account.billing_profile, plan=make_plan("B", currency="EUR"), currency="EUR", since=NOVEMBER)
    through_review(credit_and_bill_again(september.pk, user=approver(), reason="wrong"))
    [october] = close_and_issue(account, OCTOBER)
    [november] = close_and_issue(account, NOVEMBER)
    assert [(each.currency, each.total) for each in (october, november)] == [
        ("USD", Decimal(200)),
        ("EUR", Decimal(50)),
    ]
    assert findings(SEPTEMBER, OCTOBER, NOVEMBER) == []


def test_a_version_in_another_currency_is_refused_where_a_former_month_goes_by_it() -> None:
    profile = make_profile(plan=make_plan("A"))
    change(profile, plan=make_plan("B"), since=OCTOBER)
    version = Plan.objects.get(name="A").versions.get()
    version.currency = "EUR"
    assert problems_of_version(version) == ["Accounts with this plan are billed in a currency other than EUR."]
    version.effective_from = OCTOBER.start
    assert problems_of_version(version) == []


def months_drafted() -> dict[str, int]:
    return {str(each.period): int(each.total) for each in Invoice.objects.order_by("period_start")}


def test_fees_of_former_plans_are_due() -> None:
    account = make_account()
    Account.objects.update(created_at=datetime(2025, 8, 10, tzinfo=UTC))
    profile = make_profile(account, plan=make_plan("A", flat_fee=Decimal(5)), plan_from=SEPTEMBER.start)
    change(profile, plan=make_plan("B", flat_fee=Decimal(9)), since=NOVEMBER)
    change(profile, plan=make_plan("C"), since=DECEMBER)
    close_due_months(now=datetime(2026, 1, 2, tzinfo=UTC))
    assert months_drafted() == {"2025-09": 5, "2025-10": 5, "2025-11": 9}
    assert all("catch_up" in each.flags for each in Invoice.objects.all())


def test_the_admin_keeps_the_former_plan(admin_client: Client) -> None:
    profile = make_profile(plan=make_plan("A"))
    page = f"{LIST}{profile.pk}/change/"
    fields = {"legal_name": "Acme", "tax_percent": "0", "currency": "USD", "payment_days": "30", "time_zone": "UTC"}
    send(admin_client, page, {**fields, "plan": make_plan("B").pk, "plan_from": "2025-10-01"})
    assert plans_by_month(SEPTEMBER, OCTOBER) == ["A", "B"]
    send(admin_client, page, {**fields, "plan": Plan.objects.get(name="B").pk, "plan_from": "2025-11-01"})
    assert plans_by_month(SEPTEMBER, OCTOBER, NOVEMBER) == ["A", "A", "B"]
    send(
        admin_client,
        page,
        {**fields, "legal_name": "Acme Ltd", "plan": Plan.objects.get(name="B").pk, "plan_from": "2025-11-01"},
    )
    assert plans_by_month(SEPTEMBER, OCTOBER, NOVEMBER) == ["A", "A", "B"]


def test_what_an_account_was_billed_by_shows_its_former_plans() -> None:
    profile = make_profile(plan=make_plan("A"))
    for month, name in ((SEPTEMBER, "A"), (NOVEMBER, "B"), (DECEMBER, "B")):
        plan = Plan.objects.filter(name=name).first() or make_plan(name)
        make_invoice(
            profile,
            plan_version=plan.versions.get(),
            period_start=month.start,
            state=InvoiceState.ISSUED,
            number=month.start.month,
        )
    BillingProfile.objects.update(plan=make_plan("C"), plan_from=date(2026, 2, 1))
    migration = importlib.import_module("billing.migrations.0011_former_plans")
    migration.former_plans_of_invoices(apps, None)
    january = DECEMBER.following
    months = (SEPTEMBER, OCTOBER, NOVEMBER, DECEMBER, january, january.following)
    assert plans_by_month(*months) == ["A", "A", "B", "B", "B", "C"]


# --- Accounts that were closed ----------------------------------------------------------------------------------------


def reopened(zone: str = "UTC") -> Account:
    """Closed on 12 September, opened again on 3 December, both at 03:00 in UTC."""
    account = make_account(time_zone=zone)
    closures = [["2025-09-12T03:00:00+00:00", "2025-12-03T03:00:00+00:00"]]
    Account.objects.update(created_at=datetime(2025, 8, 10, tzinfo=UTC), former_closures=closures)
    make_profile(account, plan=make_plan("A", flat_fee=Decimal(5)))
    account.refresh_from_db()
    return account


@pytest.mark.slow
def test_no_fees_are_due_for_months_in_which_an_account_was_closed() -> None:
    account = reopened()
    close_due_months(now=datetime(2026, 1, 2, tzinfo=UTC))
    assert months_drafted() == {"2025-08": 5, "2025-09": 5, "2025-12": 5}
    assert close_month(OCTOBER).drafted == []
    assert close_month(OCTOBER, account=account).drafted == []
    assert Invoice.objects.count() == 3


def test_calls_that_came_in_a_month_of_closure_are_billed() -> None:
    account = reopened()
    make_call(account, day=date(2025, 10, 1), price=make_price(input="100"), prompt_tokens=1_000_000)
    close_month(OCTOBER, account=account)
    assert Invoice.objects.get().kind == InvoiceKind.REGULAR


@pytest.mark.parametrize(
    ("zone", "closed_at", "opened_at", "is_open"),
    [
        ("UTC", "2025-09-30T23:59:00+00:00", "2025-11-01T00:00:00+00:00", False),
        ("UTC", "2025-10-01T00:00:00+00:00", "2025-11-01T00:00:00+00:00", True),
        ("UTC", "2025-09-30T23:59:00+00:00", "2025-10-31T23:59:00+00:00", True),
        ("Asia/Tokyo", "2025-09-30T20:00:00+00:00", "2025-11-01T00:00:00+00:00", True),
        ("America/Los_Angeles", "2025-10-01T03:00:00+00:00", "2025-11-01T08:00:00+00:00", False),
        ("America/Los_Angeles", "2025-10-01T03:00:00+00:00", "2025-11-01T03:00:00+00:00", True),
    ],
)
def test_a_closure_is_of_the_accounts_own_days(zone: str, closed_at: str, opened_at: str, is_open: bool) -> None:
    account = make_account(time_zone=zone, former_closures=[[closed_at, opened_at]])
    assert was_open_in(account, OCTOBER) is is_open


def test_the_admin_notes_when_an_account_was_closed(admin_client: Client) -> None:
    account = make_account()
    for action in ("close", "activate", "suspend", "activate", "close", "activate"):
        send(admin_client, f"/admin/llm/account/{account.pk}/action/{action}/")
    account.refresh_from_db()
    assert (account.status, account.closed_at) == (AccountStatus.ACTIVE, None)
    assert len(account.former_closures) == 2
    moments = [datetime.fromisoformat(each) for closure in account.former_closures for each in closure]
    assert moments == sorted(moments)


def test_a_closure_of_unknown_beginning_owes_nothing_until_staff_say_so(admin_client: Client) -> None:
    """Closed before that was noted, and activated in December: whether it was open in October nobody knows but they."""
    account = make_account()
    make_profile(account, plan=make_plan("A", flat_fee=Decimal(5)))
    make_call(account, day=date(2025, 9, 1), price=make_price(input="100"), prompt_tokens=1_000_000)
    Account.objects.update(created_at=datetime(2025, 8, 10, tzinfo=UTC), status=AccountStatus.CLOSED)
    send(admin_client, f"/admin/llm/account/{account.pk}/action/activate/")
    account = Account.objects.get()
    assert (account.status, [closure[0] for closure in account.former_closures]) == (AccountStatus.ACTIVE, [None])
    Account.objects.update(former_closures=[[None, "2025-12-03T03:00:00+00:00"]])
    account.refresh_from_db()
    # September was used, so it was open then.
    close_due_months(now=datetime(2026, 1, 2, tzinfo=UTC))
    assert months_drafted() == {"2025-09": 105, "2025-12": 5}
    assert close_month(OCTOBER).drafted == []
    assert verify_month(OCTOBER).sentences == []
    assert close_month(OCTOBER, account=account).drafted == [account.name]
    assert close_due_months(now=datetime(2026, 1, 2, tzinfo=UTC)).drafted == [account.name] * 3
    assert months_drafted() == {"2025-09": 105, "2025-10": 5, "2025-12": 5}

"""An account's time zone changes with a month."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from billing import timezones
from billing.calendar import first_month
from billing.enums import InvoiceState
from billing.invoices.blockers import find_blockers
from billing.invoices.closing import close_due_months, close_month
from billing.invoices.parties import bill_to_of
from billing.invoices.review import submit
from billing.models import BillingProfile, Invoice, Plan
from billing.periods import BillingPeriod
from billing.plans import add_version
from billing.timezones import apply_time_zones, set_time_zone, zone_of_month
from llm.enums import AccountStatus
from llm.models import Account, ApiKey
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account, make_invoice, make_profile
from tests.billing.people import make_preparer

pytestmark = pytest.mark.django_db

YEAR_ENDS = datetime(2026, 12, 31, 20, tzinfo=UTC)
"""The new year has begun in Kathmandu, in New York it is afternoon."""


@pytest.mark.parametrize(
    ("present", "wanted", "since"),
    [
        ("Asia/Kathmandu", "UTC", date(2027, 2, 1)),
        ("America/New_York", "UTC", date(2027, 1, 1)),
        ("UTC", "UTC", None),
    ],
)
def test_a_zone_holds_from_the_next_month_of_the_present_zone_on(present: str, wanted: str, since: date | None) -> None:
    account = make_account(time_zone=present)
    profile = make_profile(account)
    set_time_zone(profile.pk, wanted, now=YEAR_ENDS)
    profile.refresh_from_db()
    account.refresh_from_db()
    assert (profile.time_zone, profile.time_zone_from, account.time_zone) == (wanted, since, present)


def test_a_zone_that_is_changed_meanwhile_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the query for what is due and the lock, somebody asks for another zone."""
    profile = make_profile(make_account(time_zone="UTC"))
    set_time_zone(profile.pk, "Asia/Kathmandu", now=YEAR_ENDS)
    later = datetime(2027, 1, 5, tzinfo=UTC)
    lock = timezones._locked

    def change_then_lock(profile_id: int) -> BillingProfile:
        monkeypatch.setattr(timezones, "_locked", lock)
        set_time_zone(profile_id, "America/New_York", now=later)
        return lock(profile_id)

    monkeypatch.setattr(timezones, "_locked", change_then_lock)
    assert apply_time_zones(now=later) == 0
    profile.refresh_from_db()
    assert (profile.account.time_zone, profile.time_zone) == ("UTC", "America/New_York")
    assert zone_of_month(profile, BillingPeriod.of(date(2027, 1, 1))) == "UTC"
    assert apply_time_zones(now=datetime(2027, 2, 2, tzinfo=UTC)) == 1


def test_a_zone_that_was_taken_back_never_comes() -> None:
    profile = make_profile(make_account(time_zone="UTC"))
    set_time_zone(profile.pk, "Asia/Kathmandu", now=YEAR_ENDS)
    set_time_zone(profile.pk, "UTC", now=YEAR_ENDS)
    profile.refresh_from_db()
    assert (profile.time_zone, profile.time_zone_from) == ("UTC", None)
    assert apply_time_zones(now=datetime(2027, 3, 1, tzinfo=UTC)) == 0


def test_a_new_time_zone_holds_from_its_month_on() -> None:
    account = make_account(time_zone="UTC")
    make_profile(account, time_zone="Asia/Kathmandu", time_zone_from=date(2026, 11, 1))
    assert apply_time_zones(now=datetime(2026, 10, 31, 23, 59, tzinfo=UTC)) == 0
    account.refresh_from_db()
    assert account.time_zone == "UTC"
    assert apply_time_zones(now=datetime(2026, 11, 1, tzinfo=UTC)) == 1
    assert apply_time_zones(now=datetime(2026, 11, 1, tzinfo=UTC)) == 0
    account.refresh_from_db()
    assert account.time_zone == "Asia/Kathmandu"


def test_each_month_is_of_the_zone_that_held_in_it() -> None:
    profile = make_profile(make_account(time_zone="Asia/Kathmandu"))
    set_time_zone(profile.pk, "UTC", now=datetime(2026, 10, 15, tzinfo=UTC))
    apply_time_zones(now=datetime(2026, 11, 1, tzinfo=UTC))
    profile = set_time_zone(profile.pk, "America/New_York", now=datetime(2026, 11, 15, tzinfo=UTC))
    months = ("2026-01", "2026-10", "2026-11", "2026-12", "2027-06")
    assert [zone_of_month(profile, BillingPeriod.parse(month)) for month in months] == [
        *("Asia/Kathmandu", "Asia/Kathmandu", "UTC", "America/New_York", "America/New_York")
    ]


def test_a_change_that_was_never_applied_leaves_the_zone_that_held() -> None:
    """The job that applies changes did not run for a month."""
    profile = make_profile(make_account(time_zone="Asia/Kathmandu"))
    set_time_zone(profile.pk, "UTC", now=datetime(2026, 10, 15, tzinfo=UTC))
    profile = set_time_zone(profile.pk, "America/New_York", now=datetime(2026, 11, 15, tzinfo=UTC))
    months = ("2026-10", "2026-11", "2026-12")
    assert [zone_of_month(profile, BillingPeriod.parse(month)) for month in months] == [
        *("Asia/Kathmandu", "Asia/Kathmandu", "America/New_York")
    ]


def test_a_zone_that_was_taken_back_never_was_one_of_a_month() -> None:
    profile = make_profile(make_account(time_zone="UTC"))
    set_time_zone(profile.pk, "Asia/Kathmandu", now=datetime(2026, 10, 15, tzinfo=UTC))
    profile = set_time_zone(profile.pk, "UTC", now=datetime(2026, 10, 16, tzinfo=UTC))
    assert {zone_of_month(profile, BillingPeriod.parse(month)) for month in ("2026-09", "2026-10", "2026-11")} == {
        "UTC"
    }


def test_a_change_beside_one_just_applied_keeps_the_zone_of_the_month_before() -> None:
    """In Kiribati November has begun, and so the change was made; in Honolulu it is October for another day."""
    profile = make_profile(make_account(time_zone="Pacific/Kiritimati"))
    set_time_zone(profile.pk, "Pacific/Honolulu", now=datetime(2026, 10, 15, tzinfo=UTC))
    moment = datetime(2026, 10, 31, 12, tzinfo=UTC)
    assert apply_time_zones(now=moment) == 1
    profile = set_time_zone(profile.pk, "UTC", now=moment)
    months = ("2026-10", "2026-11")
    assert [zone_of_month(profile, BillingPeriod.parse(month)) for month in months] == ["Pacific/Kiritimati", "UTC"]


def test_a_month_that_is_closed_after_a_change_names_the_zone_of_its_days() -> None:
    account = make_account(time_zone="Asia/Kathmandu")
    profile = make_profile(account)
    price = make_price()
    for day in (date(2026, 10, 31), date(2026, 11, 1)):
        make_call(account, day=day, price=price, prompt_tokens=1_000_000)
    set_time_zone(profile.pk, "UTC", now=datetime(2026, 10, 15, tzinfo=UTC))
    apply_time_zones(now=datetime(2026, 11, 3, tzinfo=UTC))
    for month in ("2026-10", "2026-11"):
        close_month(BillingPeriod.parse(month))
    october, november = Invoice.objects.order_by("period_start")
    assert [bill_to_of(draft).time_zone for draft in (october, november)] == ["Asia/Kathmandu", "UTC"]
    frozen = submit(october.pk, user=make_preparer())
    assert frozen.bill_to["time_zone"] == "Asia/Kathmandu"


def born(created_at: datetime, *, zone: str, moves_to: str) -> Account:
    """With fees of 9.00 a month. It asks for the other zone in November, from December on."""
    account = make_account(time_zone=zone)
    Account.objects.update(created_at=created_at)
    plan = Plan.objects.create(name="Fees")
    add_version(plan, effective_from=date(2026, 1, 1), flat_fee=Decimal(9))
    profile = make_profile(account, plan=plan)
    set_time_zone(profile.pk, moves_to, now=datetime(2026, 11, 15, tzinfo=UTC))
    return account


@pytest.mark.parametrize("now", [datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 12, 3, tzinfo=UTC)])
@pytest.mark.parametrize(
    ("zone", "moves_to", "created_at", "first"),
    [
        ("Asia/Tokyo", "America/Los_Angeles", datetime(2026, 10, 31, 20, tzinfo=UTC), "2026-11"),
        ("America/Los_Angeles", "Asia/Tokyo", datetime(2026, 11, 1, 3, tzinfo=UTC), "2026-10"),
    ],
    ids=["1 Nov 05:00 in Tokyo", "31 Oct 20:00 in Los Angeles"],
)
def test_the_month_of_birth_is_that_of_the_zone_of_then(
    zone: str, moves_to: str, created_at: datetime, first: str, now: datetime
) -> None:
    account = born(created_at, zone=zone, moves_to=moves_to)
    close_due_months(now=now)
    account = Account.objects.get()
    assert account.time_zone == (moves_to if now.month == 12 else zone)
    assert str(first_month(account)) == first
    due = [month for month in ("2026-10", "2026-11") if first <= month <= f"2026-{now.month - 1}"]
    assert [str(invoice.period) for invoice in Invoice.objects.order_by("period_start")] == due
    assert close_month(BillingPeriod.parse("2026-10")).drafted == ([account.name] if first == "2026-10" else [])


@pytest.mark.parametrize(
    ("zone", "moves_to", "closed_at", "due"),
    [
        ("Asia/Tokyo", "America/Los_Angeles", datetime(2026, 10, 31, 20, tzinfo=UTC), ["2026-10", "2026-11"]),
        ("America/Los_Angeles", "Asia/Tokyo", datetime(2026, 11, 1, 3, tzinfo=UTC), ["2026-10"]),
    ],
)
def test_a_closure_is_of_the_day_in_the_zone_of_then(
    zone: str, moves_to: str, closed_at: datetime, due: list[str]
) -> None:
    account = born(datetime(2026, 10, 15, tzinfo=UTC), zone=zone, moves_to=moves_to)
    Account.objects.update(status=AccountStatus.CLOSED, closed_at=closed_at)
    close_due_months(now=datetime(2026, 12, 3, tzinfo=UTC))
    assert [str(each.period) for each in Invoice.objects.filter(account=account).order_by("period_start")] == due


@pytest.mark.parametrize(
    ("zone", "moves_to", "created_at", "is_new"),
    [
        ("Asia/Tokyo", "America/Los_Angeles", datetime(2026, 10, 31, 20, tzinfo=UTC), False),
        ("America/Los_Angeles", "Asia/Tokyo", datetime(2026, 11, 1, 3, tzinfo=UTC), True),
    ],
)
def test_a_key_is_new_in_the_month_of_the_zone_of_then(
    zone: str, moves_to: str, created_at: datetime, is_new: bool
) -> None:
    account = born(datetime(2026, 10, 15, tzinfo=UTC), zone=zone, moves_to=moves_to)
    make_call(account, price=make_price(), prompt_tokens=1_000_000)
    ApiKey.objects.update(created_at=created_at)
    apply_time_zones(now=datetime(2026, 12, 3, tzinfo=UTC))
    close_month(BillingPeriod.parse("2026-10"))
    assert ("new_key" in Invoice.objects.get().flags) is is_new


def test_what_was_submitted_in_its_time_is_issued_after_a_move_to_the_west() -> None:
    """At 05:00 on November 1 in Tokyo; in Los Angeles it was October then."""
    profile = make_profile(make_account(time_zone="Asia/Tokyo"))
    submitted_at = datetime(2026, 10, 31, 20, tzinfo=UTC)
    invoice = make_invoice(profile, state=InvoiceState.APPROVED, submitted_at=submitted_at)
    set_time_zone(profile.pk, "America/Los_Angeles", now=datetime(2026, 11, 15, tzinfo=UTC))
    apply_time_zones(now=datetime(2026, 12, 3, tzinfo=UTC))
    sentences = find_blockers(Invoice.objects.get(pk=invoice.pk), now=datetime(2026, 12, 4, tzinfo=UTC))
    assert [each for each in sentences if "submitted on" in each] == []

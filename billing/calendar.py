"""When a month is over: for an account, in whose own days it is counted, and for the seller, who dates documents."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from zoneinfo import ZoneInfo

from django.conf import settings
from django.utils import timezone

from billing.periods import BillingPeriod
from llm.enums import AccountStatus
from llm.models import Account


def local_date(account: Account, moment: datetime) -> date:
    """The date in the zone that the account had at that moment, which also decides the day of its calls."""
    return moment.astimezone(ZoneInfo(_zone_at(account, moment))).date()


def _zone_at(account: Account, moment: datetime) -> str:
    """Zones are recorded since the profile exists: the first recorded one also applies to the time before."""
    profile = getattr(account, "billing_profile", None)
    if profile is None or not profile.former_time_zones:
        return account.time_zone
    for until, zone in sorted(profile.former_time_zones.items()):
        if moment.astimezone(ZoneInfo(zone)).date() < date.fromisoformat(until):
            return str(zone)
    return str(profile.time_zone)


def first_month(account: Account) -> BillingPeriod:
    """The month in which the account was created: it owes no fees for earlier ones."""
    return BillingPeriod.of(local_date(account, account.created_at))


def is_over(period: BillingPeriod, account: Account, moment: datetime) -> bool:
    """Whether the period has ended, so that only calls in flight can still add usage.

    Closing an account ends its period on that day.
    """
    today = local_date(account, moment)
    return today >= period.end or (today >= period.start and is_closed_at(account, moment))


def is_closed_at(account: Account, moment: datetime) -> bool:
    """For accounts closed before `closed_at` was recorded, all we know is that they are closed."""
    return account.status == AccountStatus.CLOSED and (account.closed_at is None or account.closed_at <= moment)


def was_open_in(account: Account, period: BillingPeriod) -> bool:
    """Whether the account was open on some day of the period.

    A closure of unknown start counts from the beginning: only what is known to be owed is charged.
    """
    return not any(_covers(account, closed_at, opened_at, period) for closed_at, opened_at in _closures(account))


def may_have_been_open_in(account: Account, period: BillingPeriod) -> bool:
    """Like `was_open_in`, ignoring former closures of unknown start: staff know whether the account was open."""
    known = (each for each in _closures(account) if each[0] is not None or each[1] is None)
    return not any(_covers(account, closed_at, opened_at, period) for closed_at, opened_at in known)


def _closures(account: Account) -> Iterator[tuple[datetime | None, datetime | None]]:
    """(closed at, reopened at); None if unknown, or not reopened."""
    for closed_at, opened_at in account.former_closures:
        yield None if closed_at is None else datetime.fromisoformat(closed_at), datetime.fromisoformat(opened_at)
    if account.status == AccountStatus.CLOSED:
        yield account.closed_at, None


def _covers(account: Account, closed_at: datetime | None, opened_at: datetime | None, period: BillingPeriod) -> bool:
    starts_before = closed_at is None or local_date(account, closed_at) < period.start
    return starts_before and (opened_at is None or local_date(account, opened_at) >= period.end)


def sellers_date(moment: datetime | None = None) -> date:
    """The date where the seller is, which documents carry wherever the customer is."""
    return (moment or timezone.now()).astimezone(ZoneInfo(settings.BILLING_SELLER_TIME_ZONE)).date()

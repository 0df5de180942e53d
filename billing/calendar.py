"""When a month is over: for an account, whose own days it consists of, and for the seller, who dates documents."""

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
    """In the zone that the account had at that moment, in which its calls have their days too."""
    return moment.astimezone(ZoneInfo(_zone_at(account, moment))).date()


def _zone_at(account: Account, moment: datetime) -> str:
    """Zones are kept since there has been a profile: whatever was set before it has held from the beginning."""
    profile = getattr(account, "billing_profile", None)
    if profile is None or not profile.former_time_zones:
        return account.time_zone
    for until, zone in sorted(profile.former_time_zones.items()):
        if moment.astimezone(ZoneInfo(zone)).date() < date.fromisoformat(until):
            return str(zone)
    return str(profile.time_zone)


def first_month(account: Account) -> BillingPeriod:
    """In which the account was created: before it, it owes no fees."""
    return BillingPeriod.of(local_date(account, account.created_at))


def is_over(period: BillingPeriod, account: Account, moment: datetime) -> bool:
    """Whether nothing more can be used in the period but by calls that are in flight.

    An account that is closed ends its period that day.
    """
    today = local_date(account, moment)
    return today >= period.end or (today >= period.start and is_closed_at(account, moment))


def is_closed_at(account: Account, moment: datetime) -> bool:
    """Of accounts that were closed before that was noted, only that they are closed is known."""
    return account.status == AccountStatus.CLOSED and (account.closed_at is None or account.closed_at <= moment)


def was_open_in(account: Account, period: BillingPeriod) -> bool:
    """Whether the account was open on some day of the period.

    A closure whose beginning is unknown counts from the beginning: nothing is owed that can't be known.
    """
    return not any(_covers(account, closed_at, opened_at, period) for closed_at, opened_at in _closures(account))


def may_have_been_open_in(account: Account, period: BillingPeriod) -> bool:
    """As `was_open_in`, without former closures whose beginning is unknown: staff know whether it was."""
    known = (each for each in _closures(account) if each[0] is not None or each[1] is None)
    return not any(_covers(account, closed_at, opened_at, period) for closed_at, opened_at in known)


def _closures(account: Account) -> Iterator[tuple[datetime | None, datetime | None]]:
    """(when it was closed, when it was opened again), None where that is unknown, or didn't happen yet."""
    for closed_at, opened_at in account.former_closures:
        yield None if closed_at is None else datetime.fromisoformat(closed_at), datetime.fromisoformat(opened_at)
    if account.status == AccountStatus.CLOSED:
        yield account.closed_at, None


def _covers(account: Account, closed_at: datetime | None, opened_at: datetime | None, period: BillingPeriod) -> bool:
    starts_before = closed_at is None or local_date(account, closed_at) < period.start
    return starts_before and (opened_at is None or local_date(account, opened_at) >= period.end)


def sellers_date(moment: datetime | None = None) -> date:
    """The day on which the seller is: documents bear it, wherever the customer is."""
    return (moment or timezone.now()).astimezone(ZoneInfo(settings.BILLING_SELLER_TIME_ZONE)).date()

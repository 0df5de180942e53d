"""When a month is over: for an account, whose own days it consists of, and for the seller, who dates documents."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

from django.conf import settings
from django.utils import timezone

from billing.periods import Period
from llm.enums import AccountStatus
from llm.models import Account


def local_date(account: Account, moment: datetime) -> date:
    """Of the account's time zone, in which its calls have their days too."""
    return moment.astimezone(ZoneInfo(account.time_zone)).date()


def first_month(account: Account) -> Period:
    """In which the account was created: before it, it owes no fees."""
    return Period.of(local_date(account, account.created_at))


def is_over(period: Period, account: Account, moment: datetime) -> bool:
    """Whether nothing more can be used in the period but by calls that are in flight.

    An account that is closed ends its period that day.
    """
    today = local_date(account, moment)
    return today >= period.end or (today >= period.start and is_closed_at(account, moment))


def is_closed_at(account: Account, moment: datetime) -> bool:
    """Of accounts that were closed before that was noted, only that they are closed is known."""
    return account.status == AccountStatus.CLOSED and (account.closed_at is None or account.closed_at <= moment)


def was_open_in(account: Account, period: Period) -> bool:
    """Whether a closed account was still open when the period began."""
    return account.closed_at is not None and period.start <= local_date(account, account.closed_at)


def sellers_date(moment: datetime | None = None) -> date:
    """The day on which the seller is: documents bear it, wherever the customer is."""
    return (moment or timezone.now()).astimezone(ZoneInfo(settings.BILLING_SELLER_TIME_ZONE)).date()

"""An account's time zone changes with a month: in between, a day could be in two months, or in none."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from billing.models import BillingProfile
from billing.periods import BillingPeriod
from llm.models import Account


@transaction.atomic
def set_time_zone(profile_id: int, time_zone: str, *, now: datetime | None = None) -> BillingProfile:
    """Ask for a zone of the IANA database; it holds from the next month of the account's present zone on.

    `time_zone_from` is None where that is the account's zone already. What holds until then is kept for good: months
    are billed after they have ended, by when the account may have a new zone.
    """
    profile = _locked(profile_id)
    is_to_come = time_zone != profile.account.time_zone
    today = _today_of(profile.account, now or timezone.now())
    since = BillingPeriod.of(today).following.start
    profile.time_zone = time_zone
    profile.time_zone_from = since if is_to_come else None
    if is_to_come:
        # A second change to the same day takes over from the same zone, also where the first has been applied.
        profile.former_time_zones.setdefault(since.isoformat(), profile.account.time_zone)
    profile.save(update_fields=["time_zone", "time_zone_from", "former_time_zones"])
    return profile


def zone_of_month(profile: BillingProfile, period: BillingPeriod) -> str:
    """The zone whose days the account's month consists of, whether it is past, present or to come."""
    for until, zone in sorted(profile.former_time_zones.items()):
        if period.start.isoformat() < until:
            return str(zone)
    return profile.time_zone


def apply_time_zones(*, now: datetime | None = None) -> int:
    """Give accounts the zone that their profiles ask for, where the month from which it holds has begun."""
    now = now or timezone.now()
    waiting = BillingProfile.objects.filter(time_zone_from__isnull=False).exclude(time_zone=F("account__time_zone"))
    return sum(_apply_time_zone(profile_id, now) for profile_id in list(waiting.values_list("pk", flat=True)))


@transaction.atomic
def _apply_time_zone(profile_id: int, now: datetime) -> bool:
    """Whether it was due. Locked and read again: `set_time_zone` may have asked for another zone meanwhile."""
    profile = _locked(profile_id)
    since = profile.time_zone_from
    if since is None or profile.time_zone == profile.account.time_zone or _today_of(profile.account, now) < since:
        return False
    Account.objects.filter(pk=profile.account_id).update(time_zone=profile.time_zone)
    return True


def _locked(profile_id: int) -> BillingProfile:
    """Its account is read by a later statement: one that has waited for the lock would join an outdated account."""
    return BillingProfile.objects.select_for_update().get(pk=profile_id)


def _today_of(account: Account, now: datetime) -> date:
    return now.astimezone(ZoneInfo(account.time_zone)).date()

"""An account's time zone changes at the start of a month: in between, a day could be in two months, or in none."""

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
    """Request an IANA time zone; it applies from the account's next month on, in its present zone.

    `time_zone_from` is None if that is already the account's zone. Former zones are kept for good: months are billed
    after they have ended, when the account may have a new zone.
    """
    profile = _locked(profile_id)
    is_to_come = time_zone != profile.account.time_zone
    today = _today_of(profile.account, now or timezone.now())
    since = BillingPeriod.of(today).following.start
    profile.time_zone = time_zone
    profile.time_zone_from = since if is_to_come else None
    if is_to_come:
        # A second change for the same day replaces the first and has the same former zone, also once the first was
        # applied.
        profile.former_time_zones.setdefault(since.isoformat(), profile.account.time_zone)
    profile.save(update_fields=["time_zone", "time_zone_from", "former_time_zones"])
    return profile


def zone_of_month(profile: BillingProfile, period: BillingPeriod) -> str:
    """The zone in whose days the account's month is counted, whether past, present or future."""
    for until, zone in sorted(profile.former_time_zones.items()):
        if period.start.isoformat() < until:
            return str(zone)
    return profile.time_zone


def apply_time_zones(*, now: datetime | None = None) -> int:
    """Switch accounts to the zone that their profiles request, once the month from which it applies has begun."""
    now = now or timezone.now()
    waiting = BillingProfile.objects.filter(time_zone_from__isnull=False).exclude(time_zone=F("account__time_zone"))
    return sum(_apply_time_zone(profile_id, now) for profile_id in list(waiting.values_list("pk", flat=True)))


@transaction.atomic
def _apply_time_zone(profile_id: int, now: datetime) -> bool:
    """Whether it was due. Locked and read again: `set_time_zone` may have requested another zone meanwhile."""
    profile = _locked(profile_id)
    since = profile.time_zone_from
    if since is None or profile.time_zone == profile.account.time_zone or _today_of(profile.account, now) < since:
        return False
    Account.objects.filter(pk=profile.account_id).update(time_zone=profile.time_zone)
    return True


def _locked(profile_id: int) -> BillingProfile:
    """The account is read in a later statement: after waiting for the lock, a join would return an outdated one."""
    return BillingProfile.objects.select_for_update().get(pk=profile_id)


def _today_of(account: Account, now: datetime) -> date:
    return now.astimezone(ZoneInfo(account.time_zone)).date()

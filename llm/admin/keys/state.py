"""The state of a key, as shown in lists and on pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString

from llm.admin.format import badge
from llm.models import ApiKey

SOON = timedelta(days=7)


def key_state_badge(key: ApiKey, now: datetime) -> SafeString:
    """active, ends ..., expires ..., expired or revoked, regardless of the account's state."""
    if (refusal := key.refusal_at(now)) is not None:
        return badge(refusal)
    if key.revoked_at is not None:
        return badge("ends", f"ends {_short(key.revoked_at, now)}")
    if key.expires_at is not None and key.expires_at - now <= SOON:
        return badge("expires", f"expires {_short(key.expires_at, now)}")
    return badge("active")


def _short(moment: datetime, now: datetime) -> str:
    """Time left, in its largest unit: `in 25 min`, `in 7 h`, `in 3 days`."""
    minutes = max(1, int((moment - now).total_seconds() // 60))
    if minutes < 120:
        return f"in {minutes} min"
    if minutes < 48 * 60:
        return f"in {minutes // 60} h"
    return f"in {minutes // (24 * 60)} days"


def day_and_minute(moment: datetime | None) -> str:
    return "ever" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


class KeyStateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("usable", "Active"),
            ("ending", "Ends within 7 days"),
            ("expired", "Expired"),
            ("revoked", "Revoked"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        now = timezone.now()
        usable = (Q(revoked_at=None) | Q(revoked_at__gt=now)) & (Q(expires_at=None) | Q(expires_at__gt=now))
        conditions = {
            "usable": usable,
            "ending": usable & (Q(expires_at__lte=now + SOON) | Q(revoked_at__lte=now + SOON)),
            "expired": Q(expires_at__lte=now) & (Q(revoked_at=None) | Q(revoked_at__gt=now)),
            "revoked": Q(revoked_at__lte=now),
        }
        return queryset.filter(conditions.get(self.value() or "", Q()))

"""Filters of the list of keys."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from llm.admin.keystate import SOON
from llm.models import ApiKey


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

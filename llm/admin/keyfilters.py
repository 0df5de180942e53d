"""Filters of the list of keys."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from llm.admin.keystate import SOON
from llm.models import Account, ApiKey

MOST_ACCOUNTS_LISTED = 50


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


class KeyAccountFilter(admin.SimpleListFilter):
    """The first accounts by name, and always the chosen one; others are found by searching their name."""

    title = "account"
    parameter_name = "account"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        listed = list(Account.objects.values_list("pk", "name")[:MOST_ACCOUNTS_LISTED])
        if (chosen := self._chosen()) is not None and chosen not in {pk for pk, _ in listed}:
            listed += Account.objects.filter(pk=chosen).values_list("pk", "name")
        return [(str(pk), name) for pk, name in listed]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        if self.value() is None:
            return queryset
        chosen = self._chosen()
        return queryset.none() if chosen is None else queryset.filter(account=chosen)

    def _chosen(self) -> int | None:
        value = self.value() or ""
        return int(value) if value.isdecimal() and len(value) < 19 else None

"""The filter by account, for lists of what an account owns."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from llm.admin.autocomplete import is_id
from llm.models import Account

MAX_ACCOUNTS_LISTED = 50


class AccountFilter(admin.SimpleListFilter):
    """The first accounts by name, and always the chosen one; others are found by searching their name."""

    title = "account"
    parameter_name = "account"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        listed = list(Account.objects.values_list("pk", "name")[:MAX_ACCOUNTS_LISTED])
        if (chosen := self._chosen()) is not None and chosen not in {pk for pk, _ in listed}:
            listed += Account.objects.filter(pk=chosen).values_list("pk", "name")
        return [(str(pk), name) for pk, name in listed]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() is None:
            return queryset
        chosen = self._chosen()
        return queryset.none() if chosen is None else queryset.filter(account=chosen)

    def _chosen(self) -> int | None:
        value = self.value() or ""
        return int(value) if is_id(value) else None

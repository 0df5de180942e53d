"""Issued invoices that are not paid yet, and when they are due."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from billing.enums import InvoiceKind, InvoiceState
from billing.invoices.payments import find_overdue
from billing.models import Invoice


def outstanding(invoices: QuerySet[Invoice]) -> QuerySet[Invoice]:
    return invoices.filter(state=InvoiceState.ISSUED).exclude(kind=InvoiceKind.CREDIT_NOTE)


def overdue(invoices: QuerySet[Invoice], now: datetime) -> QuerySet[Invoice]:
    return invoices.filter(pk__in=[invoice.pk for invoice in find_overdue(now=now)])


class DueFilter(admin.SimpleListFilter):
    title = "payment"
    parameter_name = "due"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("overdue", "Overdue"), ("outstanding", "Not paid yet")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Invoice]) -> QuerySet[Invoice]:
        if self.value() == "overdue":
            return overdue(queryset, timezone.now())
        return outstanding(queryset) if self.value() == "outstanding" else queryset

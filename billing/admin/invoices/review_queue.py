"""Order and filters of the review queue."""

from __future__ import annotations

from datetime import date
from typing import Any

from django.contrib import admin
from django.db.models import Case, F, IntegerField, OuterRef, Q, QuerySet, Subquery, Value, When
from django.http import HttpRequest

from billing.enums import InvoiceAction, InvoiceKind, InvoiceState
from billing.invoices.payments import find_overdue
from billing.models import Invoice, InvoiceEvent
from billing.periods import BillingPeriod

UNFLAGGED = Q(flags=[])
MAX_MONTHS = 18

_ATTENTION = (
    InvoiceState.IN_REVIEW,
    InvoiceState.APPROVED,
    InvoiceState.DRAFT,
    InvoiceState.ISSUED,
    InvoiceState.PAID,
    InvoiceState.VOID,
)
_STANDING = (InvoiceAction.RECOMPUTE, InvoiceAction.CREDIT)
"""Steps that leave an invoice in its state."""

BY_ATTENTION = (
    Case(
        *(When(state=state, then=Value(rank)) for rank, state in enumerate(_ATTENTION)), output_field=IntegerField()
    ).asc(),
    F("period_start").asc(),
    Case(When(UNFLAGGED, then=Value(1)), default=Value(0), output_field=IntegerField()).asc(),
    F("account__name").asc(),
)
"""What waits for a person first: to approve, to issue, to submit; within each the oldest month, flagged ones first."""


def with_state_since(invoices: QuerySet[Invoice]) -> QuerySet[Invoice]:
    """Adds state_since: when the invoice entered its state."""
    steps = InvoiceEvent.objects.filter(invoice=OuterRef("pk"), to_state=OuterRef("state")).exclude(
        Q(action__in=_STANDING) | Q(from_state=F("to_state"))
    )
    return invoices.annotate(state_since=Subquery(steps.order_by("-id").values("at")[:1]))


class MonthListFilter(admin.SimpleListFilter):
    title = "month"
    parameter_name = "month"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        starts = Invoice.objects.order_by("-period_start").values_list("period_start", flat=True).distinct()
        return [(f"{start:%Y-%m}", f"{start:%B %Y}") for start in starts[:MAX_MONTHS]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Invoice]) -> QuerySet[Invoice]:
        if self.value() is None:
            return queryset
        start = _month(self.value() or "")
        return queryset.none() if start is None else queryset.filter(period_start=start)


class FlaggedFilter(admin.SimpleListFilter):
    title = "flags"
    parameter_name = "flagged"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Flagged"), ("no", "Unflagged")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Invoice]) -> QuerySet[Invoice]:
        conditions = {"yes": ~UNFLAGGED, "no": UNFLAGGED}
        return queryset.filter(conditions.get(self.value() or "", Q()))


class OverdueFilter(admin.SimpleListFilter):
    title = "payment"
    parameter_name = "payment"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("overdue", "Overdue"), ("open", "Outstanding")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Invoice]) -> QuerySet[Invoice]:
        if self.value() == "overdue":
            return queryset.filter(pk__in=[invoice.pk for invoice in find_overdue()])
        if self.value() == "open":
            return queryset.filter(state=InvoiceState.ISSUED).exclude(kind=InvoiceKind.CREDIT_NOTE)
        return queryset


def _month(text: str) -> date | None:
    try:
        return BillingPeriod.parse(text).start
    except ValueError:
        return None

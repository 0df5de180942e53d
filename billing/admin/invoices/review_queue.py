"""Order and filters of the review queue."""

from __future__ import annotations

from datetime import date
from typing import Any

from django.contrib import admin
from django.db.models import Case, F, IntegerField, OuterRef, Q, QuerySet, Subquery, TextField, Value, When
from django.db.models.functions import Cast
from django.http import HttpRequest

from billing.enums import InvoiceAction, InvoiceState
from billing.invoices.flags import FLAGS
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


def with_flag(invoices: QuerySet[Invoice], code: str) -> QuerySet[Invoice]:
    """Flags are a list in JSON, which SQLite can't look into: as text, each is in quotation marks."""
    return invoices.annotate(flag_text=Cast("flags", TextField())).filter(flag_text__contains=f'"{code}"')


class FlaggedFilter(admin.SimpleListFilter):
    """Also takes the code of one flag, which links use."""

    title = "flags"
    parameter_name = "flagged"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        chosen = [(code, FLAGS[code].capitalize()) for code in FLAGS if code == request.GET.get("flagged")]
        return [("yes", "Flagged"), ("no", "Unflagged"), *chosen]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Invoice]) -> QuerySet[Invoice]:
        if self.value() in FLAGS:
            return with_flag(queryset, self.value() or "")
        conditions = {"yes": ~UNFLAGGED, "no": UNFLAGGED}
        return queryset.filter(conditions.get(self.value() or "", Q()))


def _month(text: str) -> date | None:
    try:
        return BillingPeriod.parse(text).start
    except ValueError:
        return None

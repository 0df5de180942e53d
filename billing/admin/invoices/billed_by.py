"""Which lines of which invoice bill a call: for the call's own page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Q

from billing.enums import InvoiceKind, InvoiceState
from billing.models import BilledUsage, Invoice, InvoiceLine
from billing.periods import BillingPeriod
from llm.admin.usage.corrections import CorrectedCall

MAX_LINES = 20


@dataclass(frozen=True, slots=True)
class Billed:
    """lines: those of the call's month and model. A call is in a line for each kind of token that it used."""

    invoice: Invoice
    lines: Sequence[InvoiceLine]


def find_bill(known: CorrectedCall) -> Billed | None:
    """The first invoice that bills usage at the call's rates and was computed after the call was recorded.

    None if there is none yet, or the call isn't billable.
    """
    call, rate_set_id = known.call, known.figures.rate_set_id
    if not known.figures.is_billable or call.recorded_at is None:
        return None
    month = BillingPeriod.of(call.local_day)
    billed = BilledUsage.objects.filter(
        Q(rate_set=rate_set_id) if rate_set_id else Q(rate_set=None),
        period_start=month.start,
        provider=call.provider,
        model=call.model,
        calls__gt=0,
    )
    invoice = (
        Invoice.objects.filter(
            account=call.account_id, cutoff_at__gte=call.recorded_at, pk__in=billed.values("invoice")
        )
        .exclude(state=InvoiceState.VOID)
        .exclude(kind=InvoiceKind.CREDIT_NOTE)
        .order_by("cutoff_at", "pk")
        .first()
    )
    if invoice is None:
        return None
    lines = InvoiceLine.objects.filter(
        invoice=invoice, period_start=month.start, provider=call.provider, model=call.model, calls__gt=0
    )
    return Billed(invoice, list(lines.order_by("position")[:MAX_LINES]))

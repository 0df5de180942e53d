"""Gapless invoice numbers, one series a year."""

from __future__ import annotations

from datetime import date

from django.conf import settings

from billing.enums import InvoiceKind
from billing.models import InvoiceSeries


def next_number(kind: InvoiceKind, issued_on: date) -> tuple[InvoiceSeries, int]:
    """Take the next number. Call it last in the transaction that issues: until that ends nobody else gets one.

    A transaction that fails gives its number back with everything else.
    """
    prefix = settings.BILLING_CREDIT_SERIES if kind == InvoiceKind.CREDIT_NOTE else settings.BILLING_INVOICE_SERIES
    name = f"{prefix}-{issued_on.year}"
    if not InvoiceSeries.objects.filter(pk=name).exists():
        InvoiceSeries.objects.bulk_create([InvoiceSeries(name=name)], ignore_conflicts=True)
    series = InvoiceSeries.objects.select_for_update().get(pk=name)
    series.last_number += 1
    series.save(update_fields=["last_number"])
    return series, series.last_number

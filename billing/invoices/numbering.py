"""Gapless invoice numbers, one series per year; dates never decrease as numbers increase."""

from __future__ import annotations

import re
from datetime import date
from typing import NamedTuple

from django.conf import settings

from billing.enums import InvoiceKind
from billing.models import Invoice, InvoiceSeries


class Taken(NamedTuple):
    """A number and its date."""

    series: InvoiceSeries
    number: int
    issued_on: date


def next_number(kind: InvoiceKind, today: date) -> Taken:
    """Take the next number. Call it last in the transaction that issues: other transactions wait for it.

    today: the date at the seller, or a later one if the document can't be dated earlier. The date is never before that
    of a lower number: if the last one has a later date (clock changes, or a change of the seller's time zone), the next
    one gets that date too. If the transaction fails, the number is given back.
    """
    prefix = settings.BILLING_CREDIT_SERIES if kind == InvoiceKind.CREDIT_NOTE else settings.BILLING_INVOICE_SERIES
    series = _locked_series(prefix, max(today.year, _last_year(prefix)))
    last = Invoice.objects.filter(series=series).order_by("-number").first()
    issued_on = today if last is None or last.issued_on is None else max(today, last.issued_on)
    series.last_number += 1
    series.save(update_fields=["last_number"])
    return Taken(series, series.last_number, issued_on)


def _last_year(prefix: str) -> int:
    """The latest series with numbers; 0 if there is none."""
    pattern = rf"^{re.escape(prefix)}-[0-9]{{4}}$"
    names = InvoiceSeries.objects.filter(name__regex=pattern, last_number__gt=0).values_list("name", flat=True)
    return max((int(name[-4:]) for name in names), default=0)


def _locked_series(prefix: str, year: int) -> InvoiceSeries:
    name = f"{prefix}-{year}"
    if not InvoiceSeries.objects.filter(pk=name).exists():
        InvoiceSeries.objects.bulk_create([InvoiceSeries(name=name)], ignore_conflicts=True)
    return InvoiceSeries.objects.select_for_update().get(pk=name)

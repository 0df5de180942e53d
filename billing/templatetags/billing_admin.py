"""What billing's admin templates need beside `llm.templatetags.gateway`."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from django import template
from django.utils.safestring import SafeString

from billing.admin.invoices import formatting
from billing.admin.invoices.billed_by import Billed, find_bill
from billing.currencies import format_money
from billing.models import Invoice
from llm.admin.format import NOTHING
from llm.admin.usage.corrections import CorrectedCall

register = template.Library()


@register.simple_tag
def bill_of_call(known: CorrectedCall) -> Billed | None:
    return find_bill(known)


@register.filter
def total(invoice: Invoice) -> SafeString:
    return formatting.money_badge(invoice.total, invoice.currency)


@register.filter
def money(amount: Decimal, currency: str) -> SafeString:
    return formatting.money_badge(amount, currency)


@register.filter
def amount(value: Decimal, currency: str) -> str:
    return format_money(value, currency)


@register.filter
def invoice_state(invoice: Invoice) -> SafeString:
    return formatting.state_badge(invoice)


@register.filter
def flags(codes: Iterable[str]) -> SafeString | str:
    return formatting.flag_badges(codes)


@register.filter
def plain(number: Decimal | None) -> str:
    """Without trailing zeros."""
    if number is None:
        return NOTHING
    text = f"{number:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text

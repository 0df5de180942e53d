"""Who an invoice is from and to, as its document says it.

Both are frozen on the invoice when it is submitted, as plain JSON: a customer that moves or a seller that changes banks
doesn't change what was sent. Until then a document shows what would be frozen now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from django.conf import settings

from billing.enums import InvoiceState
from billing.models import BillingProfile, Invoice
from billing.periods import BillingPeriod
from billing.timezones import zone_of_month

DEFAULT_SELLER = "LLM gateway"
"""The seller of drafts until one is configured."""
NO_TAX_ID = "none"
REQUIRED_OF_SELLER: Mapping[str, str] = {
    "name": "BILLING_SELLER_NAME",
    "address": "BILLING_SELLER_ADDRESS",
    "tax_id": "BILLING_SELLER_TAX_ID",
}
"""What an invoice must say about its sender, and the settings for it."""


@dataclass(frozen=True, slots=True)
class Seller:
    """address, payment: several lines, separated by newlines. payment: how to pay, such as a bank account."""

    name: str = ""
    address: str = ""
    tax_id: str = ""
    email: str = ""
    payment: str = ""


@dataclass(frozen=True, slots=True)
class BillTo:
    """The columns of `BillingProfile` with the same names. time_zone: in whose days the period is counted."""

    legal_name: str = ""
    address: str = ""
    country: str = ""
    email: str = ""
    tax_id: str = ""
    tax_note: str = ""
    po_number: str = ""
    payment_days: int = 0
    time_zone: str = "UTC"


def seller_facts() -> dict[str, Any]:
    """The value of `Invoice.seller`: `Seller` as JSON, from the settings."""
    facts = asdict(Seller(**settings.BILLING_SELLER))
    facts["name"] = facts["name"] or DEFAULT_SELLER
    if _has_no_tax_id():
        facts["tax_id"] = ""
    return facts


def missing_seller_settings() -> list[str]:
    """Names of settings without which no invoice can be issued. BILLING_SELLER_TAX_ID may say that there is none."""
    return [name for field, name in REQUIRED_OF_SELLER.items() if not settings.BILLING_SELLER[field]]


def missing_of_seller(invoice: Invoice) -> list[str]:
    """Settings missing on this invoice: from the frozen seller, or from the current settings before it is frozen."""
    seller = seller_of(invoice)
    is_missing = {
        "name": seller.name in ("", DEFAULT_SELLER) and settings.BILLING_SELLER["name"] != DEFAULT_SELLER,
        "address": not seller.address,
        "tax_id": not (seller.tax_id or _has_no_tax_id()),
    }
    return [name for field, name in REQUIRED_OF_SELLER.items() if is_missing[field]]


def _has_no_tax_id() -> bool:
    return str(settings.BILLING_SELLER["tax_id"]).lower() == NO_TAX_ID


def bill_to_facts(profile: BillingProfile, *, period: BillingPeriod | None = None) -> dict[str, Any]:
    """The value of `Invoice.bill_to`: `BillTo` as JSON. period: the invoice's; without it, the newest time zone is
    used.
    """
    facts = {field.name: getattr(profile, field.name) for field in fields(BillTo)}
    return facts if period is None else {**facts, "time_zone": zone_of_month(profile, period)}


def seller_of(invoice: Invoice) -> Seller:
    return Seller(**(invoice.seller if _is_settled(invoice) and invoice.seller else seller_facts()))


def bill_to_of(invoice: Invoice) -> BillTo:
    """Raises BillingProfile.DoesNotExist if the account has no profile; drafting an invoice makes one."""
    if _is_settled(invoice) and invoice.bill_to:
        return BillTo(**invoice.bill_to)
    return BillTo(**bill_to_facts(invoice.account.billing_profile, period=invoice.period))


def _is_settled(invoice: Invoice) -> bool:
    """A draft that was sent back still holds the parties frozen before, which no longer count."""
    return invoice.state != InvoiceState.DRAFT

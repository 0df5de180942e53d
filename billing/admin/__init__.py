"""Billing's side of the admin: what is charged, to whom, and how it is checked."""

from billing.admin import attention, exchange, exports, invoices, months, plans, profiles, reconciliation, tokens, usage

__all__ = (
    "attention",
    "exchange",
    "exports",
    "invoices",
    "months",
    "plans",
    "profiles",
    "reconciliation",
    "tokens",
    "usage",
)

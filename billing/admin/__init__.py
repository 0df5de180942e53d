"""Billing's side of the admin: what is charged, to whom, and how it is checked."""

from billing.admin import attention, audit_log, exchange_rates, profiles, reconciliation, search, tokens
from billing.admin.invoices import invoice_admin
from billing.admin.jobs import books_admin, export_admin, month_admin
from billing.admin.plans import plan_admin
from billing.admin.usage import explorer_admin

__all__ = (
    "attention",
    "audit_log",
    "books_admin",
    "exchange_rates",
    "explorer_admin",
    "export_admin",
    "invoice_admin",
    "month_admin",
    "plan_admin",
    "profiles",
    "reconciliation",
    "search",
    "tokens",
)

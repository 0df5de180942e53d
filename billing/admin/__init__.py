"""Billing's side of the admin: what is charged, to whom, and how it is checked."""

from billing.admin import exchange, exports, invoices, profiles

__all__ = ("exchange", "exports", "invoices", "profiles")

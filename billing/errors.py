"""What billing refuses, in sentences for the user who asked."""

from __future__ import annotations


class BillingError(Exception):
    """The message says what is wrong and what to do."""


class InvoiceError(BillingError):
    """The step isn't allowed for this invoice, or not for this user."""


class NotBillableError(BillingError):
    """The account can't be billed for now: it has no plan, no exchange rate, or another currency."""

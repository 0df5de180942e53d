"""What billing refuses, in sentences for the person who asked."""

from __future__ import annotations


class BillingError(Exception):
    """The message says what is the matter and what to do."""


class InvoiceError(BillingError):
    """An invoice can't be moved on, or not by this person."""


class NotBillableError(BillingError):
    """An account can't be billed as things stand: no plan, no rate of exchange, another currency."""

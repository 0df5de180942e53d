"""Charges and allowances that staff add to an account's month by hand."""

from __future__ import annotations

from decimal import Decimal

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from billing.currencies import MAX_DECIMALS, validate_currency
from billing.models.plans import PERCENT_DECIMALS
from billing.types import OneOff
from llm.fields import ExactDecimalField
from llm.models import Account


class OneOffLine(models.Model):
    """One line that isn't usage and that no plan charges: a setup fee, or an allowance, whose amount is negative.

    It belongs to a month, not to a document, as a plan's fee does: it is recalculated with the draft, and billed again
    with its month after a correction. It never changes; until it is billed, it can be removed.
    amount: without tax, in the currency's decimals. tax_percent: None if it has the tax rate of its month, which
    allowances always do. reason: for the history, not on the document.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, db_index=False, related_name="one_off_lines")
    period_start = models.DateField()
    currency = models.CharField(max_length=3, validators=[validate_currency])
    description = models.CharField(max_length=150)
    amount = ExactDecimalField(decimals=MAX_DECIMALS)
    tax_percent = ExactDecimalField(decimals=PERCENT_DECIMALS, null=True, blank=True)
    reason = models.CharField(max_length=500)
    added_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    added_at = models.DateTimeField(default=timezone.now)
    removed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    removed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        default_permissions = ()
        ordering = ("id",)
        indexes = (models.Index(fields=["account", "period_start"], name="oneoffline_month"),)
        constraints = (
            models.CheckConstraint(condition=~Q(amount=Decimal(0)), name="oneoffline_has_amount"),
            models.CheckConstraint(
                condition=Q(tax_percent=None) | Q(amount__gt=Decimal(0)), name="oneoffline_allowance_has_tax_of_month"
            ),
            models.CheckConstraint(
                condition=Q(removed_at=None, removed_by=None) | Q(removed_at__isnull=False, removed_by__isnull=False),
                name="oneoffline_removed_by_someone",
            ),
        )

    def __str__(self) -> str:
        return self.description

    @property
    def key(self) -> str:
        """Of its lines on invoices."""
        return f"one_off|{self.pk}"

    @property
    def as_rated(self) -> OneOff:
        return OneOff(self.key, self.description, self.amount, self.tax_percent)

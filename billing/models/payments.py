"""What was paid on invoices, and refunded on credit notes."""

from __future__ import annotations

from decimal import Decimal

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from billing.currencies import MAX_DECIMALS
from billing.models.invoices import Invoice
from llm.fields import ExactDecimalField


class Payment(models.Model):
    """One payment, or the reversal of one that was recorded by mistake. Append-only.

    amount: in the invoice's currency; of an invoice positive, of a credit note, which is refunded, negative; of a
    reversal, minus that of the payment. reference: such as the bank's. recorded_by: None where payments weren't
    recorded yet when the invoice was marked as paid, and the history doesn't say who did it.
    """

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="payments")
    amount = ExactDecimalField(decimals=MAX_DECIMALS)
    paid_on = models.DateField()
    reference = models.CharField(max_length=100, blank=True, default="")
    reason = models.CharField(max_length=500, blank=True, default="")
    reverses = models.OneToOneField("self", null=True, blank=True, on_delete=models.PROTECT, related_name="reversal")
    recorded_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    recorded_at = models.DateTimeField(default=timezone.now)

    class Meta:
        default_permissions = ()
        ordering = ("id",)
        constraints = (models.CheckConstraint(condition=~Q(amount=Decimal(0)), name="payment_has_amount"),)

    def __str__(self) -> str:
        return f"{self.amount:f} on {self.paid_on}"

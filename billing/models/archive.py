"""Documents as they were sent."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from billing.models.invoices import Invoice


class ArchivedPdf(models.Model):
    """The PDF of an issued invoice as it was mailed first: whatever is sent later has the same bytes."""

    is_proven: ClassVar[bool] = True

    invoice = models.OneToOneField(Invoice, on_delete=models.PROTECT, related_name="archived_pdf")
    content = models.BinaryField()
    digest = models.CharField(max_length=64, help_text="SHA-256 of the content.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"PDF of {self.invoice}"

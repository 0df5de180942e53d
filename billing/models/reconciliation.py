"""What the providers say they charge us, as imported from their reports."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from llm.fields import ExactDecimalField
from llm.money import PICO_DECIMALS


class CostImport(models.Model):
    """One imported file. Importing the same file twice is one import: its digest is unique."""

    provider = models.CharField(max_length=50)
    file_name = models.CharField(max_length=200)
    digest = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the file.")
    rows = models.PositiveIntegerField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, editable=False, on_delete=models.PROTECT, related_name="+"
    )

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.provider}: {self.file_name}"


class ProviderCost(models.Model):
    """A provider's figures for a UTC day and model, from its latest report. None: the report doesn't say.

    report: the kind of report, such as costs or completions; a later one of the same kind replaces the day. model: ""
    for charges without a model, described by `line_item`. cost: USD.
    """

    source = models.ForeignKey(CostImport, on_delete=models.PROTECT, related_name="costs")
    provider = models.CharField(max_length=50)
    report = models.CharField(max_length=20)
    utc_day = models.DateField()
    model = models.CharField(max_length=200, blank=True, default="")
    line_item = models.CharField(max_length=200, blank=True, default="")
    requests = models.BigIntegerField(null=True)
    prompt_tokens = models.BigIntegerField(null=True)
    completion_tokens = models.BigIntegerField(null=True)
    cache_read_tokens = models.BigIntegerField(null=True)
    cache_write_tokens = models.BigIntegerField(null=True)
    cost = ExactDecimalField(decimals=PICO_DECIMALS, null=True)

    class Meta:
        ordering = ("provider", "utc_day", "model", "report", "line_item")
        constraints = (
            models.UniqueConstraint(
                fields=["provider", "utc_day", "report", "model", "line_item"], name="providercost_once_a_day"
            ),
            models.CheckConstraint(condition=~Q(provider="") & ~Q(report=""), name="providercost_has_provider"),
        )

    def __str__(self) -> str:
        return f"{self.provider} {self.utc_day} {self.model or self.line_item}"

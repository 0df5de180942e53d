"""Exports of a month: written to files by a job, served from there."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from billing.enums import ExportState


class ExportJob(models.Model):
    """One export. formats: names of `billing.exports.FORMATS`. manifest: as it was written, once it is done.

    progress_rows of total_rows: of usage, while it runs. folder: below the export folder of the settings.
    """

    period_start = models.DateField()
    formats = models.JSONField(default=list)
    state = models.CharField(max_length=10, choices=ExportState.choices, default=ExportState.WAITING)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    progress_rows = models.BigIntegerField(default=0)
    total_rows = models.BigIntegerField(default=0)
    folder = models.CharField(max_length=200, blank=True, default="")
    manifest = models.JSONField(null=True, blank=True)
    error = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        ordering = ("-id",)
        permissions = (("run_export", "Can export a month"),)
        constraints = (models.CheckConstraint(condition=Q(state__in=ExportState.values), name="exportjob_state_known"),)

    def __str__(self) -> str:
        return f"Export of {self.period_start:%Y-%m}"

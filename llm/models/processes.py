"""The processes that write the books, and when each was last heard of."""

from __future__ import annotations

from django.db import models

MAX_STARTS = 3
"""How often a worker may start a task of the beat table without finishing it, before it is paused for a day."""


class Process(models.Model):
    """A gateway process, by its boot id. It beats every few seconds; a silent one is taken for dead."""

    id = models.UUIDField(primary_key=True)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField(help_text="Database clock.")
    seen_at = models.DateTimeField(help_text="Database clock.")
    ended_at = models.DateTimeField(null=True, blank=True, help_text="When it shut down cleanly.")
    skipped_targets = models.TextField(
        blank=True, default="", db_default="", help_text="Targets that it skips since they failed, one per line."
    )

    class Meta:
        verbose_name_plural = "processes"
        ordering = ("-seen_at",)
        indexes = (models.Index(fields=["-seen_at"], name="process_seen"),)

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class ReaperState(models.Model):
    """One row: when the reaper last ran. After a gap the database may have been unavailable, and silence proves
    nothing.
    """

    last_run_at = models.DateTimeField(help_text="Database clock.")
    steady_since = models.DateTimeField(help_text="Since then it has run without a gap.")

    def __str__(self) -> str:
        return f"last run {self.last_run_at:%Y-%m-%d %H:%M:%S} UTC"


class ScheduledTask(models.Model):
    """A task of the beat table. attempts: how often a worker has started it since it last finished."""

    name = models.CharField(primary_key=True, max_length=100)
    started_at = models.DateTimeField(help_text="When a worker last started it.")
    ended_at = models.DateTimeField(null=True, blank=True, help_text="When a worker last finished it.")
    attempts = models.PositiveSmallIntegerField(default=0, help_text="Starts since it was last finished.")

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

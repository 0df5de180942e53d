"""The audit log: who changed what from what to what, who signed in, and who downloaded what."""

from __future__ import annotations

from django.db import models

from llm.enums import AuditAction
from llm.fields import CompactJSONEncoder


class AuditEntry(models.Model):
    """One change of a row, or one event. Only ever added: a trigger refuses everything else.

    Entries about rows are written by triggers (`llm.db.audit_triggers`), in the transaction of the change.
    before, after: texts by column; of a changed row only what differs. Secrets are shown as three asterisks.
    user_id: no foreign key, so that the entries of a deleted user stay as they are.
    via: `admin`, an API token, a command or a task; empty for SQL that came from elsewhere.
    occurrences: more than one for events that are counted instead of listed.
    """

    at = models.DateTimeField(db_index=True)
    action = models.CharField(max_length=20, choices=AuditAction.choices)
    table_name = models.CharField(max_length=63, blank=True, default="")
    row_id = models.CharField(max_length=64, blank=True, default="")
    before = models.JSONField(null=True, encoder=CompactJSONEncoder)
    after = models.JSONField(null=True, encoder=CompactJSONEncoder)
    user_id = models.BigIntegerField(null=True, db_index=True)
    actor = models.CharField(max_length=150, blank=True, default="")
    via = models.CharField(max_length=100, blank=True, default="")
    address = models.CharField(max_length=50, blank=True, default="")
    detail = models.CharField(max_length=500, blank=True, default="")
    occurrences = models.PositiveIntegerField(default=1)

    class Meta:
        verbose_name = "audit log entry"
        verbose_name_plural = "audit log entries"
        ordering = ("-id",)
        default_permissions = ("view",)
        indexes = (
            models.Index(fields=("table_name", "row_id", "id"), name="auditentry_row"),
            models.Index(fields=("action", "id"), name="auditentry_action"),
        )

    def __str__(self) -> str:
        return f"{self.get_action_display()} {self.at:%Y-%m-%d %H:%M:%S}"


class FailedSignIns(models.Model):
    """Failed sign-ins of one minute: of one address, or of all (then the address is empty)."""

    minute = models.DateTimeField()
    address = models.CharField(max_length=50, blank=True, default="")
    attempts = models.PositiveIntegerField(default=0)

    class Meta:
        default_permissions = ()
        constraints = (models.UniqueConstraint(fields=("minute", "address"), name="failedsignins_once"),)

    def __str__(self) -> str:
        return f"{self.attempts} at {self.minute:%Y-%m-%d %H:%M}"

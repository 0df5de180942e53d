"""Staff credentials for the management API, and until when DRF's plain tokens still work."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.utils import timezone

PLAIN_TOKENS_WORK_FOR = timedelta(days=30)


class StaffToken(models.Model):
    """One token. The token itself is shown once and never stored: `digest` is HMAC-SHA256 under LLM_KEY_PEPPER.

    scopes: what it may do at most, within its user's permissions.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=100)
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    prefix = models.CharField(max_length=12, editable=False)
    last_four = models.CharField(max_length=4, editable=False)
    scopes = models.JSONField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "API token"
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.name} ({self.masked})"

    @property
    def masked(self) -> str:
        """A short form by which people recognise the token."""
        return f"{self.prefix}…{self.last_four}"

    def refusal_at(self, moment: datetime) -> str | None:
        """Why the token is refused at that moment (`revoked`, `expired`), or None."""
        if self.revoked_at is not None and self.revoked_at <= moment:
            return "revoked"
        return "expired" if self.expires_at <= moment else None


class PlainTokenGrace(models.Model):
    """Its one row is written by the migration that introduced `StaffToken`, if plain tokens were in use.

    Plain tokens created before then keep working for PLAIN_TOKENS_WORK_FOR.
    """

    recorded_at = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"plain tokens end at {self.ends_at.isoformat()}"

    @property
    def ends_at(self) -> datetime:
        return self.recorded_at + PLAIN_TOKENS_WORK_FOR

"""Recent password attempts."""

from __future__ import annotations

from django.db import models

from llm.money import plural


class SignInCount(models.Model):
    """Attempts in one window: of an address, of an account, or of both together; the other column is then empty.

    account: a digest of the name, since a password may have been typed into the wrong field.
    address: from `llmproject.clientaddress`.
    """

    account = models.CharField(max_length=64, blank=True, default="")
    address = models.CharField(max_length=50, blank=True, default="")
    attempts = models.PositiveIntegerField(default=0)
    window_ends_at = models.DateTimeField(db_index=True)

    class Meta:
        default_permissions = ()
        constraints = (models.UniqueConstraint(fields=("account", "address"), name="signincount_once"),)

    def __str__(self) -> str:
        return plural(self.attempts, "attempt")

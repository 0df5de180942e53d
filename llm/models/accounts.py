"""Accounts and the API keys that staff hand out. Both are archived, never deleted."""

from __future__ import annotations

import zoneinfo
from datetime import datetime

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone

from llm.enums import AccountStatus


def validate_time_zone(name: str) -> None:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise ValidationError(f"“{name}” is not a time zone in the IANA database, e.g. Europe/Lisbon.") from error


class Account(models.Model):
    """A customer or team: owns keys, usage and, in billing, invoices.

    former_closures: (closed, reopened) each; the former is None if the account was closed before `closed_at` existed.
    """

    name = models.CharField(max_length=100, unique=True)
    status = models.CharField(max_length=10, choices=AccountStatus.choices, default=AccountStatus.ACTIVE)
    time_zone = models.CharField(max_length=64, default="UTC", validators=[validate_time_zone])
    shows_cost = models.BooleanField(
        "show cost to callers",
        default=False,
        help_text="Adds usage.cost and x-llm-cost to responses: our purchase price, not what the account is charged.",
    )
    records_end_users = models.BooleanField(
        default=True,
        db_default=True,
        help_text="Calls record which end user they name: a keyed hash with the call, the name beside it.",
    )
    allows_storage = models.BooleanField(
        "allows storage by providers",
        default=True,
        db_default=True,
        help_text="Callers may have the provider store requests and replies. If not, “store: true” is refused, and "
        "responses are requested with “store: false”, since OpenAI stores them by default.",
    )
    alert_email = models.EmailField(
        blank=True, default="", help_text="Receives an email when a limit's soft threshold is crossed."
    )
    webhook_url = models.URLField(
        "webhook URL",
        blank=True,
        default="",
        help_text="Receives a signed POST when a limit's soft threshold is crossed.",
    )
    webhook_secret = models.CharField(
        max_length=300,
        blank=True,
        default="",
        editable=False,
        help_text="Signs webhooks; created with the first one. Encrypted: see `llm.secretstore`.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When it was last closed. Empty: never, or unknown."
    )
    former_closures = models.JSONField(
        default=list, blank=True, editable=False, help_text="Pairs of when it was closed and reopened, ISO 8601."
    )

    class Meta:
        ordering = ("name",)
        constraints = (
            models.CheckConstraint(condition=Q(status__in=AccountStatus.values), name="account_status_known"),
            models.CheckConstraint(condition=~Q(name=""), name="account_has_name"),
        )

    def __str__(self) -> str:
        return self.name


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def usable_at(self, moment: datetime) -> ApiKeyQuerySet:
        """Keys that would be accepted at that moment, if their account is active."""
        return self.filter(
            Q(revoked_at=None) | Q(revoked_at__gt=moment),
            Q(expires_at=None) | Q(expires_at__gt=moment),
        )


class ApiKey(models.Model):
    """One key. Its secret is shown once and never stored: `digest` is HMAC-SHA256 under LLM_KEY_PEPPER.

    revoked_at: from this moment on the key is refused; a rotation's grace period sets it in the future.
    allowed_models: public model names; empty allows all.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="keys")
    name = models.CharField(max_length=100)
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    prefix = models.CharField(max_length=12, editable=False)
    last_four = models.CharField(max_length=4, editable=False)
    allowed_models = models.JSONField(default=list, blank=True)
    owner = models.CharField(
        max_length=100,
        blank=True,
        default="",
        db_default="",
        help_text="Who to ask about it: a person, a team, an address. Callers never see it.",
    )
    note = models.CharField(
        max_length=500, blank=True, default="", db_default="", help_text="What it is for. Callers never see it."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    rotated_from = models.ForeignKey(
        "self", null=True, blank=True, editable=False, on_delete=models.PROTECT, related_name="rotations"
    )

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"
        ordering = ("-id",)
        indexes = (models.Index(fields=["prefix"], name="apikey_prefix"),)

    def __str__(self) -> str:
        return f"{self.name} ({self.masked})"

    @property
    def masked(self) -> str:
        """A short form by which people recognise a key: its beginning and its last four characters."""
        return f"{self.prefix}…{self.last_four}"

    @property
    def is_usable(self) -> bool:
        return self.refusal_at(timezone.now()) is None

    def refusal_at(self, moment: datetime) -> str | None:
        """Why the key itself is refused at that moment (`revoked`, `expired`), or None."""
        if self.revoked_at is not None and self.revoked_at <= moment:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= moment:
            return "expired"
        return None

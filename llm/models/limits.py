"""Limits of accounts and keys, and what is used and held of them in each period."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from llm.enums import LimitMetric, LimitPer
from llm.models.accounts import Account, ApiKey


class LimitQuerySet(models.QuerySet["Limit"]):
    def in_force(self) -> LimitQuerySet:
        return self.filter(archived_at=None)


class Limit(models.Model):
    """A maximum for all calls of an account, or for those of one of its keys. Archived, never deleted.

    amount: whole requests, whole tokens, or micro-units of USD (0.000001 USD), depending on `metric`.
    Periods are in the account's time zone. A change applies from the next call, in every process.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="limits")
    api_key = models.ForeignKey(
        ApiKey, null=True, blank=True, on_delete=models.PROTECT, related_name="limits", verbose_name="API key"
    )
    metric = models.CharField(max_length=10, choices=LimitMetric.choices)
    per = models.CharField(max_length=10, choices=LimitPer.choices)
    amount = models.BigIntegerField(validators=[MinValueValidator(0)])
    soft_percent = models.PositiveSmallIntegerField(
        "soft threshold",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="Percentage of the amount at which one email and one webhook are sent per period.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = LimitQuerySet.as_manager()

    class Meta:
        ordering = ("account", "api_key", "metric", "per")
        constraints = (
            models.CheckConstraint(condition=Q(metric__in=LimitMetric.values), name="limit_metric_known"),
            models.CheckConstraint(condition=Q(per__in=LimitPer.values), name="limit_per_known"),
            models.CheckConstraint(condition=Q(amount__gte=0), name="limit_amount_not_negative"),
            models.UniqueConstraint(
                fields=["account", "metric", "per"],
                condition=Q(api_key=None, archived_at=None),
                name="limit_once_an_account",
                violation_error_message="This account already has such a limit. Change that one.",
            ),
            models.UniqueConstraint(
                fields=["api_key", "metric", "per"],
                condition=Q(api_key__isnull=False, archived_at=None),
                name="limit_once_a_key",
                violation_error_message="This key already has such a limit. Change that one.",
            ),
        )

    def __str__(self) -> str:
        return f"{self.get_metric_display()} {self.get_per_display()} of {self.api_key or self.account}"

    def clean(self) -> None:
        if self.api_key is not None and self.api_key.account_id != self.account_id:
            raise ValidationError({"api_key": "This key belongs to another account."})


class LimitWindow(models.Model):
    """One period of a limit, in its units: what closed calls have used, and what open ones may use at most.

    held always equals the sum of what the open rows hold here: `verify_books` recomputes both.
    """

    limit = models.ForeignKey(Limit, on_delete=models.PROTECT, related_name="windows", db_index=False)
    starts_at = models.DateTimeField()
    used = models.BigIntegerField(default=0)
    held = models.BigIntegerField(default=0)
    is_announced = models.BooleanField(default=False, help_text="The alert for this period has been queued.")

    class Meta:
        ordering = ("-starts_at", "limit")
        constraints = (
            models.UniqueConstraint(fields=["limit", "starts_at"], name="limitwindow_once"),
            models.CheckConstraint(condition=Q(used__gte=0), name="limitwindow_used_not_negative"),
            models.CheckConstraint(condition=Q(held__gte=0), name="limitwindow_held_not_negative"),
        )
        indexes = (models.Index(fields=["starts_at"], name="limitwindow_starts"),)

    def __str__(self) -> str:
        return f"{self.limit} from {self.starts_at:%Y-%m-%d %H:%M} UTC"

    @property
    def taken(self) -> int:
        return self.used + self.held

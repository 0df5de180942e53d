"""Limits of accounts and keys, and what is used and held of them in each period."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from llm.enums import LimitMetric, LimitPer
from llm.models.accounts import Account, ApiKey
from llm.types import END_USER_LENGTH


class LimitQuerySet(models.QuerySet["Limit"]):
    def in_force(self) -> LimitQuerySet:
        return self.filter(archived_at=None)


class Limit(models.Model):
    """A maximum for all calls of an account, or for those of one of its keys. Archived, never deleted.

    is_per_end_user: it is one ceiling for each of their end users, as calls name them, and none for all together.
    amount: whole requests, whole tokens, or micro-units of USD (0.000001 USD), as `metric` says.
    Periods are those of the account's time zone. A change acts on the next call, in every process.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="limits")
    api_key = models.ForeignKey(
        ApiKey, null=True, blank=True, on_delete=models.PROTECT, related_name="limits", verbose_name="API key"
    )
    metric = models.CharField(max_length=10, choices=LimitMetric.choices)
    per = models.CharField(max_length=10, choices=LimitPer.choices)
    amount = models.BigIntegerField(validators=[MinValueValidator(0)])
    is_per_end_user = models.BooleanField(
        "for each end user",
        default=False,
        db_default=False,
        help_text="Applies to each end user separately, as named in requests. Requests that name none share one.",
    )
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
                fields=["account", "metric", "per", "is_per_end_user"],
                condition=Q(api_key=None, archived_at=None),
                name="limit_once_an_account",
                violation_error_message="This account already has such a limit. Change that one.",
            ),
            models.UniqueConstraint(
                fields=["api_key", "metric", "per", "is_per_end_user"],
                condition=Q(api_key__isnull=False, archived_at=None),
                name="limit_once_a_key",
                violation_error_message="This key already has such a limit. Change that one.",
            ),
        )

    def __str__(self) -> str:
        whose = "each end user of " if self.is_per_end_user else ""
        return f"{self.get_metric_display()} {self.get_per_display()} of {whose}{self.api_key or self.account}"

    def clean(self) -> None:
        if self.api_key is not None and self.api_key.account_id != self.account_id:
            raise ValidationError({"api_key": "This key belongs to another account."})
        if not self.is_per_end_user or self.account_id is None:
            return
        if not self.account.records_end_users:
            raise ValidationError(
                "This account doesn't record end users, so they can't be limited one by one. First switch on “Records "
                "end users” on its page."
            )


class LimitWindow(models.Model):
    """One period of a limit, in its units: what closed calls have used, and what open ones may use at most.

    held is always the sum of what the open rows say they hold here: `verify_books` recomputes both.
    limit: None for a limit for each end user, which stands in `end_user_limit`. end_user: see
    `llm.limits.end_user_windows`. named_by: the id of the API key that has named the end user first.
    """

    limit = models.ForeignKey(Limit, null=True, on_delete=models.PROTECT, related_name="windows", db_index=False)
    end_user_limit = models.ForeignKey(
        Limit, null=True, on_delete=models.PROTECT, related_name="end_user_windows", db_index=False
    )
    end_user = models.CharField(max_length=END_USER_LENGTH, default="", db_default="")
    named_by = models.BigIntegerField(null=True)
    starts_at = models.DateTimeField()
    used = models.BigIntegerField(default=0)
    held = models.BigIntegerField(default=0)
    is_announced = models.BooleanField(default=False, help_text="The alert for this period has been queued.")

    class Meta:
        ordering = ("-starts_at", "limit")
        constraints = (
            models.UniqueConstraint(fields=["limit", "starts_at"], name="limitwindow_once"),
            models.UniqueConstraint(
                fields=["end_user_limit", "starts_at", "end_user"], name="limitwindow_once_an_end_user"
            ),
            models.CheckConstraint(
                condition=Q(limit__isnull=False, end_user_limit=None, end_user="")
                | (Q(limit=None, end_user_limit__isnull=False) & ~Q(end_user="")),
                name="limitwindow_of_one_limit",
            ),
            models.CheckConstraint(condition=Q(used__gte=0), name="limitwindow_used_not_negative"),
            models.CheckConstraint(condition=Q(held__gte=0), name="limitwindow_held_not_negative"),
        )
        indexes = (
            # With all that a window is looked up by: many begin at one moment, and a planner that takes this index for
            # the unique ones must find the one that is meant.
            models.Index(fields=["starts_at", "limit", "end_user_limit", "end_user"], name="limitwindow_starts"),
            models.Index(
                fields=["end_user_limit", "starts_at", "named_by"],
                condition=Q(named_by__isnull=False),
                name="limitwindow_named_by",
            ),
        )

    def __str__(self) -> str:
        whose = f" ({self.end_user})" if self.end_user else ""
        return f"{self.governing_limit}{whose} from {self.starts_at:%Y-%m-%d %H:%M} UTC"

    @property
    def governing_limit(self) -> Limit:
        """Whose period it is, whether for all end users or for one."""
        limit = self.limit or self.end_user_limit
        if limit is None:
            raise ValueError("a window belongs to a limit")
        return limit

    @property
    def taken(self) -> int:
        return self.used + self.held

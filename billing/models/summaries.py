"""Daily usage summed up over all accounts, for reports. Derived only from `DailyUsage`."""

from __future__ import annotations

from django.db import models

from billing.models.rollups import CallSums, UsageSums
from llm.models import Account, ApiKey


class ModelDay(CallSums):
    """One day of a model, over all accounts: each account's own calendar day."""

    local_day = models.DateField()
    provider = models.CharField(max_length=50)
    model = models.CharField(max_length=200)

    class Meta:
        ordering = ("-local_day", "provider", "model")
        constraints = (models.UniqueConstraint(fields=["local_day", "provider", "model"], name="modelday_once"),)

    def __str__(self) -> str:
        return f"{self.local_day} {self.model}"


class AccountDay(UsageSums):
    """One day of an account, over all models. Its digests tell whether a month's usage still equals what was billed."""

    local_day = models.DateField(db_index=True)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, db_index=False, related_name="+")
    is_billable = models.BooleanField(default=True)

    class Meta:
        ordering = ("-local_day", "account", "-is_billable")
        constraints = (models.UniqueConstraint(fields=["account", "local_day", "is_billable"], name="accountday_once"),)

    def __str__(self) -> str:
        return f"{self.account} {self.local_day}"


class KeySums(CallSums):
    """Sums of a key, over all models."""

    local_day = models.DateField(db_index=True)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, db_index=False, related_name="+")
    api_key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, db_index=False, related_name="+")

    class Meta:
        abstract = True
        ordering = ("-local_day", "account", "api_key")
        constraints = (models.UniqueConstraint(fields=["account", "local_day", "api_key"], name="%(class)s_once"),)

    def __str__(self) -> str:
        return f"{self.api_key} {self.local_day}"


class KeyDay(KeySums):
    """One day of a key."""


class KeyThird(KeySums):
    """A third of a month of a key (`Third`). Derived from `KeyDay`. local_day: its first day."""


class StaleDay(models.Model):
    """A day whose `DailyUsage` rows were written and that hasn't been summed up since.

    Each writer adds a row, in the same transaction; a day may have any number of them, so that writers don't wait for
    one another. Without one, the sums of the day match its rows.
    """

    local_day = models.DateField(db_index=True)

    class Meta:
        ordering = ("local_day", "id")

    def __str__(self) -> str:
        return f"{self.local_day}"

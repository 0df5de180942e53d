"""Days summed up once more, for reports of all accounts. Made of `DailyUsage` and of nothing else."""

from __future__ import annotations

from django.db import models

from billing.models.rollups import CallSums, UsageSums
from llm.models import Account, ApiKey


class ModelDay(CallSums):
    """One day of a model, of all accounts: each account's own calendar day."""

    local_day = models.DateField()
    provider = models.CharField(max_length=50)
    model = models.CharField(max_length=200)

    class Meta:
        ordering = ("-local_day", "provider", "model")
        constraints = (models.UniqueConstraint(fields=["local_day", "provider", "model"], name="modelday_once"),)

    def __str__(self) -> str:
        return f"{self.local_day} {self.model}"


class AccountDay(UsageSums):
    """One day of an account, of all models. Its digests tell whether what was billed of a month is what is there."""

    local_day = models.DateField(db_index=True)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, db_index=False, related_name="+")
    is_billable = models.BooleanField(default=True)

    class Meta:
        ordering = ("-local_day", "account", "-is_billable")
        constraints = (models.UniqueConstraint(fields=["account", "local_day", "is_billable"], name="accountday_once"),)

    def __str__(self) -> str:
        return f"{self.account} {self.local_day}"


class KeySums(CallSums):
    """Sums of a key, of all models."""

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
    """A third of a month of a key (`Third`). Made of `KeyDay`. local_day: its first one."""


class StaleDay(models.Model):
    """A day of which `DailyUsage` was written, and that has not been summed up since.

    Whoever writes adds a row, in the same transaction; a day may have any number of them, so that nobody waits for
    another. Where there is none, the sums of the day are those of its rows.
    """

    local_day = models.DateField(db_index=True)

    class Meta:
        ordering = ("local_day", "id")

    def __str__(self) -> str:
        return f"{self.local_day}"

"""Daily usage summed up over all accounts, for reports. Derived only from `DailyUsage`."""

from __future__ import annotations

from django.db import models

from billing.enums import OutcomeGroup
from billing.models.rollups import CallSums, CallTimes, UsageSums
from llm.fields import ExactDecimalField
from llm.models import Account, ApiKey
from llm.money import PICO_DECIMALS


class ModelDay(CallTimes, CallSums):
    """One day of a model, over all accounts: each account's own calendar day.

    provider_instance, outcome_group: as in `DailyUsage`.
    """

    local_day = models.DateField()
    provider = models.CharField(max_length=50)
    model = models.CharField(max_length=200)
    provider_instance = models.CharField(max_length=50, default="", db_default="")
    outcome_group = models.CharField(max_length=11, choices=OutcomeGroup.choices, default="", db_default="")

    class Meta:
        ordering = ("-local_day", "provider", "model")
        constraints = (
            models.UniqueConstraint(
                fields=["local_day", "provider", "model", "provider_instance", "outcome_group"], name="modelday_once"
            ),
        )

    def __str__(self) -> str:
        return f"{self.local_day} {self.model}"


class AccountDay(CallTimes, UsageSums):
    """One day of an account, over all models. Its digests tell whether a month's usage still equals what was billed."""

    local_day = models.DateField(db_index=True)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, db_index=False, related_name="+")
    is_billable = models.BooleanField(default=True)

    class Meta:
        ordering = ("-local_day", "account", "-is_billable")
        constraints = (models.UniqueConstraint(fields=["account", "local_day", "is_billable"], name="accountday_once"),)

    def __str__(self) -> str:
        return f"{self.account} {self.local_day}"


class KeySums(CallTimes, CallSums):
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


class EndUserDay(models.Model):
    """One day of an account's end user: the dearest of each day, and what is left in a row of its own.

    end_user: the hash, as in the calls; empty for calls without one, and where is_rest. Rebuilt with the account's day.
    Figures as in `CallSums`.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, db_index=False, related_name="+")
    local_day = models.DateField()
    end_user = models.CharField(max_length=32, blank=True)
    is_rest = models.BooleanField(default=False)
    calls = models.BigIntegerField()
    unpriced_calls = models.BigIntegerField()
    prompt_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    cost = ExactDecimalField(decimals=PICO_DECIMALS)

    class Meta:
        default_permissions = ()
        ordering = ("-local_day", "account", "end_user")
        constraints = (
            models.UniqueConstraint(fields=["account", "local_day", "end_user", "is_rest"], name="enduserday_once"),
        )

    def __str__(self) -> str:
        return f"{self.account} {self.local_day} {self.end_user}"


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

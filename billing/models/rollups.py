"""Usage summed by day: what reports, invoices and exports read. It can be rebuilt from the books at any time."""

from __future__ import annotations

from typing import Any, Self

from django.db import models
from django.db.models import Q

from billing.enums import OutcomeGroup
from llm.digests import DIGEST_FIELDS
from llm.fields import ExactDecimalField
from llm.models import Account, ApiKey, RateSet
from llm.money import PICO_DECIMALS
from llm.types import TOKEN_FIELDS


class CallSums(models.Model):
    """Sums over calls, adjustments included. Void and open calls aren't counted.

    cost: USD, of priced calls only; unpriced_calls: calls that used tokens and have no price. estimated_*: of calls
    whose tokens are our estimate.
    """

    calls = models.BigIntegerField(default=0)
    estimated_calls = models.BigIntegerField(default=0)
    unpriced_calls = models.BigIntegerField(default=0)
    prompt_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    cache_write_5m_tokens = models.BigIntegerField(default=0)
    cache_write_1h_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    audio_input_tokens = models.BigIntegerField(default=0)
    audio_output_tokens = models.BigIntegerField(default=0)
    cost = ExactDecimalField(decimals=PICO_DECIMALS, default=0)
    estimated_cost = ExactDecimalField(decimals=PICO_DECIMALS, default=0)

    class Meta:
        abstract = True


class CallTimes(models.Model):
    """How calls ended and how long they took. Void calls are included, which are no `calls`: most failures are void.

    failed_calls: those that a provider, the network or we ended. latency_*: from open to close. first_byte_*: to the
    first byte, of streams only. Each call is in one of a figure's buckets, which end at 250, 500 ms and so on.
    """

    failed_calls = models.BigIntegerField(default=0, db_default=0)
    latency_le_250 = models.BigIntegerField(default=0, db_default=0)
    latency_le_500 = models.BigIntegerField(default=0, db_default=0)
    latency_le_1000 = models.BigIntegerField(default=0, db_default=0)
    latency_le_2000 = models.BigIntegerField(default=0, db_default=0)
    latency_le_4000 = models.BigIntegerField(default=0, db_default=0)
    latency_le_8000 = models.BigIntegerField(default=0, db_default=0)
    latency_le_16000 = models.BigIntegerField(default=0, db_default=0)
    latency_le_32000 = models.BigIntegerField(default=0, db_default=0)
    latency_le_64000 = models.BigIntegerField(default=0, db_default=0)
    latency_le_128000 = models.BigIntegerField(default=0, db_default=0)
    latency_above = models.BigIntegerField(default=0, db_default=0)
    first_byte_le_250 = models.BigIntegerField(default=0, db_default=0)
    first_byte_le_500 = models.BigIntegerField(default=0, db_default=0)
    first_byte_le_1000 = models.BigIntegerField(default=0, db_default=0)
    first_byte_le_2000 = models.BigIntegerField(default=0, db_default=0)
    first_byte_le_4000 = models.BigIntegerField(default=0, db_default=0)
    first_byte_le_8000 = models.BigIntegerField(default=0, db_default=0)
    first_byte_le_16000 = models.BigIntegerField(default=0, db_default=0)
    first_byte_le_32000 = models.BigIntegerField(default=0, db_default=0)
    first_byte_le_64000 = models.BigIntegerField(default=0, db_default=0)
    first_byte_le_128000 = models.BigIntegerField(default=0, db_default=0)
    first_byte_above = models.BigIntegerField(default=0, db_default=0)

    class Meta:
        abstract = True


class UsageSums(CallSums):
    """digest_*: sums of the digests of the rows and adjustments behind the figures."""

    digest_0 = models.BigIntegerField(default=0)
    digest_1 = models.BigIntegerField(default=0)
    digest_2 = models.BigIntegerField(default=0)
    digest_3 = models.BigIntegerField(default=0)
    digest_4 = models.BigIntegerField(default=0)
    digest_5 = models.BigIntegerField(default=0)
    digest_6 = models.BigIntegerField(default=0)
    digest_7 = models.BigIntegerField(default=0)

    class Meta:
        abstract = True

    @property
    def digest_sums(self) -> tuple[int, ...]:
        return tuple(getattr(self, name) for name in DIGEST_FIELDS)


COUNT_FIELDS: tuple[str, ...] = ("calls", "estimated_calls", "unpriced_calls", *TOKEN_FIELDS)
COST_FIELDS: tuple[str, ...] = ("cost", "estimated_cost")
SUM_FIELDS: tuple[str, ...] = (*COUNT_FIELDS, *COST_FIELDS, *DIGEST_FIELDS)
"""All columns of `UsageSums`."""
EDGES_MS: tuple[int, ...] = tuple(250 * 2**number for number in range(10))
"""Upper edges of the buckets, but for the last one, which has none."""
LATENCY_FIELDS: tuple[str, ...] = (*(f"latency_le_{edge}" for edge in EDGES_MS), "latency_above")
FIRST_BYTE_FIELDS: tuple[str, ...] = (*(f"first_byte_le_{edge}" for edge in EDGES_MS), "first_byte_above")
TIME_FIELDS: tuple[str, ...] = ("failed_calls", *LATENCY_FIELDS, *FIRST_BYTE_FIELDS)
"""All columns of `CallTimes`."""


_ONCE = (
    *("account", "local_day", "api_key", "provider", "model", "is_billable"),
    *("provider_instance", "outcome_group"),
)


class DailyUsageQuerySet(models.QuerySet["DailyUsage"]):
    def with_calls(self) -> Self:
        """Without rows that have only void calls."""
        return self.filter(calls__gt=0)

    def of_former_shape(self) -> Self:
        """Written before there were outcomes: they are rebuilt in the background."""
        return self.filter(outcome_group="")


class DailyUsage(CallTimes, UsageSums):
    """One day of an account, by key, model, the instance called, how calls ended, and the rates that priced them.

    local_day: the account's calendar day. rate_set: None if calls were free or unpriced. is_billable: after later
    decisions on the calls; never where calls are void. outcome_group: of OutcomeGroup; empty in rows of the former
    shape, which have no `CallTimes` either. upstream_cost: USD, what providers reported, of upstream_cost_calls.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="daily_usage", db_index=False)
    api_key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, related_name="daily_usage", db_index=False)
    local_day = models.DateField()
    provider = models.CharField(max_length=50)
    model = models.CharField(max_length=200)
    rate_set = models.ForeignKey(RateSet, null=True, on_delete=models.PROTECT, db_index=False, related_name="+")
    is_billable = models.BooleanField(default=True)
    provider_instance = models.CharField(max_length=50, default="", db_default="")
    outcome_group = models.CharField(max_length=11, choices=OutcomeGroup.choices, default="", db_default="")
    upstream_cost = ExactDecimalField(decimals=PICO_DECIMALS, null=True)
    upstream_cost_calls = models.BigIntegerField(default=0, db_default=0)

    objects = DailyUsageQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "usage explorer"
        ordering = ("-local_day", "account", "api_key", "model")
        indexes = (
            models.Index(fields=["local_day", "account"], name="dailyusage_day"),
            models.Index(fields=["api_key", "local_day"], name="dailyusage_key"),
            models.Index(
                fields=["local_day", "account"], condition=Q(outcome_group=""), name="dailyusage_former_shape"
            ),
        )
        constraints = (
            models.UniqueConstraint(
                fields=[*_ONCE, "rate_set"],
                name="dailyusage_once",
            ),
            # NULLs are distinct in the constraint above.
            models.UniqueConstraint(
                fields=[*_ONCE],
                condition=Q(rate_set=None),
                name="dailyusage_once_without_rates",
            ),
            models.CheckConstraint(condition=Q(calls__gte=0), name="dailyusage_calls_not_negative"),
        )

    def __str__(self) -> str:
        return f"{self.account} {self.local_day} {self.model}"


class RollupMark(models.Model):
    """Up to when an account's calls are in its rollups: all that was recorded by `cutoff_at`, and nothing later.

    Written in the same transaction as the rollups. Lock an account's mark to read its days in one consistent state.

    cutoff_at: never moves back; None while the days are written in several transactions (SQLite), when they are no
    consistent state. rolling_to: the cutoff of the process that is writing them. changed_from: the earliest day rebuilt
    since the account's reductions were last computed; None if there is none.
    """

    account = models.OneToOneField(Account, on_delete=models.PROTECT, primary_key=True, related_name="rollup_mark")
    cutoff_at = models.DateTimeField(null=True, help_text="Database clock.")
    rolling_to = models.DateTimeField(null=True, help_text="Database clock.")
    changed_from = models.DateField(null=True)

    class Meta:
        ordering = ("account",)
        constraints = (
            models.CheckConstraint(
                condition=Q(cutoff_at__isnull=False, rolling_to=None) | Q(cutoff_at=None), name="rollupmark_one_state"
            ),
        )

    def __str__(self) -> str:
        return f"{self.account}: up to {self.cutoff_at:%Y-%m-%d %H:%M:%S} UTC" if self.cutoff_at else f"{self.account}"


def sums_of(row: UsageSums) -> dict[str, Any]:
    return {name: getattr(row, name) for name in SUM_FIELDS}

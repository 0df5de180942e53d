"""What is learned about a call after its row was closed, and rejected entries. Append-only."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q

from llm.digests import AdjustmentFacts, adjustment_text
from llm.enums import AdjustmentSource, CheckScope
from llm.fields import AmountField, ExactDecimalField
from llm.models.catalog import RateSet
from llm.models.digested import WHOLE_DIGEST, Digested
from llm.models.usage import Usage
from llm.money import PICO_DECIMALS, plural, usd_to_pico
from llm.types import COST_UNKNOWN, MAX_FLAGS_LENGTH, Service


class ReratingRun(models.Model):
    """One re-rating: the calls of a model on some days, priced again by the current price list.

    cost_before, cost_after: USD, of the calls that changed.
    """

    provider = models.CharField(max_length=50)
    model = models.CharField(max_length=200, help_text="The provider's name for the model.")
    first_day = models.DateField(help_text="Of the calls' local days.")
    last_day = models.DateField()
    reason = models.CharField(max_length=500)
    calls = models.BigIntegerField(default=0)
    cost_before = ExactDecimalField(decimals=PICO_DECIMALS, default=0)
    cost_after = ExactDecimalField(decimals=PICO_DECIMALS, default=0)
    started_at = models.DateTimeField(help_text="Database clock.")
    ended_at = models.DateTimeField(null=True, blank=True, help_text="Database clock; a run without it was cut off.")
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )

    class Meta:
        verbose_name = "price correction"
        ordering = ("-id",)
        constraints = (models.CheckConstraint(condition=~Q(reason=""), name="reratingrun_has_reason"),)

    def __str__(self) -> str:
        return f"{self.provider}: {self.model}, {self.first_day} to {self.last_day}"


class UsageAdjustmentQuerySet(models.QuerySet["UsageAdjustment"]):
    def taking_cost_back(self) -> UsageAdjustmentQuerySet:
        """The latest adjustments of calls whose cost was taken back and isn't known yet: one per call."""
        later = UsageAdjustment.objects.filter(usage=OuterRef("usage"), id__gt=OuterRef("id"), digest_version__gt=1)
        return self.filter(~Exists(later), flags__contains=COST_UNKNOWN)


class UsageAdjustment(Digested):
    """A signed correction of a closed row, at most one per source and per re-rating. The row never changes.

    Figures of a call = its row + its adjustments (`llm.books.figures`). Counts, extra_meters and cost are differences;
    for a row without a cost, cost is the cost. If no price is known for the usage, it takes back the previous cost, and
    the flags contain `cost_unknown`. rate_set: what prices the call from now on, if it changes.
    service_tier, speed, inference_geo, flags, is_billable: the call's from now on. Adjustments of version 1 have no
    meters, tier, speed and region: for a late settlement these are lost.
    """

    usage = models.ForeignKey(Usage, on_delete=models.PROTECT, related_name="adjustments")
    source = models.CharField(max_length=20, choices=AdjustmentSource.choices)
    prompt_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    cache_write_5m_tokens = models.BigIntegerField(default=0)
    cache_write_1h_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    audio_input_tokens = models.BigIntegerField(default=0)
    audio_output_tokens = models.BigIntegerField(default=0)
    extra_meters = models.JSONField(default=dict, db_default=models.Value({}, models.JSONField()), blank=True)
    service_tier = models.CharField(max_length=50, blank=True, default="", db_default="")
    speed = models.CharField(max_length=20, blank=True, default="", db_default="")
    inference_geo = models.CharField(max_length=20, blank=True, default="", db_default="")
    flags = models.CharField(max_length=MAX_FLAGS_LENGTH, blank=True, default="", db_default="")
    cost = AmountField(null=True, blank=True)
    rate_set = models.ForeignKey(
        RateSet, null=True, blank=True, on_delete=models.PROTECT, db_index=False, related_name="+"
    )
    rerating = models.ForeignKey(
        ReratingRun, null=True, blank=True, on_delete=models.PROTECT, related_name="adjustments"
    )
    is_billable = models.BooleanField()
    reason = models.CharField(max_length=500)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    recorded_at = models.DateTimeField(help_text="Database clock, under the books' lock.")

    objects = UsageAdjustmentQuerySet.as_manager()

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=["usage", "source"], condition=Q(rerating=None), name="usageadjustment_once_a_source"
            ),
            models.UniqueConstraint(fields=["usage", "rerating"], name="usageadjustment_once_a_rerating"),
            models.CheckConstraint(
                condition=Q(source=AdjustmentSource.RERATING, rerating__isnull=False)
                | (~Q(source=AdjustmentSource.RERATING) & Q(rerating=None)),
                name="usageadjustment_names_rerating",
            ),
            models.CheckConstraint(
                condition=Q(source__in=AdjustmentSource.values), name="usageadjustment_source_known"
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="usageadjustment_has_reason"),
            models.CheckConstraint(condition=WHOLE_DIGEST, name="usageadjustment_has_digest"),
        )
        indexes = (models.Index(fields=["recorded_at"], name="usageadjustment_recorded"),)

    def __str__(self) -> str:
        return f"{self.get_source_display()} of {self.usage_id}"

    @property
    def service(self) -> Service:
        return Service(self.service_tier, self.speed, self.inference_geo)

    def canonical_text(self) -> bytes:
        facts = AdjustmentFacts._make(getattr(self, name) for name in AdjustmentFacts._fields)
        cost = None if self.cost is None else usd_to_pico(self.cost)
        return adjustment_text(facts._replace(cost=cost), version=self.digest_version)


class RefusedWrite(models.Model):
    """A settlement that the books rejected: the row has other values, or the database refuses the data.

    Stored whole for staff, once however often it is replayed.
    """

    digest = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the document.")
    usage_id = models.UUIDField(db_index=True)
    reason = models.CharField(max_length=200)
    document = models.JSONField()
    recorded_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "rejected ledger entry"
        verbose_name_plural = "rejected ledger entries"
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.usage_id}: {self.reason}"


class Redaction(models.Model):
    """A value of a closed row that was blanked because it contained one of our keys: see `llm.books.blanking`."""

    is_proven: ClassVar[bool] = True

    usage_id = models.UUIDField(db_index=True)
    field = models.CharField(max_length=50)
    redacted_at = models.DateTimeField()

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.field} of {self.usage_id}"


class BooksCheck(models.Model):
    """One run of `verify_books`: what it examined and what it found. marks: see `llm.audit.history`.

    until: it has counted everything recorded up to then; None for older runs. used: of the limits' current periods,
    window -> units used by the calls recorded until then.
    """

    is_proven: ClassVar[bool] = True

    scope = models.CharField(
        max_length=10, choices=CheckScope.choices, default=CheckScope.ALL, db_default=CheckScope.ALL, editable=False
    )
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField()
    until = models.DateTimeField(null=True, editable=False, help_text="Database clock.")
    rows = models.BigIntegerField()
    windows = models.BigIntegerField()
    problems = models.BigIntegerField()
    findings = models.JSONField(default=list, help_text="The first of them, one sentence each.")
    marks = models.JSONField(default=dict, editable=False, help_text="What later audits must find unchanged.")
    used = models.JSONField(default=dict, editable=False, help_text="Where the next audit resumes counting.")

    class Meta:
        verbose_name = "ledger audit"
        ordering = ("-id",)

    def __str__(self) -> str:
        problems = plural(self.problems, "problem") if self.problems else "no problems"
        return f"{self.started_at:%Y-%m-%d %H:%M} UTC: {problems}"


class CheckedDay(models.Model):
    """The calls of one day as read by an audit, for later audits to compare.

    day: of the calls' ids, UTC. rows: their number. digest: 64 hex digits of the sum of the closed rows and adjustments
    recorded up to `until`. problems: if there are any, each audit reads the day again, and the other values stay those
    of the last reading that found none.
    """

    is_proven: ClassVar[bool] = True

    books_check = models.ForeignKey(BooksCheck, on_delete=models.PROTECT, related_name="days")
    day = models.DateField()
    until = models.DateTimeField()
    rows = models.BigIntegerField()
    digest = models.CharField(max_length=64)
    problems = models.BigIntegerField(default=0)

    class Meta:
        ordering = ("-id",)
        constraints = (models.UniqueConstraint(fields=["books_check", "day"], name="checkedday_once_a_check"),)
        indexes = (models.Index(fields=["day", "-id"], name="checkedday_latest"),)

    def __str__(self) -> str:
        return f"{self.day}: {plural(self.rows, 'call')}"

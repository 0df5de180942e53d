"""Jobs that users request and workers do: requester, progress and result (see `billing.jobs.runner`)."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.text import capfirst

from billing.enums import BooksJobKind, JobState, MonthJobKind
from billing.periods import BillingPeriod
from llm.models import Account

UNFINISHED_STATES = (JobState.WAITING, JobState.RUNNING)


class Job(models.Model):
    """One task on a month. period_start: its first day.

    progress of total: while it runs, in the unit of its work. error: a sentence, if it failed. attempts: how often a
    worker has started it. lease_until: the worker that has it renews the lease; when it runs out, another may take
    over.
    """

    period_start = models.DateField()
    state = models.CharField(max_length=10, choices=JobState.choices, default=JobState.WAITING)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    progress = models.BigIntegerField(default=0)
    total = models.BigIntegerField(default=0)
    error = models.CharField(max_length=500, blank=True, default="")
    attempts = models.PositiveSmallIntegerField(default=0, editable=False)
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        abstract = True
        ordering = ("-id",)
        constraints: ClassVar[tuple[models.BaseConstraint, ...]] = (
            models.CheckConstraint(condition=Q(state__in=JobState.values), name="%(class)s_state_known"),
        )

    @property
    def period(self) -> BillingPeriod:
        return BillingPeriod(self.period_start)

    @property
    def is_unfinished(self) -> bool:
        return self.state in UNFINISHED_STATES


class ExportJob(Job):
    """One export. formats: names of `billing.exports.registry.FORMATS`. manifest: the written one, once it is done.

    account: the only one exported, for the customer and so without our costs; None for all of them. progress of total:
    rows of usage. folder: below the export folder of the settings.
    """

    account = models.ForeignKey(Account, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    formats = models.JSONField(default=list)
    folder = models.CharField(max_length=200, blank=True, default="")
    manifest = models.JSONField(null=True, blank=True)

    class Meta(Job.Meta):
        permissions = (("run_export", "Can export a month"),)

    def __str__(self) -> str:
        return f"Export of {self.period}{_whose(self.account)}"


class MonthJob(Job):
    """An invoice run or verification of a month, for all accounts or one. progress of total: accounts.

    counts: its results by name: drafted, kept, empty; or invoices, calls. problems: accounts that couldn't be billed,
    or differences found. findings: a sentence on each, up to a bound. There are no permissions of its own: users who
    may view invoices may view these.
    """

    kind = models.CharField(max_length=10, choices=MonthJobKind.choices)
    account = models.ForeignKey(Account, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    counts = models.JSONField(default=dict)
    problems = models.PositiveIntegerField(default=0)
    findings = models.JSONField(default=list)

    class Meta(Job.Meta):
        default_permissions = ()
        constraints = (
            *Job.Meta.constraints,
            models.CheckConstraint(condition=Q(kind__in=MonthJobKind.values), name="monthjob_kind_known"),
        )

    def __str__(self) -> str:
        return f"{capfirst(self.get_kind_display())} for {self.period}{_whose(self.account)}"


class BooksJob(Job):
    """A job on prices or calls rather than on a month: what the commands of the same names do.

    parameters: what it was started with. content: an uploaded file, until the job has ended. summary: its result in a
    sentence. problems, findings: of a ledger audit.
    """

    period_start = None  # type: ignore[assignment]
    kind = models.CharField(max_length=20, choices=BooksJobKind.choices)
    parameters = models.JSONField(default=dict)
    content = models.BinaryField(default=bytes, editable=False)
    summary = models.CharField(max_length=500, blank=True, default="")
    problems = models.PositiveIntegerField(default=0)
    findings = models.JSONField(default=list)

    class Meta(Job.Meta):
        verbose_name = "price and audit job"
        default_permissions = ("view",)
        permissions = (
            ("rerate_calls", "Can apply prices to past calls"),
            ("import_prices", "Can import the price list"),
            ("import_costs", "Can import providers' reports"),
            ("audit_books", "Can start ledger audits"),
        )
        constraints = (
            *Job.Meta.constraints,
            models.CheckConstraint(condition=Q(kind__in=BooksJobKind.values), name="booksjob_kind_known"),
        )

    def __str__(self) -> str:
        what = self.parameters.get("model") or self.parameters.get("file_name") or ""
        tried = " (preview)" if self.parameters.get("is_dry") else ""
        return f"{capfirst(self.get_kind_display())}{tried}{f' of {what}' if what else ''}"


def _whose(account: Account | None) -> str:
    return f", {account}" if account else ""

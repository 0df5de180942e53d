"""The books: one row per call, in one of two tables. A call is in `OpenCall` until it is closed, then in `Usage`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import Any, Self, TypeVar
from uuid import UUID

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.expressions import RawSQL
from django.db.models.lookups import Exact
from django.db.models.sql.compiler import SQLCompiler

from llm.digests import ClosedFacts, OpenedFacts, usage_text
from llm.enums import CallOutcome, Dialect, UsageSource, UsageStatus
from llm.fields import AmountField
from llm.ids import first_id_at
from llm.indexes import BlockRangeIndex
from llm.models.accounts import Account, ApiKey
from llm.models.catalog import Price, RateSet
from llm.models.digested import NO_DIGEST, WHOLE_DIGEST, Digested
from llm.money import usd_to_pico
from llm.types import END_USER_LENGTH, MAX_FLAGS_LENGTH, TOKEN_FIELDS, Service

IN_DOUBT = Q(outcome=CallOutcome.LOST) | Q(is_disputed=True)
"""It is unknown what these have used: their process died, or their upstream reported the impossible."""

_CLOSED = ~Q(status=UsageStatus.OPEN)

_M = TypeVar("_M", bound=models.Model)

# Somewhere on Earth a day begins 14 hours before it does in UTC, and ends 12 hours after; ids use the gateways' clocks,
# days the database's.
_DAY_BEGINS = timedelta(hours=14, minutes=15)
_DAY_ENDS = timedelta(hours=12, minutes=15)


class TagValue(models.Func):
    """The value of a call's tag, NULL if it has none with that key.

    Not Django's transforms of a JSONField: those take a key of digits for an index into a list.
    """

    function = "jsonb_extract_path_text"
    output_field = models.TextField()

    def __init__(self, key: str) -> None:
        super().__init__(F("tags"), models.Value(key))

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any) -> Any:
        template = "(SELECT value FROM json_each(%(expressions)s LIMIT 1)"
        return self.as_sql(compiler, connection, template=template, arg_joiner=") WHERE key = ", **context)


class CallQuerySet(models.QuerySet[_M]):
    """What open and closed calls can both be looked for by."""

    def near_days(self, first: date | None, last: date | None) -> Self:
        """Bounds of the ids of all calls of those local days, in any time zone, so that an index finds them.

        Both days are inclusive, and within 2000 to 2999; None is no bound.
        """
        calls = self
        if first is not None:
            calls = calls.filter(id__gte=first_id_at(_midnight(first) - _DAY_BEGINS))
        if last is not None:
            calls = calls.filter(id__lt=first_id_at(_midnight(last) + timedelta(days=1) + _DAY_ENDS))
        return calls

    def by_end_users(self, hashes: Collection[str]) -> Self:
        """Calls of these end users, by their index; hashes: from `llm.endusers.find_hashes`."""
        return self.filter(is_by_end_users(hashes))

    def tagged(self, key: str, value: str) -> Self:
        """Calls with this tag. No index finds them: narrow them down by account and days."""
        return self.filter(is_tagged(key, value))


class UsageQuerySet(CallQuerySet["Usage"]):
    def unpriced(self) -> UsageQuerySet:
        """Calls that used tokens without a known price: staff set a price or declare them free, and re-rate them.

        No index finds all of them: if nothing else narrows them down, read the two kinds, each of which has one.
        """
        return self.filter(is_unpriced())

    def never_priced(self) -> UsageQuerySet:
        """Unpriced since they were closed."""
        return self.filter(_never_priced())

    def cost_taken_back(self) -> UsageQuerySet:
        """Unpriced since their usage became known: lost calls that had the cost of their estimate."""
        return self.filter(_cost_taken_back())

    def undecided(self) -> UsageQuerySet:
        """Doubtful calls, until a late settlement, the provider or staff say what they used."""
        decided = ("spool", "decision", "provider")
        return self.filter(IN_DOUBT).exclude(adjustments__source__in=decided)


def is_by_end_users(hashes: Collection[str]) -> Q:
    """See `UsageQuerySet.by_end_users`. The second condition is the index's own, without which it isn't used."""
    return Q(end_user__in=sorted(hashes)) & ~Q(end_user="")


def is_tagged(key: str, value: str) -> Q:
    """See `UsageQuerySet.tagged`."""
    return Q(Exact(TagValue(key), models.Value(value)))


def is_unpriced() -> Q:
    """See `UsageQuerySet.unpriced`."""
    return _never_priced() | _cost_taken_back()


def is_priced() -> Q:
    """For a closed call, whether its cost is known, adjustments included."""
    return _has_cost() & ~_cost_taken_back()


def _never_priced() -> Q:
    """The statuses are written out: SQLite only matches the partial index if they aren't parameters."""
    closed = RawSQL("llm_usage.status IN ('settled', 'estimated')", (), output_field=models.BooleanField())
    return Q(closed, cost=None) & ~_has_cost()


def _has_cost() -> Q:
    return Q(cost__isnull=False) | Q(Exists(_adjustments().filter(usage=OuterRef("pk"), cost__isnull=False)))


def _cost_taken_back() -> Q:
    """Only among doubtful calls, since others aren't corrected: an index finds those."""
    return IN_DOUBT & Q(Exists(_adjustments().taking_cost_back().filter(usage=OuterRef("pk"))))


def _adjustments() -> Any:
    """Imported late: their module imports this one."""
    return Usage._meta.get_field("adjustments").related_model._default_manager


class Usage(Digested):
    """One upstream call of one request: who, what, how many tokens, at what cost, and how we know.

    Written when the call is closed, before the caller's last byte, and never changed; until then it is an `OpenCall`.
    id is a uuid7, so ids sort by time. A retry or fallback is another row with the same `request_id`.
    cost: pico-units of USD, what the provider charges us; NULL if unpriced.
    status: `open` is only that of an `OpenCall` shown as such a row.
    """

    id = models.UUIDField(primary_key=True)
    request_id = models.UUIDField()
    attempt = models.PositiveSmallIntegerField(default=1)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="usage", db_index=False)
    api_key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, related_name="usage", db_index=False)
    process_id = models.UUIDField(help_text="The gateway process that made the call.")

    dialect = models.CharField(max_length=20, choices=Dialect.choices)
    provider = models.CharField(max_length=50)
    provider_instance = models.CharField(
        max_length=50,
        blank=True,
        default="",
        db_default="",
        help_text="Which configuration of the provider was called; empty in calls from before this was recorded.",
    )
    credential = models.CharField(
        max_length=20,
        blank=True,
        default="",
        db_default="",
        help_text="Which of the provider's keys the call was sent with: a keyed hash; empty where there was none.",
    )
    model = models.CharField(max_length=200, help_text="The name the caller requested.")
    upstream_model = models.CharField(max_length=200, help_text="The name the gateway requested from the provider.")
    reported_model = models.CharField(max_length=200, blank=True, default="")
    upstream_response_id = models.CharField(max_length=200, blank=True, default="")
    service_tier = models.CharField(max_length=50, blank=True, default="")
    speed = models.CharField(max_length=20, blank=True, default="", db_default="", help_text="As served.")
    inference_geo = models.CharField(max_length=20, blank=True, default="", db_default="", help_text="As served.")
    flags = models.CharField(
        max_length=MAX_FLAGS_LENGTH,
        blank=True,
        default="",
        db_default="",
        help_text="Keywords on how the figures were obtained, sorted, separated by single spaces.",
    )
    end_user = models.CharField(
        max_length=END_USER_LENGTH,
        blank=True,
        default="",
        db_default="",
        help_text="A keyed hash of the end user's name (llm.endusers); empty where none was given.",
    )
    tags = models.JSONField(default=dict, db_default=models.Value({}, models.JSONField()), blank=True)
    is_stream = models.BooleanField(default=False)
    request_bytes = models.PositiveIntegerField(default=0, help_text="Size of the request's body.")
    holds = models.JSONField(
        null=True,
        blank=True,
        help_text="What the call has reserved, or had reserved, of limits: [[window, units], ...].",
    )

    status = models.CharField(max_length=10, choices=UsageStatus.choices, default=UsageStatus.OPEN)
    usage_source = models.CharField(max_length=10, choices=UsageSource.choices, default=UsageSource.NONE)
    outcome = models.CharField(max_length=20, choices=CallOutcome.choices, default=CallOutcome.PENDING)
    error_code = models.CharField(max_length=50, blank=True, default="")
    upstream_status = models.PositiveSmallIntegerField(null=True, blank=True)

    opened_at = models.DateTimeField(help_text="Database clock.")
    closed_at = models.DateTimeField(null=True, blank=True, help_text="Database clock.")
    recorded_at = models.DateTimeField(help_text="Database clock of the last write, under the books' lock.")
    local_day = models.DateField(help_text="The day of opened_at in the account's time zone, frozen at open.")
    first_byte_ms = models.PositiveIntegerField(null=True, blank=True)
    duration_ms = models.PositiveIntegerField(null=True, blank=True)

    prompt_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    cache_write_5m_tokens = models.BigIntegerField(default=0)
    cache_write_1h_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    audio_input_tokens = models.BigIntegerField(default=0)
    audio_output_tokens = models.BigIntegerField(default=0)
    extra_meters = models.JSONField(default=dict, blank=True)

    price = models.ForeignKey(Price, null=True, blank=True, on_delete=models.PROTECT, db_index=False, related_name="+")
    rate_set = models.ForeignKey(
        RateSet, null=True, blank=True, on_delete=models.PROTECT, db_index=False, related_name="+"
    )
    cost = AmountField(null=True, blank=True)
    upstream_cost = AmountField(
        null=True, blank=True, help_text="The provider's own figure of the cost, in USD, where it sent one."
    )
    is_billable = models.BooleanField(default=True)
    is_disputed = models.BooleanField(default=False)
    disputed_usage = models.JSONField(
        null=True, blank=True, help_text="Usage that can't be right, as the provider sent it."
    )

    objects = UsageQuerySet.as_manager()

    class Meta:
        verbose_name = verbose_name_plural = "usage"
        ordering = ("-id",)
        indexes = (
            models.Index(fields=["account", "-id"], name="usage_account"),
            models.Index(fields=["api_key", "-id"], name="usage_key"),
            models.Index(fields=["model", "-id"], name="usage_model"),
            models.Index(fields=["local_day", "account"], name="usage_day"),
            models.Index(fields=["request_id"], name="usage_request"),
            models.Index(
                fields=["id"], condition=Q(status__in=["settled", "estimated"], cost=None), name="usage_unpriced"
            ),
            models.Index(fields=["id"], condition=IN_DOUBT, name="usage_in_doubt"),
            models.Index(fields=["upstream_response_id"], condition=~Q(upstream_response_id=""), name="usage_response"),
            # Only calls with an end user pay for this index. Without it, finding one person's calls, for example to
            # tell them what is stored, would read all calls of the account.
            models.Index(fields=["end_user", "-id"], condition=~Q(end_user=""), name="usage_end_user"),
            BlockRangeIndex(fields=["recorded_at"], autosummarize=True, name="usage_recorded"),
        )
        constraints = (
            models.CheckConstraint(condition=Q(status__in=UsageStatus.values), name="usage_status_known"),
            models.CheckConstraint(condition=Q(outcome__in=CallOutcome.values), name="usage_outcome_known"),
            models.CheckConstraint(condition=Q(dialect__in=Dialect.values), name="usage_dialect_known"),
            models.CheckConstraint(condition=Q(usage_source__in=UsageSource.values), name="usage_source_known"),
            models.CheckConstraint(
                condition=Q(**{f"{name}__gte": 0 for name in TOKEN_FIELDS}), name="usage_tokens_not_negative"
            ),
            models.CheckConstraint(
                condition=Q(
                    prompt_tokens__gte=F("cache_read_tokens") + F("cache_write_5m_tokens") + F("cache_write_1h_tokens")
                )
                & Q(prompt_tokens__gte=F("audio_input_tokens"))
                & Q(completion_tokens__gte=F("reasoning_tokens"))
                & Q(completion_tokens__gte=F("audio_output_tokens")),
                name="usage_parts_within_totals",
            ),
            models.CheckConstraint(condition=Q(cost=None) | Q(cost__gte=0), name="usage_cost_not_negative"),
            models.CheckConstraint(condition=~IN_DOUBT | Q(is_billable=False), name="usage_in_doubt_not_billable"),
            models.CheckConstraint(
                condition=Q(
                    status=UsageStatus.OPEN,
                    closed_at=None,
                    cost=None,
                    outcome=CallOutcome.PENDING,
                    prompt_tokens=0,
                    completion_tokens=0,
                )
                | (_CLOSED & Q(closed_at__isnull=False) & ~Q(outcome=CallOutcome.PENDING)),
                name="usage_open_or_closed",
            ),
            models.CheckConstraint(
                condition=~Q(status=UsageStatus.VOID)
                | (Q(prompt_tokens=0, completion_tokens=0) & (Q(cost=None) | Q(cost=0))),
                name="usage_void_is_empty",
            ),
            models.CheckConstraint(
                condition=(Q(status=UsageStatus.OPEN) & NO_DIGEST) | (_CLOSED & WHOLE_DIGEST),
                name="usage_with_digest_once_closed",
            ),
        )

    def __str__(self) -> str:
        return str(self.id)

    def canonical_text(self) -> bytes:
        opened = OpenedFacts._make(getattr(self, name) for name in OpenedFacts._fields)
        closed = ClosedFacts._make(getattr(self, name) for name in ClosedFacts._fields)
        closed = closed._replace(cost=_pico(self.cost), upstream_cost=_pico(self.upstream_cost))
        return usage_text(opened, closed, version=self.digest_version)

    @property
    def service(self) -> Service:
        """How the call was served, according to the row; adjustments may have changed it (`llm.books.figures`)."""
        return Service(self.service_tier, self.speed, self.inference_geo)

    @property
    def provider_and_instance(self) -> str:
        """The name that it is booked as, with that of the instance where they differ."""
        is_same = self.provider_instance in ("", self.provider)
        return self.provider if is_same else f"{self.provider} ({self.provider_instance})"

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def is_unpriced(self) -> bool:
        closed: tuple[Any, ...] = (UsageStatus.SETTLED, UsageStatus.ESTIMATED)
        return self.status in closed and self.cost is None


class OpenCall(models.Model):
    """A call in flight: written durably before anything is sent, deleted in the transaction that writes its `Usage`.

    Exactly what is known at open, and named as there. service_tier, speed, inference_geo: as requested.
    What a closed call's table would refuse is refused here already, since a close must not fail.
    """

    id = models.UUIDField(primary_key=True)
    request_id = models.UUIDField()
    attempt = models.PositiveSmallIntegerField(default=1)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="open_calls", db_index=False)
    api_key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, related_name="open_calls", db_index=False)
    process_id = models.UUIDField()
    dialect = models.CharField(max_length=20, choices=Dialect.choices)
    provider = models.CharField(max_length=50)
    provider_instance = models.CharField(max_length=50, blank=True, default="")
    credential = models.CharField(max_length=20, blank=True, default="")
    model = models.CharField(max_length=200)
    upstream_model = models.CharField(max_length=200)
    service_tier = models.CharField(max_length=50, blank=True, default="")
    speed = models.CharField(max_length=20, blank=True, default="")
    inference_geo = models.CharField(max_length=20, blank=True, default="")
    end_user = models.CharField(max_length=END_USER_LENGTH, blank=True, default="")
    tags = models.JSONField(default=dict, blank=True)
    is_stream = models.BooleanField(default=False)
    request_bytes = models.PositiveIntegerField(default=0)
    holds = models.JSONField(null=True, blank=True)
    price = models.ForeignKey(Price, null=True, blank=True, on_delete=models.PROTECT, db_index=False, related_name="+")
    opened_at = models.DateTimeField()
    local_day = models.DateField()

    objects = CallQuerySet["OpenCall"].as_manager()

    class Meta:
        verbose_name = "call in flight"
        verbose_name_plural = "calls in flight"
        ordering = ("-id",)
        default_permissions = ()
        # Rows live for seconds: whoever looks for some of them reads all. Only whether a request is in progress is
        # asked too often for that.
        indexes = (models.Index(fields=["request_id"], name="opencall_request"),)
        constraints = (models.CheckConstraint(condition=Q(dialect__in=Dialect.values), name="opencall_dialect_known"),)

    def __str__(self) -> str:
        return str(self.id)

    @property
    def service(self) -> Service:
        """As requested."""
        return Service(self.service_tier, self.speed, self.inference_geo)

    def as_usage(self) -> Usage:
        """As a row whose figures are still empty, for what shows calls. The database refuses to store it."""
        facts = {field.attname: getattr(self, field.attname) for field in self._meta.concrete_fields}
        row = Usage(**facts, status=UsageStatus.OPEN, recorded_at=self.opened_at)
        row._state.adding, row._state.db = False, self._state.db
        row._state.fields_cache.update(self._state.fields_cache)
        # What a query has annotated.
        row.__dict__.update({name: value for name, value in vars(self).items() if name not in {*facts, "_state"}})
        row._prefetched_objects_cache = {"adjustments": _adjustments().none()}  # type: ignore[attr-defined]  # Django's
        return row


def find_call(call_id: UUID, *, closed: models.QuerySet[Usage], opened: models.QuerySet[OpenCall]) -> Usage | None:
    """The call, whether it is open or closed; an open one as `OpenCall.as_usage` shows it.

    Open calls are looked at first: a call moves from there to the closed ones, so it can't be missed in both.
    """
    found = opened.filter(pk=call_id).first()
    return closed.filter(pk=call_id).first() if found is None else found.as_usage()


def merge_calls(opened: Iterable[OpenCall], closed: Iterable[Usage], *, newest_first: bool = True) -> list[Usage]:
    """By id. opened: read before `closed`, which wins if a call was closed in between."""
    calls = {call.pk: call.as_usage() for call in opened} | {call.pk: call for call in closed}
    return sorted(calls.values(), key=attrgetter("pk"), reverse=newest_first)


def _pico(amount: Decimal | None) -> int | None:
    return None if amount is None else usd_to_pico(amount)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)

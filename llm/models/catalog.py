"""What can be called and what it costs us: routes and prices, under one version number.

Every write here raises `CatalogVersion` in its own transaction. The gateway's open batch compares it with the version
under which a call was resolved, so a changed price or route acts on the very next call in every process.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, ClassVar, NoReturn, Self, TypeVar

from django.conf import settings
from django.db import models, transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Greatest
from django.utils import timezone

from llm.enums import PriceSource
from llm.fields import PriceField
from llm.money import PRICE_DECIMALS
from llm.types import Service

TOKENS_PER_PRICE: int = 10**PRICE_DECIMALS
"""Prices of tokens are per million."""

_M = TypeVar("_M", bound=models.Model)


class CatalogVersion(models.Model):
    """One row (id 1) whose number grows with each change of the catalog; a missing row is version 0.

    It becomes at least the clock's microseconds, so that a version never recurs, not even after restoring a backup: a
    process's cached catalog is never mistaken for the current one.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    version = models.BigIntegerField(default=0)

    class Meta:
        constraints = (models.CheckConstraint(condition=Q(id=1), name="catalogversion_single_row"),)

    def __str__(self) -> str:
        return str(self.version)

    @classmethod
    def current(cls) -> int:
        return cls.objects.filter(pk=1).values_list("version", flat=True).first() or 0

    @classmethod
    def bump(cls) -> None:
        """Call it in the transaction of the change; the row's lock serialises writers of the catalog."""
        grown = Greatest(F("version") + 1, Value(time.time_ns() // 1000))
        if not cls.objects.filter(pk=1).update(version=grown):
            cls.ensure()
            cls.objects.filter(pk=1).update(version=grown)

    @classmethod
    def ensure(cls) -> None:
        """Create the row, at version 0; safe against concurrent creation."""
        CatalogVersion.objects.bulk_create([CatalogVersion(pk=1, version=0)], ignore_conflicts=True)


class CatalogQuerySet(models.QuerySet[_M]):
    """Raises the version for writes that bypass `save()` too."""

    def update(self, **kwargs: Any) -> int:
        with transaction.atomic(using=self.db):
            changed = super().update(**kwargs)
            CatalogVersion.bump()
        return changed

    def delete(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic(using=self.db):
            deleted = super().delete()
            CatalogVersion.bump()
        return deleted

    def bulk_create(self, objs: Iterable[_M], *args: Any, **kwargs: Any) -> list[_M]:
        with transaction.atomic(using=self.db):
            created = super().bulk_create(objs, *args, **kwargs)
            CatalogVersion.bump()
        return created


class CatalogModel(models.Model):
    """A row whose changes must apply from the next call."""

    objects: ClassVar[models.Manager[Self]] = CatalogQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        with transaction.atomic():
            super().save(*args, **kwargs)
            CatalogVersion.bump()

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            deleted = super().delete(*args, **kwargs)
            CatalogVersion.bump()
        return deleted


class ImmutableRowError(Exception):
    """A written price is history; a correction is a new price."""


class ImmutableQuerySet(CatalogQuerySet[_M]):
    def update(self, **kwargs: Any) -> NoReturn:
        raise ImmutableRowError(f"{self.model._meta.verbose_name} rows never change")

    def delete(self) -> NoReturn:
        raise ImmutableRowError(f"{self.model._meta.verbose_name} rows are never deleted")


class ImmutableCatalogModel(CatalogModel):
    """Written once: usage rows refer to these to prove what they cost."""

    objects: ClassVar[models.Manager[Self]] = ImmutableQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise ImmutableRowError(f"{self._meta.verbose_name} {self.pk} can't be changed; set a new price instead")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ImmutableRowError(f"{self._meta.verbose_name} {self.pk} can't be deleted; set a new price instead")


class ModelRoute(CatalogModel):
    """A public model name. Its first target is called; the others are fallbacks in order."""

    name = models.CharField(
        max_length=200, unique=True, help_text="The name that callers use. One * stands for any characters: claude-*"
    )
    is_active = models.BooleanField(default=True, help_text="To callers, an inactive route doesn't exist.")
    allows_provider_routing = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Callers may let the provider choose another model or provider, with fields such as models, provider "
        "or plugins. Each call is priced as the provider reports it; under a cost limit such calls are refused.",
    )
    falls_back_on_server_error = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Also call the next target after a status such as 500, 502 or 504, where the one before may have "
        "done the work. Both calls are then charged.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "route"
        ordering = ("name",)
        constraints = (models.CheckConstraint(condition=~Q(name=""), name="route_has_name"),)

    def __str__(self) -> str:
        return self.name


class RouteTarget(CatalogModel):
    """One provider's model behind a route. provider: the name of an instance, or of a provider for its first one."""

    route = models.ForeignKey(ModelRoute, on_delete=models.CASCADE, related_name="targets")
    position = models.PositiveSmallIntegerField(default=0, help_text="0 is called first, the others are fallbacks.")
    provider = models.CharField(max_length=50)
    upstream_model = models.CharField(
        max_length=200,
        help_text="The provider's name for the model. A * stands for what it stands for in the route's name.",
    )
    weight = models.PositiveSmallIntegerField(
        default=0,
        db_default=0,
        help_text="Its share of the calls among the targets that have a weight; without one it is a fallback.",
    )

    class Meta:
        verbose_name = "target"
        ordering = ("route", "position")
        constraints = (
            models.UniqueConstraint(fields=["route", "position"], name="target_position_once"),
            models.CheckConstraint(condition=~Q(provider="") & ~Q(upstream_model=""), name="target_names_a_model"),
        )

    def __str__(self) -> str:
        return f"{self.provider}: {self.upstream_model}"


class Price(ImmutableCatalogModel):
    """What one model of a provider costs from `effective_from` on, until a later price of the same rank.

    Of all prices that match a call, staff's take precedence over imported ones, then exact names over patterns, of
    staff's patterns the longest, then the latest. So a price set by staff also holds against later imports, until staff
    set another.

    match: None for the exact name `model`, else clauses as in genai-prices (see `llm.prices.catalog`).
    is_free: tokens of the standard service cost nothing; it has no rates. Calls that a re-rating made free refer to a
    rate set of it, which has none either.
    unpriced_meters: meters that the source prices and we can't express; calls that use one become unpriced.
    """

    provider = models.CharField(max_length=50)
    model = models.CharField(max_length=200, help_text="The provider's name for the model.")
    match = models.JSONField(null=True, blank=True, help_text="Other model names the price applies to.")
    effective_from = models.DateTimeField(default=timezone.now)
    source = models.CharField(max_length=10, choices=PriceSource.choices)
    is_free = models.BooleanField(default=False)
    note = models.TextField(blank=True, default="")
    context_window = models.PositiveIntegerField(
        null=True, blank=True, help_text="Maximum tokens of input and output together."
    )
    unpriced_meters = models.JSONField(default=list, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, editable=False, on_delete=models.PROTECT, related_name="+"
    )

    class Meta:
        ordering = ("provider", "model", "-effective_from", "source")
        constraints = (
            models.UniqueConstraint(
                fields=["provider", "model", "effective_from", "source"], name="price_once_per_moment"
            ),
            models.CheckConstraint(condition=Q(source__in=PriceSource.values), name="price_source_known"),
            models.CheckConstraint(condition=~Q(provider="") & ~Q(model=""), name="price_names_a_model"),
        )

    def __str__(self) -> str:
        return f"{self.provider}: {self.model}, {self.source} from {self.effective_from:%Y-%m-%d %H:%M}Z"

    @property
    def is_partly_unpriced(self) -> bool:
        return bool(self.unpriced_meters)


class RateSet(ImmutableCatalogModel):
    """The rates of one context tier, service tier, speed and region; the tier reached reprices the whole request."""

    price = models.ForeignKey(Price, on_delete=models.PROTECT, related_name="rate_sets")
    min_prompt_tokens = models.PositiveBigIntegerField(
        default=0, help_text="Applies to requests with at least this many prompt tokens."
    )
    service_tier = models.CharField(
        max_length=50, blank=True, default="", help_text="As the provider reports it; empty for its standard service."
    )
    speed = models.CharField(
        max_length=20,
        blank=True,
        default="",
        db_default="",
        help_text="As the provider reports it; empty for its standard speed.",
    )
    inference_geo = models.CharField(
        max_length=20,
        blank=True,
        default="",
        db_default="",
        help_text="Where the model ran, as the provider reports it; empty for anywhere.",
    )

    class Meta:
        ordering = ("price", "service_tier", "speed", "inference_geo", "min_prompt_tokens")
        constraints = (
            models.UniqueConstraint(
                fields=["price", "service_tier", "speed", "inference_geo", "min_prompt_tokens"],
                name="rateset_once_per_variant",
            ),
        )

    def __str__(self) -> str:
        named = ", ".join(each for each in (self.service_tier, self.speed, self.inference_geo) if each) or "standard"
        return f"{named}, from {self.min_prompt_tokens} prompt tokens" if self.min_prompt_tokens else named

    @property
    def service(self) -> Service:
        return Service(self.service_tier, self.speed, self.inference_geo)


class Rate(ImmutableCatalogModel):
    """USD per `per_units` of one meter.

    meter: a `Meter`, or the name of an extra meter (a key of `TokenCounts.extra_meters`).
    """

    rate_set = models.ForeignKey(RateSet, on_delete=models.PROTECT, related_name="rates")
    meter = models.CharField(max_length=50)
    amount = PriceField(help_text="USD per the number of units given beside it, at most 6 decimals.")
    per_units = models.PositiveIntegerField(default=TOKENS_PER_PRICE)

    class Meta:
        ordering = ("rate_set", "id")
        constraints = (
            models.UniqueConstraint(fields=["rate_set", "meter"], name="rate_once_per_meter"),
            models.CheckConstraint(condition=Q(amount__gte=0), name="rate_not_negative"),
            # Divisors of 10**6, so that one unit always costs a whole number of pico-units.
            models.CheckConstraint(condition=Q(per_units__in=(1, 1000, TOKENS_PER_PRICE)), name="rate_per_units_known"),
            models.CheckConstraint(condition=~Q(meter=""), name="rate_has_meter"),
        )

    def __str__(self) -> str:
        return f"{self.meter} {self.amount:f} USD per {self.per_units}"

    @property
    def pico_per_unit(self) -> int:
        """Exact: see the constraint on `per_units`."""
        return int(self.amount.scaleb(PRICE_DECIMALS)) * (TOKENS_PER_PRICE // self.per_units)

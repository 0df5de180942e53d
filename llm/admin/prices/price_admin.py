"""Prices: staff add and view them; none is ever changed or deleted."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llm.admin import usage_summaries
from llm.admin.base import GatewayAdmin
from llm.admin.format import NOTHING, badge, moment, side_by_side
from llm.admin.prices.catalog import current_catalog
from llm.admin.prices.forms import RATE_FIELDS, UNIT_FIELDS, PriceForm
from llm.admin.prices.rate_tables import rate_tables
from llm.enums import Meter, PriceSource
from llm.models import Price, Rate
from llm.money import format_usd
from llm.prices.pricing import STANDARD
from llm.prices.staff import PriceRefusedError, set_price
from llm.types import Service


def with_standing(prices: QuerySet[Price], now: datetime) -> QuerySet[Price]:
    """Adds is_superseded: a later price of the same source has begun, or one set by staff replaces an imported one."""
    is_later = Q(source=OuterRef("source"), effective_from__gt=OuterRef("effective_from"))
    is_staffs = Q(source=PriceSource.STAFF) & ~Q(source=OuterRef("source"))
    begun = Price.objects.filter(provider=OuterRef("provider"), model=OuterRef("model"), effective_from__lte=now)
    return prices.annotate(is_superseded=Exists(begun.filter(is_later | is_staffs)))


class StandingFilter(admin.SimpleListFilter):
    title = "standing"
    parameter_name = "standing"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("in_force", "In force"), ("later", "Scheduled"), ("superseded", "Replaced")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Price]) -> QuerySet[Price]:
        now = timezone.now()
        conditions = {
            "in_force": Q(effective_from__lte=now, is_superseded=False),
            "later": Q(effective_from__gt=now),
            "superseded": Q(effective_from__lte=now, is_superseded=True),
        }
        return queryset.filter(conditions.get(self.value() or "", Q()))


class CompletenessFilter(admin.SimpleListFilter):
    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("free", "Free"), ("partly", "Partly unpriced")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Price]) -> QuerySet[Price]:
        conditions = {"free": Q(is_free=True), "partly": ~Q(unpriced_meters=[])}
        return queryset.filter(conditions.get(self.value() or "", Q()))


@admin.register(Price)
class PriceAdmin(GatewayAdmin[Price]):
    form = PriceForm
    list_display = ("model", "provider", "input_rate", "output_rate", "cached_rate", "standing", "since", "set_by")
    list_filter = (StandingFilter, "provider", "source", CompletenessFilter)
    list_per_page = 100
    search_fields = ("model",)
    search_help_text = "Search by the provider's model name."
    ordering = ("provider", "model", "-effective_from")

    def has_change_permission(self, request: HttpRequest, obj: Price | None = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.unpriced_view)
        return [path("unpriced/", view, name="llm_price_unpriced"), *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Price]:
        prices = super().get_queryset(request).select_related("created_by").prefetch_related("rate_sets__rates")
        return with_standing(prices, timezone.now())

    def get_fieldsets(self, request: HttpRequest, obj: Price | None = None) -> Any:
        model = ("provider", "model", "effective_from")
        if obj is not None:
            return ((None, {"fields": model}),)
        rates = tuple(RATE_FIELDS)
        return (
            (
                None,
                {
                    "fields": model,
                    "description": "Applies to exactly this model and takes precedence over imported prices, "
                    "until staff set another. One * stands for any characters: ft:gpt-4.1-* is the price of all such "
                    "models that have no price of their own by staff. "
                    "A price can't be changed afterwards; to correct one, set a new one.",
                },
            ),
            (
                "How the provider serves it",
                {
                    "fields": Service._fields,
                    "description": "Leave empty for the standard service. Rates for another service are added "
                    "to the standard ones; a "
                    "call served in a way that has no rates is unpriced.",
                },
            ),
            (
                "USD per million tokens",
                {"fields": ("is_free", *rates), "classes": ("gw-rates",)},
            ),
            (
                "USD per thousand non-token units",
                {
                    "fields": tuple(UNIT_FIELDS),
                    "classes": ("gw-rates",),
                    "description": "Empty: same as in the previous price; if that has none either, calls that "
                    "use it are unpriced.",
                },
            ),
            ("For the record", {"fields": ("note",)}),
        )

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return super().add_view(request, form_url, {"title": "Set a price", **(extra_context or {})})

    def save_model(self, request: HttpRequest, obj: Price, form: Any, change: bool) -> None:
        """Raises ValidationError if another user was faster, between the form's validation and the write."""
        try:
            written = set_price(
                obj.provider,
                obj.model,
                rates=form.rates(),
                per_thousand=form.per_thousand(),
                effective_from=obj.effective_from,
                is_free=obj.is_free,
                service=form.service(),
                created_by=cast("User", request.user),
                note=obj.note,
            )
        except PriceRefusedError as error:
            raise ValidationError(str(error)) from error
        obj.pk, obj.source = written.pk, written.source

    def response_add(self, request: HttpRequest, obj: Price, post_url_continue: str | None = None) -> HttpResponse:
        """Leads on to past calls of the model that had no price, if there are any that this one covers."""
        found = usage_summaries.unpriced_models() if may_rerate(request) else []
        entry = next((each for each in found if (each.provider, each.model) == (obj.provider, obj.model)), None)
        if entry is None or entry.last_at < obj.effective_from:
            return super().response_add(request, obj, post_url_continue)
        self.message_user(request, "The price was set. Past calls without a price can have it too.", messages.SUCCESS)
        asked = {"provider": obj.provider, "model": obj.model, "first": str(entry.first_day)}
        query = urlencode({**asked, "reason": "It had no price."})
        return HttpResponseRedirect(f"{reverse('admin:billing_booksjob_rerate')}?{query}")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        price = self.get_object(request, object_id)
        context = {"rate_tables": rate_tables(price), "subtitle": None} if price is not None else {}
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def unpriced_view(self, request: HttpRequest) -> HttpResponse:
        """Models that were called without a price, and whether they have one now."""
        if not (self.has_view_permission(request) and request.user.has_perm("llm.view_usage")):
            raise PermissionDenied
        catalog, now = current_catalog(), timezone.now()
        found = [
            (entry, catalog.price_for(entry.provider, entry.model, at=now))
            for entry in usage_summaries.unpriced_models()
        ]
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Models without a price",
            "unpriced": [entry for entry, price in found if price is None],
            "priced_since": [(entry, price) for entry, price in found if price is not None],
            "looked_at": usage_summaries.UNPRICED_CALLS_LOOKED_AT,
            "may_set": self.has_add_permission(request),
            "may_rerate": may_rerate(request),
        }
        return TemplateResponse(request, "admin/llm/price/unpriced.html", context)

    @admin.display(description="Input")
    def input_rate(self, price: Price) -> SafeString | str:
        return _rate_cell(price, Meter.INPUT)

    @admin.display(description="Output")
    def output_rate(self, price: Price) -> SafeString | str:
        return _rate_cell(price, Meter.OUTPUT)

    @admin.display(description="Cached input")
    def cached_rate(self, price: Price) -> SafeString | str:
        return _rate_cell(price, Meter.CACHE_READ)

    @admin.display(description="Status")
    def standing(self, price: Price) -> SafeString:
        return standing_badges(price, timezone.now())

    @admin.display(description="In force from", ordering="effective_from")
    def since(self, price: Price) -> str:
        return moment(price.effective_from)

    @admin.display(description="Source", ordering="source")
    def set_by(self, price: Price) -> str:
        return str(price.created_by) if price.created_by else price.get_source_display()


def may_rerate(request: HttpRequest) -> bool:
    """Whether the pages of `billing` that apply prices to past calls are open to this user."""
    return request.user.has_perms(("billing.rerate_calls", "billing.view_booksjob", "llm.view_price"))


def standing_badges(price: Price, now: datetime) -> SafeString:
    """price: from `with_standing`."""
    badges = []
    if price.effective_from > now:
        badges.append(badge("later", "later"))
    else:
        badges.append(badge("superseded" if price.is_superseded else "in force"))  # type: ignore[attr-defined]
    if price.is_free:
        badges.append(badge("free"))
    if price.is_partly_unpriced:
        badges.append(badge("partly unpriced"))
    return side_by_side(badges)


def _rate_cell(price: Price, meter: Meter) -> SafeString | str:
    """The standard rate, from the list's prefetched rows."""
    if price.is_free:
        return format_html('<span class="gw-num">{}</span>', "0")
    rate = _standard_rate(price, meter)
    return NOTHING if rate is None else format_html('<span class="gw-num">{}</span>', format_usd(rate.amount))


def _standard_rate(price: Price, meter: Meter) -> Rate | None:
    standard = [rate_set for rate_set in price.rate_sets.all() if rate_set.service == STANDARD]
    first = min(standard, key=lambda rate_set: rate_set.min_prompt_tokens, default=None)
    return next((rate for rate in first.rates.all() if rate.meter == meter), None) if first else None

"""Exchange rates: staff add them with their day and source; none is ever changed or deleted."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.admin.pages import user_of
from billing.currencies import COST_CURRENCY, currency_choices
from billing.invoices.exchange_rates import add_rate
from billing.models import ExchangeRate
from llm.admin.base import GatewayAdmin, ModelForm
from llm.admin.format import moment
from llm.admin.usage.filters import DateInput


class ExchangeRateForm(ModelForm[ExchangeRate]):
    currency = forms.ChoiceField(choices=lambda: [("", "Choose a currency"), *currency_choices(without=COST_CURRENCY)])
    on = forms.DateField(widget=DateInput(), initial=lambda: timezone.now().date())

    class Meta:
        model = ExchangeRate
        fields = ("currency", "on", "per_usd", "source")
        labels = {"per_usd": "Units for 1 USD"}
        widgets = {"per_usd": forms.TextInput(attrs={"inputmode": "decimal", "class": "gw-rate"})}


@admin.register(ExchangeRate)
class ExchangeRateAdmin(GatewayAdmin[ExchangeRate]):
    form = ExchangeRateForm
    list_display = ("on", "currency", "for_one_usd", "source", "created", "created_by")
    list_filter = ("currency",)
    list_select_related = ("created_by",)
    ordering = ("-on", "currency", "-id")
    sortable_by = ()
    fieldsets = (
        (
            None,
            {
                "fields": ("currency", "on", "per_usd", "source"),
                "description": "An invoice in a currency other than USD uses the latest rate up to the last "
                "day of its month. A "
                "rate can't be changed afterwards; to correct one, add another for the same day.",
            },
        ),
    )

    def has_change_permission(self, request: HttpRequest, obj: ExchangeRate | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: ExchangeRate, form: Any, change: bool) -> None:
        obj.pk = add_rate(obj.currency, obj.per_usd, on=obj.on, source=obj.source, user=user_of(request)).pk

    @admin.display(description="Units for 1 USD")
    def for_one_usd(self, rate: ExchangeRate) -> SafeString:
        return format_html('<span class="gw-num">{}</span>', f"{rate.per_usd:f}")

    @admin.display(description="Recorded (UTC)")
    def created(self, rate: ExchangeRate) -> str:
        return moment(rate.created_at)

"""The form with which staff set a price."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone

from llm.admin.base import ModelForm
from llm.admin.format import NOTHING
from llm.admin.keys.forms import MomentInput
from llm.dialects.usage_figures import OTHER_CALLS, OTHER_UNITS, UNREPORTED_TOOLS, WEB_SEARCHES
from llm.enums import Meter, PriceSource
from llm.models import Price, RateSet
from llm.money import parse_usd_per_million
from llm.prices.matching import STAR
from llm.prices.pricing import without_standard_words
from llm.providers.registry import booked_providers, instances
from llm.types import Service

RATE_LABELS: dict[Meter, str] = {
    Meter.INPUT: "Input",
    Meter.OUTPUT: "Output",
    Meter.CACHE_READ: "Cached input",
    Meter.CACHE_WRITE_5M: "Cache write, 5 minutes",
    Meter.CACHE_WRITE_1H: "Cache write, 1 hour",
    Meter.AUDIO_INPUT: "Audio input",
    Meter.AUDIO_OUTPUT: "Audio output",
    Meter.REASONING: "Reasoning",
}
UNIT_LABELS: dict[str, str] = {
    "requests": "Calls",
    WEB_SEARCHES: "Web searches",
    "search_sources": "Sources searched",
    OTHER_CALLS: "Other tool calls",
    OTHER_UNITS: "Other tool units",
    UNREPORTED_TOOLS: "Calls with tools that weren't reported",
}
UNIT_FIELDS: dict[str, str] = {f"units_{meter}": meter for meter in UNIT_LABELS}
RATE_FIELDS: dict[str, Meter] = {f"rate_{meter.value}": meter for meter in RATE_LABELS}
_RATE_HELP: dict[Meter, str] = {
    Meter.CACHE_READ: "Empty: same as input.",
    Meter.CACHE_WRITE_5M: "Empty: calls that use it are unpriced.",
    Meter.CACHE_WRITE_1H: "Empty: calls that use it are unpriced.",
    Meter.AUDIO_INPUT: "Empty: calls that use it are unpriced.",
    Meter.AUDIO_OUTPUT: "Empty: calls that use it are unpriced.",
    Meter.REASONING: "Empty: same as output.",
}


class RateField(forms.CharField):
    """USD per million tokens, or thousand units; exact. 0 is a rate."""

    def __init__(self, label: str, help_text: str = "") -> None:
        super().__init__(
            label=label,
            required=False,
            help_text=help_text,
            widget=forms.TextInput(attrs={"inputmode": "decimal", "class": "gw-rate", "placeholder": NOTHING}),
        )

    def clean(self, value: Any) -> Any:
        text: str = super().clean(value)
        if not text:
            return None
        try:
            return parse_usd_per_million(text)
        except ValueError as error:
            raise ValidationError(f"{error}.") from error


def _token_rate(meter: Meter) -> RateField:
    return RateField(RATE_LABELS[meter], _RATE_HELP.get(meter, ""))


class ServiceField(forms.CharField):
    """The provider's own word for its service; calls are priced by rates with exactly the same words."""

    def __init__(self, name: str, label: str, help_text: str) -> None:
        longest = getattr(RateSet._meta.get_field(name), "max_length", None)
        super().__init__(label=label, required=False, max_length=longest, help_text=help_text)


def booked_choices() -> list[tuple[str, str]]:
    """What calls can be booked as; a provider that can't be called yet says so."""
    configured = {each.booked_as for each in instances().all if not each.lacks}
    return [(name, name if name in configured else f"{name} (not configured)") for name in booked_providers()]


class PriceForm(ModelForm[Price]):
    provider = forms.ChoiceField(choices=booked_choices)
    effective_from = forms.DateTimeField(
        label="In force from",
        widget=MomentInput(),
        initial=lambda: timezone.now().replace(second=0, microsecond=0),
        help_text="UTC. Applies to calls that start after this time; calls already recorded keep their price.",
    )

    rate_input = _token_rate(Meter.INPUT)
    rate_output = _token_rate(Meter.OUTPUT)
    rate_cache_read = _token_rate(Meter.CACHE_READ)
    rate_cache_write_5m = _token_rate(Meter.CACHE_WRITE_5M)
    rate_cache_write_1h = _token_rate(Meter.CACHE_WRITE_1H)
    rate_audio_input = _token_rate(Meter.AUDIO_INPUT)
    rate_audio_output = _token_rate(Meter.AUDIO_OUTPUT)
    rate_reasoning = _token_rate(Meter.REASONING)

    units_requests = RateField(UNIT_LABELS["requests"])
    units_web_searches = RateField(UNIT_LABELS[WEB_SEARCHES])
    units_search_sources = RateField(UNIT_LABELS["search_sources"])
    units_tool_calls = RateField(UNIT_LABELS[OTHER_CALLS])
    units_other_tool_units = RateField(UNIT_LABELS[OTHER_UNITS])
    units_unreported_tools = RateField(
        UNIT_LABELS[UNREPORTED_TOOLS], "Calls for which the provider ran tools without reporting how often."
    )

    service_tier = ServiceField("service_tier", "Service tier", "Such as priority. Empty: standard.")
    speed = ServiceField("speed", "Speed", "Such as fast. Empty: standard.")
    inference_geo = ServiceField("inference_geo", "Inference region", "Such as us. Empty: anywhere.")

    class Meta:
        model = Price
        fields = ("provider", "model", "effective_from", "is_free", "note")
        widgets = {
            "model": forms.TextInput(attrs={"class": "vTextField gw-mono", "spellcheck": "false"}),
            "note": forms.Textarea(attrs={"rows": 2, "cols": 40}),
        }
        help_texts = {
            "is_free": "Tokens cost nothing: a model on your own machine, for example. Tools that the provider "
            "runs, and service tiers, aren't covered.",
            "note": "The reason, for the record.",
        }

    def clean_model(self) -> str:
        model: str = self.cleaned_data["model"]
        if model.count(STAR) > 1:
            raise ValidationError("Only one * may stand for any characters.")
        return model

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            self._check_rates(is_free=data["is_free"])
            self._check_moment(data)
        return data

    def rates(self) -> dict[Meter, Decimal]:
        """The meters with a value."""
        given = {meter: self.cleaned_data.get(name) for name, meter in RATE_FIELDS.items()}
        return {meter: amount for meter, amount in given.items() if amount is not None}

    def per_thousand(self) -> dict[str, Decimal]:
        """The units with a value."""
        given = {meter: self.cleaned_data.get(name) for name, meter in UNIT_FIELDS.items()}
        return {meter: amount for meter, amount in given.items() if amount is not None}

    def service(self) -> Service:
        """The service that these rates price."""
        return without_standard_words(Service(*(self.cleaned_data.get(name) or "" for name in Service._fields)))

    def _check_rates(self, *, is_free: bool) -> None:
        rates = self.rates()
        if is_free and any(self.service()):
            raise ValidationError("A free price is for the standard service: clear tier, speed and region.")
        if is_free and (rates or self.per_thousand()):
            raise ValidationError("A free model has no rates: clear them, or untick the box.")
        if not is_free and not {Meter.INPUT, Meter.OUTPUT} & rates.keys():
            raise ValidationError("Give an input or output token rate, or mark the model as free.")

    def _check_moment(self, data: dict[str, Any]) -> None:
        """Validated here with a friendlier message than `set_price` would give."""
        same = Price.objects.filter(
            provider=data["provider"],
            model__iexact=data["model"],
            effective_from=data["effective_from"],
            source=PriceSource.STAFF,
        )
        if same.exists():
            self.add_error("effective_from", "This model already has a price from exactly this time. Choose another.")

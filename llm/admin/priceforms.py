"""The form by which staff set a price."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone

from llm.admin.base import ModelForm
from llm.admin.format import NOTHING
from llm.admin.keyforms import MomentInput
from llm.admin.routes import provider_choices
from llm.enums import Meter, PriceSource
from llm.models import Price
from llm.money import parse_usd_per_million

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
RATE_FIELDS: dict[str, Meter] = {f"rate_{meter.value}": meter for meter in RATE_LABELS}
_RATE_HELP: dict[Meter, str] = {
    Meter.CACHE_READ: "Empty: as input.",
    Meter.CACHE_WRITE_5M: "Empty: calls that use it are unpriced.",
    Meter.CACHE_WRITE_1H: "Empty: calls that use it are unpriced.",
    Meter.AUDIO_INPUT: "Empty: calls that use it are unpriced.",
    Meter.AUDIO_OUTPUT: "Empty: calls that use it are unpriced.",
    Meter.REASONING: "Empty: as output.",
}


class RateField(forms.CharField):
    """USD per million tokens, exact. Empty is no rate; 0 is one."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(
            label=RATE_LABELS[meter],
            required=False,
            help_text=_RATE_HELP.get(meter, ""),
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


class PriceForm(ModelForm[Price]):
    provider = forms.ChoiceField(choices=provider_choices)
    effective_from = forms.DateTimeField(
        label="In force from",
        widget=MomentInput(),
        initial=lambda: timezone.now().replace(second=0, microsecond=0),
        help_text="UTC. Calls that start from then on cost this; calls already recorded keep their price.",
    )

    rate_input = RateField(Meter.INPUT)
    rate_output = RateField(Meter.OUTPUT)
    rate_cache_read = RateField(Meter.CACHE_READ)
    rate_cache_write_5m = RateField(Meter.CACHE_WRITE_5M)
    rate_cache_write_1h = RateField(Meter.CACHE_WRITE_1H)
    rate_audio_input = RateField(Meter.AUDIO_INPUT)
    rate_audio_output = RateField(Meter.AUDIO_OUTPUT)
    rate_reasoning = RateField(Meter.REASONING)

    class Meta:
        model = Price
        fields = ("provider", "model", "effective_from", "is_free", "note")
        widgets = {
            "model": forms.TextInput(attrs={"class": "vTextField gw-mono", "spellcheck": "false"}),
            "note": forms.Textarea(attrs={"rows": 2, "cols": 40}),
        }
        help_texts = {
            "is_free": "Costs nothing, whatever is used: a model on your own machine, for example.",
            "note": "Why, for whoever reads this in a year.",
        }

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            self._check_rates(is_free=data["is_free"])
            self._check_moment(data)
        return data

    def rates(self) -> dict[Meter, Decimal]:
        """The meters that were filled in."""
        given = {meter: self.cleaned_data.get(name) for name, meter in RATE_FIELDS.items()}
        return {meter: amount for meter, amount in given.items() if amount is not None}

    def _check_rates(self, *, is_free: bool) -> None:
        rates = self.rates()
        if is_free and rates:
            raise ValidationError("A free model has no rates: clear them, or take the tick away.")
        if not is_free and not {Meter.INPUT, Meter.OUTPUT} & rates.keys():
            raise ValidationError("Give a rate of input or of output tokens, or say that the model is free.")

    def _check_moment(self, data: dict[str, Any]) -> None:
        """A kind word before `set_price` refuses it."""
        same = Price.objects.filter(
            provider=data["provider"],
            model__iexact=data["model"],
            effective_from=data["effective_from"],
            source=PriceSource.STAFF,
        )
        if same.exists():
            self.add_error("effective_from", "This model has a price from this very moment on; choose another moment.")

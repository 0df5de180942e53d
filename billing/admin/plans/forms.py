"""The form of a plan's version and its fixed prices."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone

from billing.currencies import COST_CURRENCY, currency_choices
from billing.models import Plan, PlanRate, PlanVersion
from billing.periods import BillingPeriod
from billing.plans import problems_of_rates, problems_of_version
from llm.admin.base import InlineFormSet, KnownRows, ModelForm
from llm.admin.usage.filters import DateInput

RATE_FIELDS = ("position", "model_pattern", "meter", "tier_mode", "from_tokens", "price_per_million")
_TERMS = (
    *("currency", "markup_percent", "flat_fee", "minimum_commitment"),
    *("allowance_tokens", "allowance_amount", "discount_percent", "note"),
)
_NUMBER = {"inputmode": "decimal", "class": "gw-rate"}


class PlanVersionForm(ModelForm[PlanVersion]):
    currency = forms.ChoiceField(choices=currency_choices, initial=COST_CURRENCY)
    effective_from = forms.DateField(
        label="From", widget=DateInput(), help_text="First day of the first month it applies to."
    )

    class Meta:
        model = PlanVersion
        fields = ("plan", "effective_from", *_TERMS)
        widgets = {
            "note": forms.Textarea(attrs={"rows": 2, "cols": 40}),
            **{
                name: forms.TextInput(attrs=_NUMBER)
                for name in ("markup_percent", "flat_fee", "minimum_commitment", "allowance_amount", "discount_percent")
            },
        }

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        plan = data.get("plan") or (self.instance.plan if self.instance.plan_id else None)
        if not self.errors and plan is not None:
            wanted = PlanVersion(plan=plan, effective_from=data["effective_from"], currency=data["currency"])
            for problem in problems_of_version(wanted):
                self.add_error(None, problem)
        return data


class PlanRateForm(ModelForm[PlanRate]):
    class Meta:
        model = PlanRate
        fields = RATE_FIELDS
        widgets = {
            "model_pattern": forms.TextInput(attrs={"class": "gw-mono", "size": 14, "spellcheck": "false"}),
            "meter": forms.Select(attrs={"class": "bl-meter"}),
            "price_per_million": forms.TextInput(attrs=_NUMBER),
        }


class PlanRateFormSet(KnownRows, InlineFormSet[PlanRate, PlanVersion, PlanRateForm]):
    def clean(self) -> None:
        super().clean()
        if any(self.errors):
            return
        hidden = PlanRate.objects.filter(version=self.instance.pk).exclude(
            pk__in=[each.instance.pk for each in self.forms if each.instance.pk]
        )
        tiers = {(each.instance.model_pattern, each.instance.meter, each.instance.from_tokens) for each in self.forms}
        if tiers & set(hidden.values_list("model_pattern", "meter", "from_tokens")):
            raise ValidationError("The prices have changed in the meantime. Reload this page.")
        kept = [form for form in self.forms if form not in self.deleted_forms]
        rates = [form.instance for form in kept if form.has_changed() or form.instance.pk]
        if problems := problems_of_rates(rates):
            raise ValidationError(problems)


def copied_terms(source: PlanVersion) -> dict[str, Any]:
    """Initial values for the form of the next version."""
    terms = {name: getattr(source, name) for name in _TERMS if name != "note"}
    return {**terms, "plan": source.plan_id, "effective_from": _next_start(source.plan)}


def _next_start(plan: Plan) -> Any:
    """The first of next month, or a month later than the plan's latest version."""
    latest = plan.versions.latest("effective_from").effective_from
    return max(BillingPeriod.of(latest), BillingPeriod.of(timezone.now().date())).following.start

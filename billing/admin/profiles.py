"""Billing profiles: who receives an account's invoices, on which plan, and in which time zone its months are."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.calendar import local_date
from billing.countries import country_choices
from billing.currencies import COST_CURRENCY, currency_choices
from billing.models import BillingProfile, Plan
from billing.periods import BillingPeriod
from billing.plans import keep_former_plans, lock_plan
from billing.timezones import set_time_zone
from llm.admin.accounts.account_admin import TimeZoneInput, keep_time_zone
from llm.admin.base import GatewayAdmin, ModelForm
from llm.admin.usage.filters import DateInput
from llm.models import Account
from llm.money import plural

_ZONE = "time_zone"


class BillingProfileForm(ModelForm[BillingProfile]):
    """The model refuses a currency that differs from the plan's."""

    country = forms.ChoiceField(required=False)
    currency = forms.ChoiceField(choices=currency_choices, initial=COST_CURRENCY)
    billed_from = forms.DateField(
        required=False, widget=DateInput(), help_text="First day of the first month to be invoiced. Empty: all months."
    )
    plan_from = forms.DateField(
        label="Plan in force from",
        required=False,
        widget=DateInput(),
        help_text="First day of the first month that is invoiced for its fee or minimum commitment, even without "
        "usage. Empty: since the account was created. A change of plan sets it to the current month.",
    )

    class Meta:
        model = BillingProfile
        fields = (
            *("account", "legal_name", "address", "country", "email", "tax_id", "tax_percent", "tax_note"),
            *("po_number", "currency", "payment_days", "plan", "plan_from", "time_zone", "billed_from"),
        )
        widgets = {
            "address": forms.Textarea(attrs={"rows": 4, "cols": 40}),
            "time_zone": TimeZoneInput(attrs={"class": "vTextField"}),
            "tax_percent": forms.TextInput(attrs={"inputmode": "decimal", "class": "gw-rate"}),
        }
        help_texts = {
            "time_zone": "Determines the day and month a call counts towards. A change takes effect next month.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "plan" in self.fields:
            offered = Plan.objects.filter(Q(archived_at=None) | Q(pk=self.instance.plan_id))
            self.fields["plan"].queryset = offered  # type: ignore[attr-defined]
        if "country" in self.fields:
            self.fields["country"].choices = _countries(self.instance.country)  # type: ignore[attr-defined]
        if "currency" in self.fields:
            self.fields["currency"].choices = _currencies(self.instance.currency)  # type: ignore[attr-defined]

    def clean_billed_from(self) -> Any:
        return _first_of_month(self.cleaned_data["billed_from"])

    def clean_plan_from(self) -> Any:
        return _first_of_month(self.cleaned_data["plan_from"])

    def clean(self) -> dict[str, Any]:
        """A new plan charges no fees for earlier months, unless that is asked for."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if self.instance.pk and "plan" in self.changed_data and "plan_from" not in self.changed_data:
            data["plan_from"] = BillingPeriod.of(local_date(self.instance.account, timezone.now())).start
        return data


def _countries(present: str) -> list[tuple[str, str]]:
    """Includes the present value even if it isn't a country: saving the form must not replace it unnoticed."""
    choices = [("", "Choose a country"), *country_choices()]
    is_known = any(code == present for code, _ in choices)
    return choices if is_known else [*choices, (present, f"{present} (not a country: choose another)")]


def _currencies(present: str) -> list[tuple[str, str]]:
    """Includes the present value, as for countries."""
    choices = currency_choices()
    is_known = any(code == present for code, _ in choices)
    return choices if is_known else [*choices, (present, f"{present} (not a billing currency: choose another)")]


def _first_of_month(day: date | None) -> date | None:
    if day is not None and day.day != 1:
        raise ValidationError("Invoices are for full months: give the first day of a month.")
    return day


@admin.register(BillingProfile)
class BillingProfileAdmin(GatewayAdmin[BillingProfile]):
    form = BillingProfileForm
    list_display = ("legal_name", "account", "plan", "currency", "zone", "payment_terms")
    list_filter = ("currency", "plan")
    list_select_related = ("account", "plan")
    search_fields = ("legal_name", "account__name", "email")
    search_help_text = "Search by legal name, account or email."
    autocomplete_fields = ("account",)
    fieldsets = (
        (None, {"fields": ("account", "legal_name", "address", "country", "email", "mails_invoices", "po_number")}),
        ("Tax", {"fields": ("tax_id", "tax_percent", "tax_note")}),
        ("Terms", {"fields": ("plan", "plan_from", "currency", "payment_days", "billed_from")}),
        ("Calendar", {"fields": (_ZONE,)}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: BillingProfile | None = None) -> Any:
        return ("account",) if obj else ()

    def get_fieldsets(self, request: HttpRequest, obj: BillingProfile | None = None) -> Any:
        if obj is None or not _has_zone_to_come(obj):
            return self.fieldsets
        until = f"The account's days are counted in {obj.account.time_zone} until {obj.time_zone_from}."
        return (*self.fieldsets[:-1], ("Calendar", {"fields": (_ZONE,), "description": until}))

    def save_model(self, request: HttpRequest, obj: BillingProfile, form: Any, change: bool) -> None:
        """Saves only the edited fields; the time zone through its service, which knows from when it may apply."""
        if change:
            before = BillingProfile.objects.select_for_update(no_key=True).get(pk=obj.pk)
            changed = {name for name in form.changed_data if name != _ZONE}
            _check_again(before, obj, changed)
            obj.save(update_fields=changed | ({"plan_from"} if "plan" in changed else set()))
            if {"plan", "plan_from"} & changed:
                keep_former_plans(before, obj)
        else:
            obj.save()
        if not change or _ZONE in form.changed_data:
            obj.time_zone_from = set_time_zone(obj.pk, obj.time_zone).time_zone_from

    @admin.display(description="Time zone", ordering="time_zone")
    def zone(self, profile: BillingProfile) -> SafeString | str:
        if not _has_zone_to_come(profile):
            return profile.time_zone
        since = f"from {profile.time_zone_from}; {profile.account.time_zone} until then"
        return format_html('{}<span class="gw-hint gw-below">{}</span>', profile.time_zone, since)

    @admin.display(description="Payment terms", ordering="payment_days")
    def payment_terms(self, profile: BillingProfile) -> str:
        return plural(profile.payment_days, "day")


def _check_again(stored: BillingProfile, edited: BillingProfile, changed: Collection[str]) -> None:
    """Checks plan and currency again under their locks: another user may have changed either."""
    for name in {"plan", "currency"}.difference(changed):
        setattr(edited, name, getattr(stored, name))
    lock_plan(edited.plan_id)
    try:
        edited.clean()
    except ValidationError as error:
        raise ValidationError(f"Someone else has just changed this. {' '.join(error.messages)}") from error


def _where_zone_is_changed(request: HttpRequest, account: Account) -> SafeString | None:
    profile: BillingProfile | None = getattr(account, "billing_profile", None)
    if profile is None:
        return None
    url = reverse("admin:billing_billingprofile_change", args=(profile.pk,))
    may_look = any(request.user.has_perm(f"billing.{action}_billingprofile") for action in ("view", "change"))
    where = format_html('<a href="{}">billing profile</a>', url) if may_look else "billing profile"
    to_come = f" It changes to {profile.time_zone} on {profile.time_zone_from}." if _has_zone_to_come(profile) else ""
    return format_html("Change it in the {}; a new one takes effect next month.{}", where, to_come)


keep_time_zone(_where_zone_is_changed)


def _has_zone_to_come(profile: BillingProfile) -> bool:
    return profile.time_zone_from is not None and profile.time_zone != profile.account.time_zone

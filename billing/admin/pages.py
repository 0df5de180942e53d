"""What billing's own pages of the admin have in common."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib.admin import ModelAdmin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest
from django.urls import reverse

from billing.periods import BillingPeriod
from llm.admin.usage.filters import proposed_accounts
from llm.models import Account


class MonthPickerField(forms.CharField):
    """`2026-10`, parsed to a `BillingPeriod`. Browsers with a month picker show it."""

    widget = forms.TextInput(attrs={"type": "month", "placeholder": "2026-10", "pattern": r"\d{4}-\d{2}"})

    def clean(self, value: Any) -> Any:
        text: str = super().clean(value)
        if not text:
            return None
        try:
            return BillingPeriod.parse(text)
        except ValueError as error:
            raise ValidationError(f"{error}.") from error


class AccountNameField(forms.CharField):
    """An account by name, suggested while typing; an exact match comes before one in another case. Empty is None."""

    widget = forms.TextInput(attrs={"list": "gw-accounts", "autocomplete": "off", "spellcheck": "false"})

    def clean(self, value: Any) -> Any:
        text: str = super().clean(value)
        if not text:
            return None
        alike = Account.objects.filter(name__iexact=text).order_by("pk")
        account = Account.objects.filter(name=text).first() or alike.first()
        if account is None:
            raise ValidationError("No account has this name.")
        return account


def user_of(request: HttpRequest) -> User:
    """The signed-in user: admin pages are never served to anyone else."""
    return cast("User", request.user)


def require(request: HttpRequest, *permissions: str) -> None:
    """Raises PermissionDenied (403)."""
    if not request.user.has_perms(permissions):
        raise PermissionDenied


def page_context(model_admin: ModelAdmin[Any], request: HttpRequest, title: str, **values: Any) -> dict[str, Any]:
    """Context of a page below the model's list. Account names are read only if the page uses them."""
    return {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": title,
        "proposed_accounts": proposed_accounts,
        "list_url": reverse(f"admin:{model_admin.opts.app_label}_{model_admin.opts.model_name}_changelist"),
        **values,
    }

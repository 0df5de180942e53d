"""Forms of limits: an amount as typed by people."""

from __future__ import annotations

from typing import Any

from django import forms

from llm.admin.base import ModelForm
from llm.limits.amounts import LONGEST_TEXT, amount_digits, parse_amount
from llm.limits.changes import limit_in_force
from llm.models import Account, ApiKey, Limit


class LimitForm(ModelForm[Limit]):
    """The editable fields of a limit, also used to set a new one."""

    amount = forms.CharField(
        max_length=LONGEST_TEXT,
        widget=forms.TextInput(attrs={"class": "gw-rate", "inputmode": "decimal", "autocomplete": "off"}),
        help_text="Requests or tokens as a whole number such as 1,000,000; a cost in USD such as 12.50. "
        "0 refuses every call.",
    )

    class Meta:
        model = Limit
        fields = ("account", "api_key", "metric", "per", "is_per_end_user", "amount", "soft_percent")
        labels = {"per": "Period"}
        help_texts = {
            "api_key": "Empty: all calls of the account together.",
            "per": "Days and months are those of the account's time zone.",
            "soft_percent": "The account gets an alert by email and webhook when this percentage of the "
            "amount is used: once per period, and at most once an hour. A limit for each end user alerts when the "
            "first one reaches it: once a day, or once an hour for limits per minute or hour. Empty: no alert.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["amount"] = amount_digits(self.instance.metric, self.instance.amount)

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        metric = data.get("metric") or self.instance.metric
        if metric and "amount" in data:
            self._read_amount(metric, data)
        if not self.instance.pk and not self.errors:
            problem = why_not_first(
                data["account"],
                data["api_key"],
                data["metric"],
                data["per"],
                is_per_end_user=data["is_per_end_user"],
            )
            if problem:
                self.add_error(None, problem)
        return data

    def _read_amount(self, metric: str, data: dict[str, Any]) -> None:
        try:
            data["amount"] = parse_amount(metric, data["amount"])
        except ValueError as error:
            self.add_error("amount", f"{error}.")


def why_not_first(
    account: Account, api_key: ApiKey | None, metric: str, per: str, *, is_per_end_user: bool = False
) -> str:
    """A sentence where such a limit is in force; "" where a new one can be added."""
    if limit_in_force(account, api_key, metric, per, is_per_end_user=is_per_end_user) is None:
        return ""
    return f"This {'key' if api_key else 'account'} already has such a limit. Change that one."

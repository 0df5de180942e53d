"""The form of the usage report: the filters of the list of calls that rollups can answer."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone

from billing.periods import BillingPeriod
from billing.usage_reports import UsageQuestion
from llm.admin.usage.filters import UsageFilterForm
from llm.models import ApiKey

MAX_DAYS = 366
_NAMES = ("account", "key", "model", "provider", "first", "last")
_GROUPS = ("day", "model", "account", "key")


class UsageReportForm(UsageFilterForm):
    """All fields are optional. Without days: the month so far."""

    by = forms.ChoiceField(label="By", required=False, choices=[(name, name) for name in _GROUPS])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields = {name: self.fields[name] for name in ("by", *_NAMES)}

    def clean_by(self) -> str:
        return self.cleaned_data["by"] or "day"

    def clean_key(self) -> Any:
        """The id of the one key that matches, within the account if one is given."""
        found = super().clean_key()
        if found is None:
            return None
        keys = ApiKey.objects.filter(pk__in=found)
        if account := self.cleaned_data.get("account"):
            keys = keys.filter(account=account)
        ids = list(keys.values_list("pk", flat=True)[:2])
        if len(ids) != 1:
            raise ValidationError(
                ("No key of this account matches.") if not ids else ("Several keys match; please be more specific.")
            )
        return ids[0]

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        today = timezone.now().date()
        last: date = data.get("last") or max(today, data.get("first") or today)
        first: date = data.get("first") or BillingPeriod.of(last).start
        if last - first >= timedelta(days=MAX_DAYS):
            self.add_error("last", f"At most {MAX_DAYS} days.")
        return {**data, "first": first, "last": last}

    def question(self) -> UsageQuestion:
        """The question to the rollups. Only for a valid form."""
        data = self.cleaned_data
        return UsageQuestion(
            first=data["first"],
            last=data["last"],
            account_id=data["account"].pk if data["account"] else None,
            api_key_id=data["key"],
            provider=data["provider"] or None,
            model=data["model"] or None,
        )

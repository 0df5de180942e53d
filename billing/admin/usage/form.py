"""What the usage explorer is asked: the filters of the list of calls, and how to split what they leave."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.http import QueryDict
from django.utils import timezone

from billing.usage_reports import MAX_DAYS_OF_CALLS, Dimension, Filters, Measure, Question, Unit
from llm.admin.usage.filters import FAILED, DateInput, UsageFilterForm
from llm.enums import FAILED_OUTCOMES, CallOutcome
from llm.types import MAX_TAG_KEY_CHARACTERS

MAX_BUCKETS: Mapping[Unit, int] = {Unit.HOUR: MAX_DAYS_OF_CALLS, Unit.DAY: 366, Unit.WEEK: 1100, Unit.MONTH: 3660}
"""Days of a period, by what the chart has a bar for."""
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2999, 12, 31)
DAYS_SHOWN = 30
"""Where nobody says which."""
FILTERS = ("account", "key", "model", "provider", "instance", "outcome", "end_user", "tag")
VIEW = ("by", "then", "tag_key", "unit", "first", "last", "compare")
SORTS = ("name", "cached", "p50", "p95", "refused", *Measure)
_DIMENSIONS = {
    Dimension.ACCOUNT: "account",
    Dimension.KEY: "key",
    Dimension.MODEL: "model",
    Dimension.PROVIDER: "provider",
    Dimension.INSTANCE: "instance",
    Dimension.OUTCOME: "outcome",
    Dimension.END_USER: "end user",
    Dimension.TAG: "tag",
    Dimension.TIME: "time",
}
_OUTCOMES = [("", "any"), (FAILED, "failed, any way"), *(pair for pair in CallOutcome.choices if pair[0] != "pending")]
_ALIASES = {"by": {"day": Dimension.TIME.value}}
"""As earlier versions of this page wrote their addresses."""


def label_of(dimension: Dimension) -> str:
    return _DIMENSIONS[dimension]


def _day(label: str) -> forms.DateField:
    bounds = [MinValueValidator(FIRST_DAY), MaxValueValidator(LAST_DAY)]
    return forms.DateField(label=label, required=False, widget=DateInput(), validators=bounds)


class ExplorerForm(UsageFilterForm):
    """All fields are optional. Without days: the last 30, or the last 7 where calls are read one by one.

    is_too_long: the period, for calls that are read one by one; a shorter one would do.
    """

    is_too_long = False

    by = forms.ChoiceField(label="By", required=False)
    then = forms.ChoiceField(label="Then by", required=False)
    tag_key = forms.CharField(
        label="Tag to split by",
        required=False,
        max_length=MAX_TAG_KEY_CHARACTERS,
        widget=forms.TextInput(attrs={"placeholder": "such as team", "autocomplete": "off", "spellcheck": "false"}),
    )
    unit = forms.ChoiceField(label="Bars", required=False, choices=[("", "auto"), *((u.value, u.value) for u in Unit)])
    first = _day("From")
    last = _day("To")
    compare = forms.ChoiceField(
        label="Compare with", required=False, choices=[("", "period before"), ("no", "nothing")]
    )
    measure = forms.ChoiceField(required=False, choices=[(m.value, m.value) for m in Measure], widget=forms.HiddenInput)
    sort = forms.CharField(required=False, max_length=30, widget=forms.HiddenInput)

    def __init__(self, data: QueryDict) -> None:
        super().__init__(_without_aliases(data))
        self.fields = {name: self.fields[name] for name in (*VIEW, *FILTERS, "measure", "sort")}
        choices = [(each.value, label) for each, label in _DIMENSIONS.items()]
        self.fields["by"].choices = choices  # type: ignore[attr-defined]
        self.fields["then"].choices = [("", "nothing"), *choices[:-1]]  # type: ignore[attr-defined]
        self.fields["outcome"].choices = _OUTCOMES  # type: ignore[attr-defined]

    @property
    def view_fields(self) -> list[Any]:
        return [self[name] for name in VIEW]

    @property
    def filter_fields(self) -> list[Any]:
        return [self[name] for name in FILTERS]

    def clean_sort(self) -> str:
        sort: str = self.cleaned_data["sort"]
        if sort.removeprefix("-") not in ("", *SORTS):
            raise ValidationError("The table can't be sorted by this.")
        return sort

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if self.errors:
            return data
        data |= self._split(data)
        if self.errors:
            return data
        question = self._question(data, FIRST_DAY, FIRST_DAY, Unit(data["unit"] or Unit.DAY))
        first, last = _period(data, few=question.must_read_calls)
        unit = Unit(data["unit"] or _fitting_unit(first, last))
        self._check_length(unit, first, last, of_calls=question.must_read_calls)
        return {**data, "first": first, "last": last, "unit": unit}

    def question(self) -> Question:
        """Only for a valid form."""
        data = self.cleaned_data
        return self._question(data, data["first"], data["last"], data["unit"])

    def _split(self, data: Mapping[str, Any]) -> dict[str, Any]:
        by = Dimension(data["by"] or Dimension.ACCOUNT)
        then = Dimension(data["then"]) if data["then"] else None
        if by == Dimension.TIME:
            by, then = then or by, None
        if by == then:
            self.add_error("then", "Choose something else than in “By”.")
        if Dimension.TAG in (by, then) and not data["tag_key"]:
            self.add_error("tag_key", "Which tag? Enter its key, such as team.")
        return {"by": by, "then": then, "measure": Measure(data["measure"] or Measure.COST)}

    def _check_length(self, unit: Unit, first: date, last: date, *, of_calls: bool) -> None:
        days = (last - first).days + 1
        if of_calls and days > MAX_DAYS_OF_CALLS:
            self.is_too_long = True
            self.add_error(
                None,
                f"At most {MAX_DAYS_OF_CALLS} days: hours, tags, single outcomes, and end users by anything but their "
                "account are read from the calls one by one. Choose a shorter period, or another split.",
            )
        elif days > MAX_BUCKETS[unit]:
            self.add_error("last", f"At most {MAX_BUCKETS[unit]:,} days by {unit.value}. Choose longer bars.")

    def _question(self, data: Mapping[str, Any], first: date, last: date, unit: Unit) -> Question:
        return Question(
            first=first,
            last=last,
            filters=_filters(data),
            by=data["by"],
            then=data["then"],
            unit=unit,
            measure=data["measure"],
            tag_key=data["tag_key"],
        )


def _without_aliases(data: QueryDict) -> QueryDict:
    found = data.copy()
    for name, aliases in _ALIASES.items():
        if (value := found.get(name)) in aliases:
            found[name] = aliases[value]
    return found


def _period(data: Mapping[str, Any], *, few: bool) -> tuple[date, date]:
    today = timezone.now().date()
    last: date = data.get("last") or max(today, data.get("first") or today)
    days = MAX_DAYS_OF_CALLS if few else DAYS_SHOWN
    return data.get("first") or max(FIRST_DAY, last - timedelta(days=days - 1)), last


def _fitting_unit(first: date, last: date) -> Unit:
    days = (last - first).days + 1
    return Unit.DAY if days <= 62 else Unit.WEEK if days <= 366 else Unit.MONTH


def _filters(data: Mapping[str, Any]) -> Filters:
    outcome = data["outcome"]
    return Filters(
        account_id=data["account"].pk if data["account"] else None,
        api_key_ids=data["key"] or (),
        provider=data["provider"] or None,
        instance=data["instance"] or None,
        model=data["model"] or None,
        outcomes=FAILED_OUTCOMES if outcome == FAILED else (outcome,) if outcome else (),
        end_users=data["end_user"] or (),
        tag=data["tag"],
    )

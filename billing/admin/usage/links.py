"""Addresses of the explorer and of the calls behind its figures: all that is chosen stands in them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from billing.admin.usage.form import FILTERS, VIEW, ExplorerForm
from billing.usage_reports import Bucket, Dimension, Question, Unit

_NEXT = {
    Dimension.ACCOUNT: Dimension.KEY,
    Dimension.KEY: Dimension.MODEL,
    Dimension.MODEL: Dimension.ACCOUNT,
    Dimension.PROVIDER: Dimension.MODEL,
    Dimension.INSTANCE: Dimension.MODEL,
    Dimension.OUTCOME: Dimension.MODEL,
    Dimension.END_USER: Dimension.MODEL,
    Dimension.TAG: Dimension.MODEL,
    Dimension.TIME: Dimension.MODEL,
}
_FINER = {Unit.MONTH: Unit.DAY, Unit.WEEK: Unit.DAY, Unit.DAY: Unit.HOUR, Unit.HOUR: Unit.HOUR}


def shorter_url(form: ExplorerForm) -> str:
    """The same of the last days that may be asked for."""
    names = (*VIEW, *FILTERS, "measure", "sort")
    kept = {name: form.data[name] for name in names if form.data.get(name) and name not in ("first", "last")}
    return f"?{urlencode(kept)}"


class Links:
    """Of a page that shows this form's answer. form: a valid one."""

    def __init__(self, form: ExplorerForm, question: Question, *, may_see_calls: bool) -> None:
        names = (*VIEW, *FILTERS, "measure", "sort")
        self._now = {name: form.data[name] for name in names if form.data.get(name)}
        self._question, self._may_see_calls = question, may_see_calls

    def here(self, **changes: Any) -> str:
        """The page with other choices; an empty one drops it."""
        return f"?{urlencode({name: value for name, value in {**self._now, **changes}.items() if value})}"

    def without(self, name: str) -> str:
        return self.here(**{name: ""})

    def narrowed(self, dimension: Dimension, values: Mapping[str, str]) -> str:
        """One dimension down: this value alone, split by what is asked next."""
        chosen = {**self._now, **values}
        proposed = (self._question.then, _NEXT[dimension], Dimension.KEY, Dimension.MODEL, Dimension.TIME)
        following = next(each for each in proposed if each and each.value not in chosen)
        tag_key = self._question.tag_key if following == Dimension.TAG else ""
        return self.here(**values, by=following.value, then="", sort="", tag_key=tag_key)

    def bucket(self, bucket: Bucket) -> str:
        """The page of a bar alone, in shorter bars where calls may be seen."""
        first, last = self._question.days_of(bucket)
        unit = _FINER[self._question.unit] if self._may_see_calls else Unit.DAY
        by = "" if self._question.by == Dimension.TIME else self._question.by.value
        return self.here(first=first, last=last, unit=unit.value, by=by, sort="")

    def calls(self, values: Mapping[str, str], days: tuple[date, date] | None = None) -> str:
        """The list of calls with the same filters, and these; "" for people who may not see it."""
        if not self._may_see_calls:
            return ""
        first, last = days or (self._question.first, self._question.last)
        kept = {name: self._now[name] for name in FILTERS if name in self._now}
        query = {**kept, **values, "first": first.isoformat(), "last": last.isoformat()}
        return f"{reverse('admin:llm_usage_changelist')}?{urlencode(query)}"

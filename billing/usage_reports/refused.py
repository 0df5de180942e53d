"""Requests that were refused, beside the usage of those that weren't: they are no calls, and in no day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import Sum

from billing.usage_reports.questions import Dimension, Question
from llm.models import RefusedRequests

MAX_ROWS = 200_000
"""Counts that are added up, each of a minute."""
_COLUMNS = {Dimension.ACCOUNT: "account_id", Dimension.KEY: "api_key_id", Dimension.MODEL: "model"}


@dataclass(frozen=True, slots=True)
class RefusedCounts:
    """by: by the question's first dimension; None where refusals don't have it."""

    total: int
    by: Mapping[Any, int] | None


def count_refused(question: Question) -> RefusedCounts | None:
    """None where no refusal can match the filters, or too many do to be added up.

    Days are those of the question's zone: an account's own if there is only one.
    """
    filters = question.filters
    if filters.provider or filters.instance or filters.outcomes or filters.end_users or filters.tag:
        return None
    zone = ZoneInfo(question.zone)
    start, end = (datetime.combine(day, time(), zone) for day in (question.first, question.last + timedelta(days=1)))
    wanted = {
        "account_id": filters.account_id,
        "api_key_id__in": list(filters.api_key_ids) or None,
        "model": filters.model,
    }
    rows = RefusedRequests.objects.between(start, end)
    rows = rows.filter(**{name: value for name, value in wanted.items() if value is not None}).order_by()
    if rows[: MAX_ROWS + 1].count() > MAX_ROWS:
        return None
    column = _COLUMNS.get(question.by)
    if column is None:
        return RefusedCounts(rows.aggregate(total=Sum("requests"))["total"] or 0, None)
    by = dict(rows.values_list(column).annotate(total=Sum("requests")))
    return RefusedCounts(sum(by.values()), by)

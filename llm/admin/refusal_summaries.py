"""Refused requests on the pages of what refused them, and the address of the page that shows more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from llm.admin.format import NOTHING
from llm.models import ApiKey, Limit, RefusedRequests
from llm.models.refusals import OTHER_MODELS, RefusedGroup, RefusedRequestsQuerySet

SUMMARY_DAYS = 7
MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Refusals:
    """groups: by reason and model. more_url: all of them."""

    groups: list[RefusedGroup]
    days: int
    more_url: str


def may_see_refusals(request: HttpRequest) -> bool:
    """Whoever may see calls."""
    return bool(request.user.has_perm("llm.view_usage"))


def refusals_url(filters: Mapping[str, Any]) -> str:
    query = {name: value for name, value in filters.items() if value}
    return f"{reverse('admin:llm_refusedrequests_changelist')}?{urlencode(query)}"


def refusals_of_key(request: HttpRequest, key: ApiKey) -> dict[str, Any]:
    filters = {"account": key.account.name, "key": key.masked}
    return _summary(request, RefusedRequests.objects.filter(api_key_id=key.pk), filters)


def refusals_of_limit(request: HttpRequest, limit: Limit) -> dict[str, Any]:
    return _summary(request, RefusedRequests.objects.of_limit(limit.pk), {"limit": limit.pk})


def model_text(name: str) -> str:
    return "other models" if name == OTHER_MODELS else name or NOTHING


def _summary(request: HttpRequest, rows: RefusedRequestsQuerySet, filters: Mapping[str, Any]) -> dict[str, Any]:
    if not may_see_refusals(request):
        return {}
    today = timezone.now().date()
    first = today - timedelta(days=SUMMARY_DAYS - 1)
    start = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=SUMMARY_DAYS - 1)
    groups = rows.filter(minute__gte=start).grouped("code", "model", limit=MAX_SHOWN)
    url = refusals_url({**filters, "first": first.isoformat(), "last": today.isoformat()})
    return {"refusals": Refusals(groups, SUMMARY_DAYS, url)}

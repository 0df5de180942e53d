"""What our admin templates need: human-readable figures, and the report of the index page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from django import template
from django.contrib.auth.models import AnonymousUser, PermissionsMixin
from django.utils import timezone
from django.utils.safestring import SafeString

from llm.admin import format as as_text
from llm.admin import usage_summaries
from llm.admin.keys.state import key_state_badge
from llm.admin.limits.forecast import forecast
from llm.admin.limits.standing import LimitStanding
from llm.admin.overview import Overview, overview_for
from llm.admin.prices.price_admin import standing_badges
from llm.admin.refusal_summaries import model_text
from llm.admin.usage.usage_admin import state_badges
from llm.limits.amounts import describe_limit
from llm.models import ApiKey, Price, Usage

register = template.Library()

register.filter("exact_moment", as_text.exact_moment)
register.filter("milliseconds", as_text.milliseconds)
register.filter("short_count", as_text.short_count)
register.filter("exact_usd", as_text.exact_usd)
register.filter("moment", as_text.moment)
register.filter("tokens", as_text.tokens)
register.filter("usd", as_text.usd)
register.filter("limit_text", describe_limit)
register.filter("refused_model", model_text)
register.filter("usd_at_a_glance", as_text.usd_at_a_glance)


@register.filter
def badge(kind: str, text: str | None = None) -> SafeString:
    return as_text.badge(kind, text)


@register.filter
def exact_count(number: int) -> str:
    return f"{number:,}"


@register.filter
def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


@register.filter
def key_state(key: ApiKey) -> SafeString:
    return key_state_badge(key, timezone.now())


@register.filter
def limit_forecast(standing: LimitStanding) -> str:
    return forecast(standing, timezone.now())


@register.filter
def add_account(url: str, name: str) -> str:
    """The page with this account chosen; "" for no page."""
    return f"{url}?{urlencode({'account': name})}" if url else ""


@register.filter
def call_state(call: Usage) -> SafeString:
    return state_badges(call)


@register.filter
def price_standing(price: Price) -> SafeString:
    return standing_badges(price, timezone.now())


@register.filter
def chart_points(days: Sequence[usage_summaries.DayTotals]) -> list[dict[str, Any]]:
    """For a script: costs as text, so that money never becomes a float; None for days not read yet."""
    return [
        {
            "day": figure.day.isoformat(),
            "calls": figure.calls if figure.is_known else None,
            "cost": f"{figure.cost:f}" if figure.is_known else None,
        }
        for figure in days
    ]


@register.simple_tag
def gateway_overview(user: PermissionsMixin | AnonymousUser) -> Overview:
    return overview_for(user)

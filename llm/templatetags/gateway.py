"""What our admin templates need: figures as people read them, and the report of the index page."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import template
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin
from django.utils.safestring import SafeString

from llm import reports
from llm.admin import format as as_text
from llm.admin.overview import Overview, overview_for

register = template.Library()

register.filter("milliseconds", as_text.milliseconds)
register.filter("short_count", as_text.short_count)
register.filter("exact_usd", as_text.exact_usd)
register.filter("moment", as_text.moment)
register.filter("tokens", as_text.tokens)
register.filter("usd", as_text.usd)


@register.filter
def badge(kind: str, text: str | None = None) -> SafeString:
    return as_text.badge(kind, text)


@register.filter
def chart_points(days: list[reports.DayFigures]) -> list[dict[str, Any]]:
    """For a script: costs as text, since money is never a float on its way."""
    return [{"day": figure.day.isoformat(), "calls": figure.calls, "cost": _plain(figure.cost)} for figure in days]


@register.simple_tag
def gateway_overview(user: AbstractBaseUser | AnonymousUser) -> Overview:
    assert isinstance(user, PermissionsMixin | AnonymousUser)  # noqa: S101 - narrows for mypy
    return overview_for(user)


def _plain(amount: Decimal) -> str:
    return f"{amount:f}"

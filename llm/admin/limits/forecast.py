"""When a limit will be reached, if its period goes on as it went so far."""

from __future__ import annotations

from datetime import datetime, timedelta

from llm.admin.limits.standing import LimitStanding
from llm.enums import LimitPer
from llm.limits.periods import period_of

_TOO_SHORT = (LimitPer.MINUTE, LimitPer.HOUR)
_LEAST = timedelta(minutes=30)
"""Of a period that has just begun nothing can be said."""
_FARTHEST = timedelta(days=365)


def forecast(standing: LimitStanding, now: datetime) -> str:
    """A sentence's part; empty where nothing can be said: of periods of minutes, of end users one by one, too early."""
    limit = standing.limit
    if limit.per in _TOO_SHORT or limit.is_per_end_user:
        return ""
    if standing.used >= limit.amount:
        return "used up"
    starts_at = max(period_of(limit.per, limit.account.time_zone, now).starts_at, limit.created_at)
    elapsed = now - starts_at
    if not standing.used or elapsed < _LEAST:
        return ""
    left = elapsed * ((limit.amount - standing.used) / standing.used)
    reached_at = now + min(left, _FARTHEST)
    if standing.resets_at is not None and reached_at >= standing.resets_at:
        return "not reached before it resets"
    if left >= _FARTHEST:
        return "not reached within a year"
    return f"reached {_when(left)}"


def _when(left: timedelta) -> str:
    hours = int(left / timedelta(hours=1))
    if hours < 1:
        return "within the hour"
    if hours < 48:
        return f"in about {hours} {'hour' if hours == 1 else 'hours'}"
    return f"in about {hours // 24} days"

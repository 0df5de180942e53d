"""Windows of limits as the books read and write them, and the alerts for crossed soft thresholds."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from django.db import connection

from llm.db.json_rows import Row, Statement, id_list, json_value, moment_text
from llm.enums import LimitMetric, LimitPer, OutboxKind
from llm.limits import sql
from llm.limits.admission import LimitRow, Window
from llm.limits.end_user_windows import named_end_user


@lru_cache(maxsize=10_000)
def limit_of(row: Row) -> LimitRow:
    """row: as `limits_sql` yields it. The same limits come with batch after batch."""
    return LimitRow(row[0], row[1], row[2], LimitMetric(row[3]), LimitPer(row[4]), row[5], row[6], bool(row[7]))


def window_of(row: Row) -> Window:
    """row: as `windows_sql` yields it."""
    starts_at = datetime.fromtimestamp(row[9], UTC)
    return Window(row[0], limit_of(row[1:9]), starts_at, row[10], row[11], bool(row[12]), row[13])


def lock_windows(ids: Collection[int]) -> list[Window]:
    """Inside a transaction; locked by id, as everywhere."""
    vendor = connection.vendor
    with connection.cursor() as cursor:
        cursor.execute(sql.windows_sql(vendor), [id_list(ids, vendor), "[]"])
        return [window_of(row) for row in cursor.fetchall()]


def window_statements(windows: Collection[Window], *, vendor: str, now: datetime) -> Iterator[Statement]:
    """Statements that write the windows' additions, and a mail and a webhook for each window that crosses its soft
    threshold.

    A limit per minute causes at most one alert an hour, and one for each end user at most one an hour or a day, however
    many of them cross it: of equal causes the outbox keeps the first.
    """
    changed = [window for window in windows if window.has_changed]
    if changed:
        additions = orjson.dumps([_addition(window) for window in changed]).decode()
        ids = id_list((window.id for window in changed), vendor)
        yield sql.update_windows_sql(vendor), (additions, ids)
    if messages := _messages(windows, vendor, now):
        yield sql.insert_messages_sql(vendor), (orjson.dumps(messages).decode(),)


def _addition(window: Window) -> dict[str, Any]:
    return {
        "id": window.id,
        "used": window.added_used,
        "held": window.added_held,
        "announces": window.crosses_soft_threshold,
    }


def _messages(windows: Collection[Window], vendor: str, now: datetime) -> list[dict[str, Any]]:
    crossed = [window for window in windows if window.crosses_soft_threshold]
    return [
        {
            "kind": kind.value,
            "cause": f"limit:{window.limit.id}:{_alert_period(window, now):%Y%m%dT%H%M%SZ}:{kind.value}",
            "event": "limit.threshold",
            "account_id": window.limit.account_id,
            "payload": json_value(_payload(window), vendor),
            "created_at": moment_text(now, vendor),
        }
        for window in crossed
        for kind in OutboxKind
    ]


def _alert_period(window: Window, now: datetime) -> datetime:
    """When the period began for which a limit is alerted once; causes are unique.

    It is the window, but at least an hour. Of a limit for each end user it is the hour, or the day (UTC) where periods
    are days or longer: in a month, or in total, others cross it long after the first.
    """
    if window.limit.is_per_end_user:
        hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return hour if window.limit.per in (LimitPer.MINUTE, LimitPer.HOUR) else hour.replace(hour=0)
    if window.limit.per is LimitPer.MINUTE:
        return window.starts_at.replace(minute=0, second=0, microsecond=0)
    return window.starts_at


def _payload(window: Window) -> dict[str, Any]:
    """The content of the message; names are looked up when it is sent."""
    limit = window.limit
    of_end_user = {"end_user": named_end_user(window.end_user)} if limit.is_per_end_user else {}
    return {
        **of_end_user,
        "account_id": limit.account_id,
        "api_key_id": limit.api_key_id,
        "limit_id": limit.id,
        "metric": limit.metric.value,
        "per": limit.per.value,
        "amount": limit.amount,
        "used": window.used,
        "percent": limit.soft_percent,
        "window_starts_at": window.starts_at.isoformat(),
    }

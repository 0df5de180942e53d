"""Usage of some days of one account by end user or tag. No rollup has these, so the calls are read.

The figures match the account's days: adjustments included, and recorded up to the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.db import connection

from billing.models import DailyUsage
from billing.models.rollups import COST_FIELDS
from billing.rollup.statements import SUM_COLUMNS, labelled_sql
from llm.db.json_rows import moment_text

LabelledSums = tuple[str | None, Mapping[str, Any]]
"""A label, and sums by the names of SUM_COLUMNS."""

_COST = DailyUsage._meta.get_field("cost")
_LAST_DAY = date(2999, 12, 31)


@dataclass(frozen=True, slots=True)
class CallsOfDays:
    """Calls of one account from `first` to `last`, both inclusive, as they were at the cutoff.

    tag: the key by whose values they are grouped; None groups by end user.
    """

    account_id: int
    first: date
    last: date | None
    cutoff: datetime
    tag: str | None = None
    api_key_id: int | None = None
    model: str | None = None


def sum_by_label(calls: CallsOfDays, *, limit: int) -> list[LabelledSums]:
    """At most `limit` end users (hashes, "" for calls without one) or values (None for calls without the tag), with
    sums.
    """
    vendor = connection.vendor
    sql = f"{labelled_sql(_label(calls, vendor), _scope(calls), vendor)} ORDER BY label LIMIT %(limit)s"
    parameters: dict[str, Any] = {
        "account": calls.account_id,
        "first": calls.first.isoformat(),
        "last": (calls.last or _LAST_DAY).isoformat(),
        "cutoff": moment_text(calls.cutoff, vendor),
        "tag": calls.tag,
        "key": calls.api_key_id,
        "model": calls.model,
        "limit": limit,
    }
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return [(label, _sums(figures)) for label, *figures in cursor]


def _scope(calls: CallsOfDays) -> str:
    key = " AND u.api_key_id = %(key)s" if calls.api_key_id is not None else ""
    model = " AND u.model = %(model)s" if calls.model is not None else ""
    return (
        "JOIN (SELECT 1 AS one) AS chosen ON u.account_id = %(account)s "
        f"AND u.local_day BETWEEN %(first)s AND %(last)s{key}{model}"
    )


def _label(calls: CallsOfDays, vendor: str) -> str:
    if calls.tag is None:
        return "u.end_user"
    if vendor == "sqlite":
        return "(SELECT value FROM json_each(u.tags) WHERE key = %(tag)s LIMIT 1)"
    return "jsonb_extract_path_text(u.tags, %(tag)s::text)"


def _sums(figures: Sequence[Any]) -> Mapping[str, Any]:
    return {name: _figure(name, value) for name, value in zip(SUM_COLUMNS, figures, strict=True)}


def _figure(name: str, value: Any) -> Any:
    return _COST.from_db_value(value, None, connection) if name in COST_FIELDS else int(value)

"""Calls of some days themselves, summed by whatever a call has: what no day is summed up by, and what no day holds yet.

Corrections are in the sums as they are in days (`statements`). Whoever asks must bound the number of calls first
(`count_calls`): there is no index by most of what they may be grouped by.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

from django.db import connection

from billing.models import DailyUsage
from billing.models.rollups import COST_FIELDS
from billing.rollup.statements import OUTCOME_GROUP, PROVIDER_INSTANCE, grouped_sql
from llm.db.json_rows import moment_text

CallKey = Literal[
    "day",
    "hour",
    "account_id",
    "api_key_id",
    "provider",
    "provider_instance",
    "model",
    "outcome",
    "outcome_group",
    "end_user",
    "tag",
]
"""What calls are grouped by. hour: the hour's beginning, in UTC. tag: the value of `ChosenCalls.tag_key`."""

_COST = DailyUsage._meta.get_field("cost")
_FOREVER = datetime(2999, 12, 31, tzinfo=UTC)
_TAG = {
    "sqlite": "(SELECT value FROM json_each(u.tags) WHERE key = %({name})s LIMIT 1)",
    "postgresql": "jsonb_extract_path_text(u.tags, %({name})s::text)",
}
_HOUR = {
    "sqlite": "strftime('%%Y-%%m-%%d %%H:00:00', u.opened_at)",
    "postgresql": "date_trunc('hour', u.opened_at AT TIME ZONE 'UTC')",
}


@dataclass(frozen=True, slots=True)
class ChosenCalls:
    """Which calls: of days from `first` to `last`, both included. Empty collections and None choose all.

    tag: key and value. tag_key: by whose values to group. is_unsummed: only those that no day of their account holds.
    recorded_after: none of those can be older; an index leads to them.
    """

    first: date
    last: date
    account_id: int | None = None
    api_key_ids: Collection[int] = ()
    provider: str | None = None
    instance: str | None = None
    model: str | None = None
    outcomes: Collection[str] = ()
    end_users: Collection[str] = ()
    tag: tuple[str, str] | None = None
    tag_key: str = ""
    is_unsummed: bool = False
    recorded_after: datetime | None = None

    def parameters(self, vendor: str) -> Mapping[str, Any]:
        tag_name, tag_value = self.tag or ("", "")
        return {
            "first": self.first.isoformat(),
            "last": self.last.isoformat(),
            "account": self.account_id,
            "provider": self.provider,
            "instance": self.instance,
            "model": self.model,
            "tag_name": tag_name,
            "tag_value": tag_value,
            "tag_key": self.tag_key,
            "cutoff": moment_text(_FOREVER, vendor),
            "after": moment_text(self.recorded_after or datetime(2000, 1, 1, tzinfo=UTC), vendor),
            **_listed("key", self.api_key_ids),
            **_listed("outcome", self.outcomes),
            **_listed("end_user", self.end_users),
        }

    def scope(self, vendor: str) -> str:
        """Joined to `llm_usage u`."""
        conditions = {
            "u.local_day BETWEEN %(first)s AND %(last)s": True,
            "u.account_id = %(account)s": self.account_id is not None,
            f"u.api_key_id IN ({_names('key', self.api_key_ids)})": self.api_key_ids,
            "u.provider = %(provider)s": self.provider is not None,
            f"{PROVIDER_INSTANCE} = %(instance)s": self.instance is not None,
            "u.model = %(model)s": self.model is not None,
            f"u.outcome IN ({_names('outcome', self.outcomes)})": self.outcomes,
            # The second condition is the index's own.
            f"u.end_user IN ({_names('end_user', self.end_users)}) AND u.end_user <> ''": self.end_users,
            f"{_TAG[vendor].format(name='tag_name')} = %(tag_value)s": self.tag is not None,
            # Of an account whose days are being written (no cutoff) nobody knows what they hold.
            "u.recorded_at > %(after)s AND (chosen.is_new OR u.recorded_at > chosen.cutoff_at)": self.is_unsummed,
        }
        return f"JOIN {self._chosen} AS chosen ON " + " AND ".join(text for text, holds in conditions.items() if holds)

    @property
    def _chosen(self) -> str:
        if not self.is_unsummed:
            return "(SELECT 1 AS one)"
        return (
            "(SELECT a.id AS account_id, m.cutoff_at, m.account_id IS NULL AS is_new FROM llm_account a "
            "LEFT JOIN billing_rollupmark m ON m.account_id = a.id)"
        )


@dataclass(frozen=True, slots=True)
class GroupOfCalls:
    """sums: by the columns that were asked for."""

    keys: tuple[Any, ...]
    sums: Mapping[str, Any]


def count_calls(calls: ChosenCalls, *, limit: int) -> int:
    """Counted to `limit`, at most."""
    vendor = connection.vendor
    sql = f"SELECT COUNT(*) FROM (SELECT 1 FROM llm_usage u {_joined(calls, vendor)} LIMIT %(limit)s) AS counted"  # noqa: S608
    return int(_rows(sql, calls, limit=limit)[0][0])


def sum_calls(calls: ChosenCalls, keys: Sequence[CallKey], columns: Sequence[str], *, limit: int) -> list[GroupOfCalls]:
    """Calls that have ended; at most `limit` groups. columns: of SUM_COLUMNS and TIME_FIELDS."""
    vendor = connection.vendor
    sql = grouped_sql([_key_sql(key, vendor) for key in keys], columns, _joined(calls, vendor), vendor)
    return [
        GroupOfCalls(
            tuple(_key(key, value) for key, value in zip(keys, row, strict=False)),
            {name: _figure(name, value) for name, value in zip(columns, row[len(keys) :], strict=True)},
        )
        for row in _rows(f"{sql} LIMIT %(limit)s", calls, limit=limit)
    ]


def _joined(calls: ChosenCalls, vendor: str) -> str:
    join = calls.scope(vendor)
    return f"{join} AND chosen.account_id = u.account_id" if calls.is_unsummed else join


def _rows(sql: str, calls: ChosenCalls, **more: Any) -> list[Sequence[Any]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, {**calls.parameters(connection.vendor), **more})
        return list(cursor.fetchall())


def _key_sql(key: CallKey, vendor: str) -> str:
    if key == "hour":
        return _HOUR[vendor]
    if key == "tag":
        return _TAG[vendor].format(name="tag_key")
    expressions = {"day": "u.local_day", "provider_instance": PROVIDER_INSTANCE, "outcome_group": OUTCOME_GROUP}
    return expressions.get(key, f"u.{key}")


def _key(key: CallKey, value: Any) -> Any:
    """SQLite has days and hours as text."""
    if key == "day":
        return value if isinstance(value, date) else date.fromisoformat(value)
    if key == "hour":
        found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC)
    return value


def _figure(name: str, value: Any) -> Any:
    return _COST.from_db_value(value, None, connection) if name in COST_FIELDS else int(value)


def _listed(name: str, values: Collection[Any]) -> dict[str, Any]:
    return {f"{name}_{number}": value for number, value in enumerate(sorted(values))}


def _names(name: str, values: Collection[Any]) -> str:
    return ", ".join(f"%({name}_{number})s" for number, _ in enumerate(values))

"""The SQL that builds days from the books: the same text for both databases, except for exact sums.

Calls and adjustments are entries of one list, each with its own figures and with what is known about its call by the
cutoff. So every figure is a plain sum over the list, and amounts are added only in an exact sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from billing.models.rollups import COST_FIELDS
from llm.books.figures import DECIDING
from llm.digests import DIGEST_FIELDS
from llm.enums import UsageSource, UsageStatus
from llm.types import COST_UNKNOWN, TOKEN_FIELDS

KEY_COLUMNS = ("account_id", "local_day", "api_key_id", "provider", "model", "rate_set_id", "is_billable")
SUM_COLUMNS = ("calls", "estimated_calls", "unpriced_calls", *TOKEN_FIELDS, *COST_FIELDS, *DIGEST_FIELDS)
COLUMNS = (*KEY_COLUMNS, *SUM_COLUMNS)

# Which calls: joined to `llm_usage u`. On PostgreSQL accounts, or pairs of account and day.
WHOLE_ACCOUNTS = "JOIN unnest(%(accounts)s::bigint[]) AS t(account_id) ON t.account_id = u.account_id"
DAYS_OF_ACCOUNTS = (
    "JOIN unnest(%(accounts)s::bigint[], %(days)s::date[]) AS t(account_id, local_day) "
    "ON t.account_id = u.account_id AND t.local_day = u.local_day"
)
# On SQLite: days of one account.
DAYS_OF_ACCOUNT = (
    "JOIN (SELECT value AS local_day FROM json_each(%(days)s)) AS t "
    "ON t.local_day = u.local_day AND u.account_id = %(account)s"
)

_CLOSED = f"u.status IN ('{UsageStatus.SETTLED.value}', '{UsageStatus.ESTIMATED.value}')"
_DECIDING = ", ".join(f"'{source}'" for source in sorted(DECIDING))
_SUMMED_FIELDS = (*TOKEN_FIELDS, *DIGEST_FIELDS)
_GROUP = ", ".join(KEY_COLUMNS)
_IS_TAKEN_BACK = "(COALESCE(c.taken_back, 0) = 1)"
_CALL_KEYS = (
    "u.account_id, u.local_day, u.api_key_id, u.provider, u.model, "
    f"CASE WHEN {_IS_TAKEN_BACK} THEN NULL ELSE COALESCE(c.rate_set_id, u.rate_set_id) END AS rate_set_id, "
    "COALESCE(c.is_billable, u.is_billable) AS is_billable"
)
_IS_ESTIMATED = f"(u.usage_source = '{UsageSource.ESTIMATED.value}' AND COALESCE(c.decisions, 0) = 0)"
# Only the cost of calls that used something is taken back: what used nothing costs 0 at any price.
_IS_UNPRICED = (
    f"({_IS_TAKEN_BACK} OR (u.cost IS NULL AND COALESCE(c.costs, 0) = 0 AND "
    "(u.prompt_tokens + u.completion_tokens + COALESCE(c.tokens, 0) > 0 OR u.extra_meters <> '{}' "
    "OR COALESCE(c.units, 0) = 1)))"
)
_ZERO_OF_SQLITE = "0" * 38


@cache
def days_sql(scope: str, vendor: str) -> str:
    """Rows of `DailyUsage`, as COLUMNS, of the calls in scope: as on the books up to %(cutoff)s."""
    entries = _entries_sql(_CALL_KEYS, scope)
    return f"{entries} SELECT {_GROUP}, {', '.join(_sums(vendor))} FROM entry GROUP BY {_GROUP}"  # noqa: S608


@cache
def labelled_sql(label: str, scope: str, vendor: str) -> str:
    """The same sums by a label, then SUM_COLUMNS. label: an SQL expression over a call `u`."""
    entries = _entries_sql(f"{label} AS label", scope)
    return f"{entries} SELECT label, {', '.join(_sums(vendor))} FROM entry GROUP BY label"  # noqa: S608


def grouped_sql(keys: Sequence[str], columns: Sequence[str], scope: str, vendor: str) -> str:
    """Sums by any number of keys: these, then columns (of SUM_COLUMNS). keys: SQL over a call `u`."""
    names = [f"key_{number}" for number, _ in enumerate(keys)]
    entries = _entries_sql(", ".join(f"{key} AS {name}" for key, name in zip(keys, names, strict=True)), scope)
    sums = dict(zip(SUM_COLUMNS, _sums(vendor), strict=True))
    chosen = ", ".join([*names, *(sums[column] for column in columns)])
    return f"{entries} SELECT {chosen} FROM entry GROUP BY {', '.join(names)}"  # noqa: S608


def _entries_sql(keys: str, scope: str) -> str:
    calls = (
        f"SELECT {keys}, 1 AS calls, {_IS_ESTIMATED} AS is_estimated, {_IS_UNPRICED} AS is_unpriced, "  # noqa: S608
        f"u.cost, {_picked('u')} FROM llm_usage u {scope} LEFT JOIN corrected c ON c.usage_id = u.id "
        f"WHERE {_CLOSED} AND u.recorded_at <= %(cutoff)s"
    )
    adjustments = (
        f"SELECT {keys}, 0, {_IS_ESTIMATED}, 1 = 0, a.cost, {_picked('a')} "  # noqa: S608
        "FROM corrected c JOIN llm_usage u ON u.id = c.usage_id "
        "JOIN llm_usageadjustment a ON a.usage_id = c.usage_id AND a.recorded_at <= %(cutoff)s"
    )
    return f"WITH {_corrected_sql(scope)}, entry AS ({calls} UNION ALL {adjustments})"


def _corrected_sql(scope: str) -> str:
    """The adjustments of each call that has any, combined."""
    return (
        "summed AS (SELECT a.usage_id, MAX(a.id) AS last_id, "  # noqa: S608
        "MAX(CASE WHEN a.rate_set_id IS NOT NULL THEN a.id END) AS rated_id, COUNT(a.cost) AS costs, "
        "SUM(a.prompt_tokens + a.completion_tokens) AS tokens, "
        "MAX(CASE WHEN a.extra_meters <> '{}' THEN 1 ELSE 0 END) AS units, "
        "MAX(CASE WHEN a.digest_version > 1 THEN a.id END) AS flagged_id, "
        f"MAX(CASE WHEN a.flags LIKE '%%{COST_UNKNOWN}%%' THEN a.id END) AS taken_back_id, "
        f"MAX(CASE WHEN a.source IN ({_DECIDING}) THEN 1 ELSE 0 END) AS decisions "
        f"FROM llm_usageadjustment a JOIN llm_usage u ON u.id = a.usage_id {scope} "
        "WHERE a.recorded_at <= %(cutoff)s GROUP BY a.usage_id), "
        "corrected AS (SELECT s.usage_id, s.costs, s.tokens, s.units, s.decisions, "
        "last.is_billable, rated.rate_set_id, "
        "CASE WHEN s.taken_back_id = s.flagged_id THEN 1 ELSE 0 END AS taken_back "
        "FROM summed s JOIN llm_usageadjustment last ON last.id = s.last_id "
        "LEFT JOIN llm_usageadjustment rated ON rated.id = s.rated_id)"
    )


def _picked(table: str) -> str:
    return ", ".join(f"{table}.{name}" for name in _SUMMED_FIELDS)


def _sums(vendor: str) -> tuple[str, ...]:
    """As SUM_COLUMNS."""
    return (
        "SUM(calls)",
        "COALESCE(SUM(calls) FILTER (WHERE is_estimated), 0)",
        "COALESCE(SUM(calls) FILTER (WHERE is_unpriced), 0)",
        *(f"SUM({name})" for name in TOKEN_FIELDS),
        _exact_cost("", vendor),
        _exact_cost("FILTER (WHERE is_estimated)", vendor),
        *(f"SUM({name})" for name in DIGEST_FIELDS),
    )


def _exact_cost(which: str, vendor: str) -> str:
    """In USD, of pico-units: NUMERIC times a power of ten is exact; SQLite's aggregate yields what its column holds."""
    if vendor == "sqlite":
        return f"COALESCE(LLM_EXACT_SUM(cost) {which}, '{_ZERO_OF_SQLITE}')"
    return f"COALESCE(SUM(cost) {which}, 0) * 0.000000000001"


def touched_sql(accounts: str) -> str:
    """Pairs of account and day for which something was recorded after the account's mark, up to %(cutoff)s.

    %(floor)s: the oldest of the marks. accounts: see `among`.
    """
    since = (
        "JOIN billing_rollupmark m ON m.account_id = u.account_id AND {stamp} > m.cutoff_at "
        "WHERE {stamp} > %(floor)s AND {stamp} <= %(cutoff)s " + accounts
    )
    return (
        f"SELECT u.account_id, u.local_day FROM llm_usage u {since.format(stamp='u.recorded_at')} AND {_CLOSED} "  # noqa: S608
        "UNION SELECT u.account_id, u.local_day FROM llm_usageadjustment a JOIN llm_usage u ON u.id = a.usage_id "
        f"{since.format(stamp='a.recorded_at')}"
    )


def days_between_sql(accounts: str) -> str:
    """Pairs of account and day from %(first)s to %(last)s that have calls or rows."""
    return " UNION ".join(
        f"SELECT u.account_id, u.local_day FROM {table} u WHERE u.local_day BETWEEN %(first)s AND %(last)s {accounts}"  # noqa: S608
        for table in ("llm_usage", "billing_dailyusage")
    )


def among(vendor: str) -> str:
    """A condition that restricts to %(accounts)s."""
    wanted = (
        "SELECT value FROM json_each(%(accounts)s)" if vendor == "sqlite" else "SELECT unnest(%(accounts)s::bigint[])"
    )
    return f"AND u.account_id IN ({wanted})"

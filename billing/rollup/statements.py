"""The SQL that builds days from the books: the same text for both databases, except for exact sums.

Calls and adjustments are entries of one list, each with its own figures and with what is known about its call by the
cutoff. So every figure is a plain sum over the list, and amounts are added only in an exact sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from billing.enums import OutcomeGroup
from billing.models.rollups import COST_FIELDS, EDGES_MS, FIRST_BYTE_FIELDS, LATENCY_FIELDS, TIME_FIELDS
from llm.books.figures import DECIDING
from llm.digests import DIGEST_FIELDS
from llm.enums import FAILED_OUTCOMES, CallOutcome, UsageSource, UsageStatus
from llm.types import COST_UNKNOWN, TOKEN_FIELDS

KEY_COLUMNS = (
    *("account_id", "local_day", "api_key_id", "provider", "model", "rate_set_id", "is_billable"),
    *("provider_instance", "outcome_group"),
)
SUM_COLUMNS = ("calls", "estimated_calls", "unpriced_calls", *TOKEN_FIELDS, *COST_FIELDS, *DIGEST_FIELDS)
UPSTREAM_COLUMNS = ("upstream_cost", "upstream_cost_calls")
COLUMNS = (*KEY_COLUMNS, *SUM_COLUMNS, *TIME_FIELDS, *UPSTREAM_COLUMNS)

MAX_END_USERS = 200
"""Of an account and day, the dearest; the others are in one row together."""
END_USER_COLUMNS = (
    *("account_id", "local_day", "end_user", "is_rest"),
    *("calls", "unpriced_calls", "prompt_tokens", "completion_tokens", "cost"),
)

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
_IS_ENDED = f"u.status <> '{UsageStatus.OPEN.value}'"
OUTCOME_GROUP = (
    f"CASE u.outcome WHEN '{CallOutcome.OK.value}' THEN '{OutcomeGroup.OK.value}' "
    f"WHEN '{CallOutcome.CLIENT_GONE.value}' THEN '{OutcomeGroup.CLIENT_GONE.value}' "
    f"ELSE '{OutcomeGroup.FAILED.value}' END"
)
# Calls of before there were instances were calls of the provider's only one.
PROVIDER_INSTANCE = "COALESCE(NULLIF(u.provider_instance, ''), u.provider)"
_CALL_KEYS = (
    "u.account_id, u.local_day, u.api_key_id, u.provider, u.model, "
    f"CASE WHEN {_IS_TAKEN_BACK} THEN NULL ELSE COALESCE(c.rate_set_id, u.rate_set_id) END AS rate_set_id, "
    f"{_CLOSED} AND COALESCE(c.is_billable, u.is_billable) AS is_billable, "
    f"{PROVIDER_INSTANCE} AS provider_instance, {OUTCOME_GROUP} AS outcome_group"
)
_IS_FAILED = f"u.outcome IN ({', '.join(repr(outcome.value) for outcome in FAILED_OUTCOMES)})"
_IS_ESTIMATED = f"(u.usage_source = '{UsageSource.ESTIMATED.value}' AND COALESCE(c.decisions, 0) = 0)"
# Only the cost of calls that used something is taken back: what used nothing costs 0 at any price.
_IS_UNPRICED = (
    f"({_IS_TAKEN_BACK} OR (u.cost IS NULL AND COALESCE(c.costs, 0) = 0 AND "
    "(u.prompt_tokens + u.completion_tokens + COALESCE(c.tokens, 0) > 0 OR u.extra_meters <> '{}' "
    "OR COALESCE(c.units, 0) = 1)))"
)
_ZERO_OF_SQLITE = "0" * 38


FORMER_DAYS = (
    "SELECT account_id, local_day FROM billing_dailyusage WHERE outcome_group = '' GROUP BY local_day, account_id "
    "ORDER BY local_day DESC LIMIT %(former)s"
)
"""Pairs of account and day with rows of the former shape, the latest first."""


@cache
def days_sql(scope: str, vendor: str) -> str:
    """Rows of `DailyUsage`, as COLUMNS, of the calls in scope: as on the books up to %(cutoff)s."""
    entries = _entries_sql(_CALL_KEYS, scope)
    sums = ", ".join([*_sums(vendor), *_time_sums(), *_upstream_sums(vendor)])
    return f"{entries} SELECT {_GROUP}, {sums} FROM entry GROUP BY {_GROUP}"  # noqa: S608


@cache
def end_user_days_sql(scope: str, vendor: str) -> str:
    """Rows of `EndUserDay`, as END_USER_COLUMNS, of the same calls."""
    entries = _entries_sql("u.account_id, u.local_day, u.end_user", scope)
    sums = dict(zip(SUM_COLUMNS, _sums(vendor), strict=True))
    names = END_USER_COLUMNS[4:]
    figures = ", ".join(f"{sums[name]} AS {name}" for name in names)
    exact = "LLM_EXACT_SUM" if vendor == "sqlite" else "SUM"
    added = ", ".join(f"{exact if name in COST_FIELDS else 'SUM'}({name})" for name in names)
    is_rest = f"place > {MAX_END_USERS}"
    return (
        f"{entries}, whole AS (SELECT account_id, local_day, end_user, {figures} FROM entry "  # noqa: S608
        "GROUP BY account_id, local_day, end_user), "
        # Calls without an end user aren't one of the 200.
        "ranked AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY account_id, local_day, end_user = '' "
        "ORDER BY cost DESC, calls DESC, end_user) AS place FROM whole WHERE calls > 0) "
        f"SELECT account_id, local_day, CASE WHEN {is_rest} THEN '' ELSE end_user END AS named, "
        f"{is_rest} AS is_rest, {added} FROM ranked GROUP BY account_id, local_day, named, {is_rest}"
    )


@cache
def labelled_sql(label: str, scope: str, vendor: str) -> str:
    """The same sums by a label, then SUM_COLUMNS. label: an SQL expression over a call `u`."""
    entries = _entries_sql(f"{label} AS label", scope)
    sums = ", ".join(_sums(vendor))
    return f"{entries} SELECT label, {sums} FROM entry GROUP BY label HAVING SUM(calls) > 0"  # noqa: S608


def grouped_sql(keys: Sequence[str], columns: Sequence[str], scope: str, vendor: str) -> str:
    """Sums by any number of keys: these, then columns (of SUM_COLUMNS and TIME_FIELDS). keys: SQL over a call `u`."""
    names = [f"key_{number}" for number, _ in enumerate(keys)]
    entries = _entries_sql(", ".join(f"{key} AS {name}" for key, name in zip(keys, names, strict=True)), scope)
    sums = dict(zip((*SUM_COLUMNS, *TIME_FIELDS), (*_sums(vendor), *_time_sums()), strict=True))
    chosen = ", ".join([*names, *(sums[column] for column in columns)])
    return f"{entries} SELECT {chosen} FROM entry GROUP BY {', '.join(names)}"  # noqa: S608


def _entries_sql(keys: str, scope: str) -> str:
    """Void calls count only by how they ended: they have no cost, and their digests are in no sum."""
    picked = ", ".join(f"CASE WHEN {_CLOSED} THEN u.{name} ELSE 0 END AS {name}" for name in _SUMMED_FIELDS)
    calls = (
        f"SELECT {keys}, CASE WHEN {_CLOSED} THEN 1 ELSE 0 END AS calls, "  # noqa: S608
        f"{_CLOSED} AND {_IS_ESTIMATED} AS is_estimated, {_CLOSED} AND {_IS_UNPRICED} AS is_unpriced, "
        f"u.cost, {picked}, {_IS_FAILED} AS is_failed, {_bucket('u.duration_ms')} AS latency, "
        f"CASE WHEN u.is_stream THEN {_bucket('u.first_byte_ms')} END AS first_byte, u.upstream_cost "
        f"FROM llm_usage u {scope} LEFT JOIN corrected c ON c.usage_id = u.id "
        f"WHERE {_IS_ENDED} AND u.recorded_at <= %(cutoff)s"
    )
    adjustments = (
        f"SELECT {keys}, 0, {_IS_ESTIMATED}, 1 = 0, a.cost, {_picked('a')}, 1 = 0, NULL, NULL, NULL "  # noqa: S608
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


def _bucket(milliseconds: str) -> str:
    """The number of its bucket; NULL if it wasn't measured."""
    edges = " ".join(f"WHEN {milliseconds} <= {edge} THEN {number}" for number, edge in enumerate(EDGES_MS))
    return f"CASE WHEN {milliseconds} IS NULL THEN NULL {edges} ELSE {len(EDGES_MS)} END"


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


def _time_sums() -> tuple[str, ...]:
    """As TIME_FIELDS."""
    return (
        "COUNT(*) FILTER (WHERE is_failed)",
        *(f"COUNT(*) FILTER (WHERE latency = {number})" for number, _ in enumerate(LATENCY_FIELDS)),
        *(f"COUNT(*) FILTER (WHERE first_byte = {number})" for number, _ in enumerate(FIRST_BYTE_FIELDS)),
    )


def _upstream_sums(vendor: str) -> tuple[str, ...]:
    """As UPSTREAM_COLUMNS."""
    if vendor == "sqlite":
        return "LLM_EXACT_SUM(upstream_cost)", "COUNT(upstream_cost)"
    return "SUM(upstream_cost) * 0.000000000001", "COUNT(upstream_cost)"


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
        f"SELECT u.account_id, u.local_day FROM llm_usage u {since.format(stamp='u.recorded_at')} AND {_IS_ENDED} "  # noqa: S608
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

"""The SQL of the books: one statement for any number of rows, passed as one JSON document.

A call is inserted into the table of open calls; its close inserts it into `llm_usage` and deletes it there, in one
transaction (docs/decisions/0037-two-tables.md).

PostgreSQL and SQLite differ in how a JSON document becomes rows and in a few types; the rest is the same text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import cache
from operator import itemgetter
from typing import Any
from zoneinfo import ZoneInfo

from llm.books.operations import CloseCall, OpenCall, flags_text
from llm.db.json_rows import json_value, moment_text, rows_sql
from llm.digests import DIGEST_FIELDS, VERSION, ClosedFacts, OpenedFacts, digest_words, usage_text
from llm.types import TOKEN_FIELDS

BOOKS_LOCK = 0x6C6C6D62
"""The advisory lock that every writer shares and that a cutoff takes alone."""

TABLES = (
    "llm_account",
    "llm_apikey",
    "llm_catalogversion",
    "llm_limit",
    "llm_limitwindow",
    "llm_opencall",
    "llm_outbox",
    "llm_usage",
)
"""All tables that a batch reads or writes."""

KEYS = "k.id, k.account_id, k.revoked_at, k.expires_at, k.allowed_models, a.status, a.time_zone"
_KEYS_AND_ACCOUNTS = "llm_apikey k JOIN llm_account a ON a.id = k.account_id"

# The lock is taken before the clock is read, so that a cutoff under the exclusive lock misses no earlier timestamp.
READ_POSTGRESQL = (
    f"WITH held AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared({BOOKS_LOCK})) "  # noqa: S608
    "SELECT clock_timestamp(), coalesce((SELECT version FROM llm_catalogversion WHERE id = 1), 0), "
    f"{KEYS} FROM held LEFT JOIN ({_KEYS_AND_ACCOUNTS}) ON k.id = ANY(%s::bigint[])"
)
READ_KEYS_SQLITE = f"SELECT {KEYS} FROM {_KEYS_AND_ACCOUNTS} WHERE k.id IN (SELECT value FROM json_each(%s))"  # noqa: S608

OPEN_COLUMNS: Mapping[str, str] = {
    "id": "uuid",
    "request_id": "uuid",
    "attempt": "smallint",
    "account_id": "bigint",
    "api_key_id": "bigint",
    "process_id": "uuid",
    "dialect": "text",
    "provider": "text",
    "provider_instance": "text",
    "credential": "text",
    "end_user": "text",
    "tags": "jsonb",
    "model": "text",
    "upstream_model": "text",
    "is_stream": "boolean",
    "service_tier": "text",
    "speed": "text",
    "inference_geo": "text",
    "price_id": "bigint",
    "request_bytes": "integer",
    "holds": "jsonb",
    "opened_at": "timestamptz",
    "local_day": "date",
}

CLOSE_COLUMNS: Mapping[str, str] = {
    "status": "text",
    "usage_source": "text",
    "outcome": "text",
    "error_code": "text",
    "upstream_status": "smallint",
    "reported_model": "text",
    "upstream_response_id": "text",
    "service_tier": "text",
    "speed": "text",
    "inference_geo": "text",
    "flags": "text",
    **dict.fromkeys(TOKEN_FIELDS, "bigint"),
    "extra_meters": "jsonb",
    "rate_set_id": "bigint",
    "cost": "bigint",
    "upstream_cost": "bigint",
    "is_billable": "boolean",
    "is_disputed": "boolean",
    "disputed_usage": "jsonb",
    "first_byte_ms": "integer",
    "duration_ms": "integer",
}
_CLOSE_STAMPS: Mapping[str, str] = {
    "closed_at": "timestamptz",
    "recorded_at": "timestamptz",
    "digest_version": "smallint",
    **dict.fromkeys(DIGEST_FIELDS, "integer"),
}
_CLOSE_JSON = tuple(name for name, kind in CLOSE_COLUMNS.items() if kind == "jsonb")
_TOUCHED = ", ".join(("holds", *OpenedFacts._fields))
_closed_facts = itemgetter(*ClosedFacts._fields)


def open_row(
    operation: OpenCall, *, holds: Sequence[tuple[int, int]], now: datetime, time_zone: str, vendor: str
) -> dict[str, Any]:
    return {
        "id": operation.id.hex,
        "request_id": operation.request_id.hex,
        "attempt": operation.attempt,
        "account_id": operation.account_id,
        "api_key_id": operation.key_id,
        "process_id": operation.process_id.hex,
        "dialect": operation.dialect.value,
        "provider": operation.provider,
        "provider_instance": operation.provider_instance or operation.provider,
        "credential": operation.credential,
        "end_user": operation.end_user,
        "tags": dict(operation.tags),
        "model": operation.model,
        "upstream_model": operation.upstream_model,
        "is_stream": operation.is_stream,
        **operation.service._asdict(),
        "price_id": operation.price_id,
        "request_bytes": operation.request_bytes,
        "holds": json_value(holds or None, vendor),
        "opened_at": moment_text(now, vendor),
        "local_day": _local_day(now, time_zone).isoformat(),
    }


def opened_facts(operation: OpenCall, *, now: datetime, time_zone: str) -> OpenedFacts:
    """The facts of the row that `open_row` writes."""
    return OpenedFacts(
        id=operation.id,
        request_id=operation.request_id,
        attempt=operation.attempt,
        account_id=operation.account_id,
        api_key_id=operation.key_id,
        provider=operation.provider,
        model=operation.model,
        upstream_model=operation.upstream_model,
        dialect=operation.dialect.value,
        opened_at=now,
        local_day=_local_day(now, time_zone),
        price_id=operation.price_id,
        provider_instance=operation.provider_instance or operation.provider,
        end_user=operation.end_user,
        tags=dict(operation.tags),
    )


def close_row(operation: CloseCall, opened: OpenedFacts, *, now: datetime, vendor: str) -> dict[str, Any]:
    """With the digest of the row as it will be. opened: what it was opened with."""
    row = close_values(operation)
    words = digest_words(usage_text(opened, ClosedFacts._make(_closed_facts(row))))
    row.update(zip(DIGEST_FIELDS, words, strict=True))
    row["digest_version"] = VERSION
    row["id"] = operation.id.hex
    row["closed_at"] = row["recorded_at"] = moment_text(now, vendor)
    for name in _CLOSE_JSON:
        row[name] = json_value(row[name], vendor)
    return row


def close_values(operation: CloseCall) -> dict[str, Any]:
    """All that a close writes, except the time: two closes are equal if these are."""
    counts = operation.counts
    return {
        "status": operation.status.value,
        "usage_source": operation.usage_source.value,
        "outcome": operation.outcome.value,
        "error_code": operation.error_code,
        "upstream_status": operation.upstream_status,
        "reported_model": operation.reported_model,
        "upstream_response_id": operation.upstream_response_id,
        "service_tier": operation.service_tier,
        "speed": operation.speed,
        "inference_geo": operation.inference_geo,
        "flags": flags_text(operation.flags),
        **{name: getattr(counts, name) for name in TOKEN_FIELDS},
        "extra_meters": dict(counts.extra_meters),
        "rate_set_id": operation.rate_set_id,
        "cost": operation.cost_pico,
        "upstream_cost": operation.upstream_cost_pico,
        "is_billable": operation.is_billable,
        "is_disputed": operation.is_disputed,
        "disputed_usage": None if operation.disputed_usage is None else dict(operation.disputed_usage),
        "first_byte_ms": operation.first_byte_ms,
        "duration_ms": operation.duration_ms,
    }


@cache
def rows_touched_sql(vendor: str) -> str:
    """The open calls of these ids, locked in the order of all such locks.

    One that another transaction is closing is waited for, and isn't found then: its usage row is seen by later
    statements only.
    """
    lock = "" if vendor == "sqlite" else "ORDER BY id FOR UPDATE"
    return f"SELECT {_TOUCHED} FROM llm_opencall WHERE id {_among(vendor)} {lock}"  # noqa: S608


def _among(vendor: str) -> str:
    return "IN (SELECT value FROM json_each(%s))" if vendor == "sqlite" else "= ANY(%s::uuid[])"


def _local_day(now: datetime, time_zone: str) -> date:
    return now.astimezone(_zone(time_zone)).date()


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@cache
def insert_open_sql(vendor: str) -> str:
    """Open calls. The table's trigger refuses one that is closed already, however late the statement arrives."""
    picked = ", ".join(f"v.{name}" for name in OPEN_COLUMNS)
    return (
        f"INSERT INTO llm_opencall ({', '.join(OPEN_COLUMNS)}) SELECT {picked} FROM {rows_sql(OPEN_COLUMNS, vendor)} "  # noqa: S608
        "WHERE true ORDER BY v.id"
    )


@cache
def insert_closed_sql(vendor: str) -> str:
    """The usage rows of open calls. Two parameters: a document of what the closes say, and their ids, by which the
    planner finds the calls.
    """
    closed = {**CLOSE_COLUMNS, **_CLOSE_STAMPS}
    opened = [name for name in OPEN_COLUMNS if name not in closed]
    picked = ", ".join((*(f"o.{name}" for name in opened), *(f"v.{name}" for name in closed)))
    return (
        f"INSERT INTO llm_usage ({', '.join((*opened, *closed))}) SELECT {picked} FROM llm_opencall o "  # noqa: S608
        f"JOIN {rows_sql({'id': 'uuid', **closed}, vendor)} ON v.id = o.id WHERE o.id {_among(vendor)} ORDER BY o.id"
    )


@cache
def delete_open_sql(vendor: str) -> str:
    """After `insert_closed_sql`, in the same transaction. The table's trigger refuses a call without a usage row."""
    return f"DELETE FROM llm_opencall WHERE id {_among(vendor)}"  # noqa: S608

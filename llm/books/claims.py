"""Idempotency keys: which are claimed, and by which calls. Only batches with such a key run any of this.

A batch locks the keys that it wants to claim, reads which calls have them, and writes each claim with its call's open
row, so that of two concurrent requests only one opens a call, in whatever process. The locks are advisory, since an
unclaimed key has no row to lock.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from functools import cache
from uuid import UUID

import orjson
from django.conf import settings

from llm import models
from llm.books.operations import OpenCall
from llm.db.json_rows import Statement, id_list, moment_text, rows_sql
from llm.models import IdempotencyKey

TABLE = "llm_idempotencykey"
PRUNED_AT_ONCE = 1000
PAUSE_SECONDS = 0.05

ClaimKey = tuple[int, str]
"""The id of an API key, and the hash of an idempotency key."""

_LOCK = 0x6C6C6D69
_COLUMNS = {
    "api_key_id": "bigint",
    "key_hash": "text",
    "content_hash": "text",
    "call_id": "uuid",
    "claimed_at": "timestamptz",
}

# The claiming call may be closed, and a later one of its request open.
_IS_IN_FLIGHT = (
    "EXISTS (SELECT 1 FROM llm_opencall o WHERE o.request_id = coalesce("
    "(SELECT u.request_id FROM llm_usage u WHERE u.id = c.call_id), "
    "(SELECT x.request_id FROM llm_opencall x WHERE x.id = c.call_id)))"
)

LOCK_POSTGRESQL = f"SELECT pg_advisory_xact_lock({_LOCK}, number) FROM unnest(%s::integer[]) AS number"  # noqa: S608


def lifetime() -> timedelta:
    """An older claim counts as absent, unless a call of its request is open."""
    return timedelta(hours=settings.LLM_IDEMPOTENCY_HOURS)


def key_of(operation: OpenCall) -> ClaimKey | None:
    """What the open wants to claim, or None."""
    if operation.claim is None or operation.is_stillborn:
        return None
    return operation.key_id, operation.claim.key_hash


def lock_numbers(keys: Iterable[ClaimKey]) -> list[int]:
    """In the order of all such locks. Two keys may share a number; then one waits for the other."""
    return sorted({zlib.crc32(f"{key_id} {key_hash}".encode()) - 2**31 for key_id, key_hash in keys})


def read_claims(keys: Collection[ClaimKey], vendor: str) -> Statement:
    """Existing claims of these keys; with several API keys, possibly more than requested."""
    key_ids = id_list(sorted({key_id for key_id, _ in keys}), vendor)
    return read_sql(vendor), (key_ids, id_list(sorted({key_hash for _, key_hash in keys}), vendor))


@cache
def read_sql(vendor: str) -> str:
    """Also returns whether a call of the claiming request is open."""
    columns = ", ".join(f"c.{name}" for name in _COLUMNS)
    return (
        f"SELECT {columns}, {_IS_IN_FLIGHT} FROM {TABLE} c "  # noqa: S608
        f"WHERE c.api_key_id {_among('bigint', vendor)} AND c.key_hash {_among('text', vendor)}"
    )


def claim_statements(
    opens: Iterable[OpenCall], dropped: Collection[UUID], *, now: datetime, vendor: str
) -> list[Statement]:
    """Statements that write the claims of these opens. dropped: calls whose claims are deleted before, or replaced."""
    rows = [
        {
            "api_key_id": each.key_id,
            "key_hash": each.claim.key_hash,
            "content_hash": each.claim.content_hash,
            "call_id": each.id.hex,
            "claimed_at": moment_text(now, vendor),
        }
        for each in opens
        if each.claim is not None
    ]
    written: list[Statement] = []
    if dropped:
        written.append((delete_sql(vendor), (id_list(sorted(each.hex for each in dropped), vendor),)))
    if rows:
        written.append((insert_sql(vendor), (orjson.dumps(rows).decode(),)))
    return written


@cache
def delete_sql(vendor: str) -> str:
    return f"DELETE FROM {TABLE} WHERE call_id {_among('uuid', vendor)}"  # noqa: S608


@cache
def insert_sql(vendor: str) -> str:
    """An existing claim makes the batch fail, rather than allow two calls."""
    picked = ", ".join(f"v.{name}" for name in _COLUMNS)
    return f"INSERT INTO {TABLE} ({', '.join(_COLUMNS)}) SELECT {picked} FROM {rows_sql(_COLUMNS, vendor)} WHERE true"  # noqa: S608


def _among(kind: str, vendor: str) -> str:
    return "IN (SELECT value FROM json_each(%s))" if vendor == "sqlite" else f"= ANY(%s::{kind}[])"


def prune_claims(*, now: datetime) -> int:
    """Delete claims that count as absent; returns how many. now: the database's clock, by which they were made."""
    old = IdempotencyKey.objects.filter(claimed_at__lt=now - lifetime())
    # The claiming call may be closed, and a later one of its request open. Open ones first: they become closed ones.
    in_flight = dict(models.OpenCall.objects.values_list("pk", "request_id"))
    closed = models.Usage.objects.filter(request_id__in=set(in_flight.values())).order_by()
    old = old.exclude(call_id__in={*in_flight, *closed.values_list("pk", flat=True)})
    deleted = 0
    while ids := list(old.order_by("claimed_at").values_list("pk", flat=True)[:PRUNED_AT_ONCE]):
        deleted += IdempotencyKey.objects.filter(pk__in=ids).delete()[0]
        # SQLite has one writer at a time: the books must get their turn.
        time.sleep(PAUSE_SECONDS)
    return deleted

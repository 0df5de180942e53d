"""The SQL of limits, their windows, and the alerts for crossed thresholds."""

from __future__ import annotations

from functools import cache

from llm.db.json_rows import rows_sql

LIMIT_COLUMNS = "l.id, l.account_id, l.api_key_id, l.metric, l.per, l.amount, l.soft_percent, l.is_per_end_user"
_OF_KEYS = (
    "llm_limit l JOIN llm_apikey k ON k.account_id = l.account_id AND (l.api_key_id IS NULL OR l.api_key_id = k.id) "
    "WHERE l.archived_at IS NULL AND k.id"
)
_KEY_SHAPE = {"limit_id": "bigint", "starts_at": "timestamptz"}
_END_USER_SHAPE = {**_KEY_SHAPE, "end_user": "text", "key_id": "bigint"}
_NEED_SHAPE = {"number": "bigint", **_END_USER_SHAPE}
_LOCK_NAMES = 0x6C6C6D6A
_OUTBOX_SHAPE = {
    "kind": "text",
    "cause": "text",
    "event": "text",
    "account_id": "bigint",
    "payload": "jsonb",
    "created_at": "timestamptz",
}


@cache
def limits_sql(vendor: str) -> str:
    """The limits in force of these keys and of their accounts, by id."""
    return f"SELECT DISTINCT {LIMIT_COLUMNS} FROM {_OF_KEYS} {_among(vendor)} ORDER BY l.id"  # noqa: S608


@cache
def windows_sql(vendor: str, *, has_end_users: bool = False) -> str:
    """Windows by id, and by limit and start, locked by id. Two parameters: ids, and a document of the others; with
    `has_end_users` a third one: a document of those of end users.
    """
    if vendor == "sqlite":
        ids = f"SELECT value FROM json_each(%s) UNION ALL {_ids_by_key(vendor, has_end_users=has_end_users)}"  # noqa: S608
        return _windows_where(f"w.id IN ({ids})", starts_at="CAST(strftime('%%s', w.starts_at) AS integer)")
    return _locked(f"SELECT unnest(%s::bigint[]) UNION ALL {_ids_by_key(vendor, has_end_users=has_end_users)}")


@cache
def windows_of_calls_sql(*, has_end_users: bool = False) -> str:
    """PostgreSQL: as `windows_sql`, of the windows that these open calls hold instead of those with these ids."""
    held = (
        "SELECT (hold ->> 0)::bigint FROM llm_opencall o CROSS JOIN LATERAL "
        "jsonb_array_elements(CASE jsonb_typeof(o.holds) WHEN 'array' THEN o.holds END) AS h(hold) "
        "WHERE o.id = ANY(%s::uuid[])"
    )
    return _locked(f"{held} UNION ALL {_ids_by_key('postgresql', has_end_users=has_end_users)}")


def _ids_by_key(vendor: str, *, has_end_users: bool) -> str:
    if not has_end_users:
        return _ids_by_start(vendor)
    found = f"SELECT x.id FROM llm_limitwindow x WHERE {_IS_END_USERS}"  # noqa: S608
    return f"{_ids_by_start(vendor)} UNION ALL SELECT ({found}) FROM {rows_sql(_END_USER_SHAPE, vendor)}"  # noqa: S608


# Without a limit of its own: so the index of starts finds it, too.
_IS_END_USERS = (
    "x.limit_id IS NULL AND x.end_user_limit_id = v.limit_id AND x.starts_at = v.starts_at AND x.end_user = v.end_user"
)


def _ids_by_start(vendor: str) -> str:
    found = "SELECT x.id FROM llm_limitwindow x WHERE x.limit_id = v.limit_id AND x.starts_at = v.starts_at"
    return f"SELECT ({found}) FROM {rows_sql(_KEY_SHAPE, vendor)}"  # noqa: S608


def _locked(ids: str) -> str:
    """An array, not a subquery: the planner would expect many rows, and read all windows."""
    where = _windows_where(f"w.id = ANY(ARRAY({ids}))", starts_at="EXTRACT(EPOCH FROM w.starts_at)::bigint")
    return f"{where} FOR UPDATE OF w"


def _windows_where(condition: str, *, starts_at: str) -> str:
    """starts_at: whole seconds since 1970, which drivers read faster than a timestamp; no window begins between two."""
    columns = f"w.id, {LIMIT_COLUMNS}, {starts_at}, w.used, w.held, w.is_announced, w.end_user"
    windows = "llm_limitwindow w JOIN llm_limit l ON l.id = coalesce(w.limit_id, w.end_user_limit_id)"
    return f"SELECT {columns} FROM {windows} WHERE {condition} ORDER BY w.id"  # noqa: S608


@cache
def insert_windows_sql(vendor: str) -> str:
    """Inserts missing windows, in a fixed order: an insert waits for another transaction's of the same window."""
    false = "0" if vendor == "sqlite" else "false"
    existing = "SELECT 1 FROM llm_limitwindow x WHERE x.limit_id = v.limit_id AND x.starts_at = v.starts_at"
    return (
        "INSERT INTO llm_limitwindow (limit_id, starts_at, used, held, is_announced) "  # noqa: S608
        f"SELECT v.limit_id, v.starts_at, 0, 0, {false} FROM {rows_sql(_KEY_SHAPE, vendor)} "
        f"WHERE NOT EXISTS ({existing}) "
        "ORDER BY v.limit_id, v.starts_at ON CONFLICT (limit_id, starts_at) DO NOTHING"
    )


@cache
def insert_end_user_windows_sql(vendor: str) -> str:
    """As `insert_windows_sql`, of end users. key_id: the key that names one; none for a window that several share."""
    false = "0" if vendor == "sqlite" else "false"
    existing = f"SELECT 1 FROM llm_limitwindow x WHERE {_IS_END_USERS}"  # noqa: S608
    return (
        "INSERT INTO llm_limitwindow (end_user_limit_id, starts_at, end_user, named_by, used, held, is_announced) "  # noqa: S608
        f"SELECT v.limit_id, v.starts_at, v.end_user, v.key_id, 0, 0, {false} "
        f"FROM {rows_sql(_END_USER_SHAPE, vendor)} WHERE NOT EXISTS ({existing}) "
        "ORDER BY v.limit_id, v.starts_at, v.end_user ON CONFLICT (end_user_limit_id, starts_at, end_user) DO NOTHING"
    )


LOCK_NAMES_POSTGRESQL = f"SELECT pg_advisory_xact_lock({_LOCK_NAMES}, number) FROM unnest(%s::integer[]) AS number"  # noqa: S608
"""Of keys, in order: of two batches that let one name new end users, the second sees those of the first."""


@cache
def named_sql(vendor: str, *, limit: int) -> str:
    """Of each need its number, whether there is a window of its own, and how many its key has named, up to `limit`."""
    own = f"SELECT 1 FROM llm_limitwindow x WHERE {_IS_END_USERS}"  # noqa: S608
    named = (
        "SELECT 1 FROM llm_limitwindow x WHERE x.end_user_limit_id = v.limit_id AND x.starts_at = v.starts_at "  # noqa: S608
        f"AND x.named_by = v.key_id LIMIT {limit:d}"
    )
    return (
        f"SELECT v.number, EXISTS ({own}), (SELECT count(*) FROM ({named}) AS named) "  # noqa: S608
        f"FROM {rows_sql(_NEED_SHAPE, vendor)} ORDER BY v.number"
    )


@cache
def update_windows_sql(vendor: str) -> str:
    """Two parameters: a document of the additions, and its ids, which tell the planner how few windows there are."""
    shape = {"id": "bigint", "used": "bigint", "held": "bigint", "announces": "boolean"}
    return (
        "UPDATE llm_limitwindow SET used = llm_limitwindow.used + v.used, held = llm_limitwindow.held + v.held, "  # noqa: S608
        f"is_announced = (llm_limitwindow.is_announced OR v.announces) FROM {rows_sql(shape, vendor)} "
        f"WHERE llm_limitwindow.id = v.id AND llm_limitwindow.id {_among(vendor)}"
    )


def _among(vendor: str) -> str:
    return "IN (SELECT value FROM json_each(%s))" if vendor == "sqlite" else "= ANY(%s::bigint[])"


@cache
def insert_messages_sql(vendor: str) -> str:
    picked = "v.kind, v.cause, v.event, v.account_id, v.payload, v.created_at, v.created_at"
    return (
        "INSERT INTO llm_outbox (kind, cause, event, account_id, payload, created_at, due_at, attempts, last_result) "  # noqa: S608
        f"SELECT {picked}, 0, '' FROM {rows_sql(_OUTBOX_SHAPE, vendor)} WHERE true ON CONFLICT (cause) DO NOTHING"
    )

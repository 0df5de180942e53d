"""The SQL of limits, their windows, and the alerts for crossed thresholds."""

from __future__ import annotations

from functools import cache

from llm.db.json_rows import rows_sql
from llm.enums import UsageStatus

LIMIT_COLUMNS = "l.id, l.account_id, l.api_key_id, l.metric, l.per, l.amount, l.soft_percent"
_OF_KEYS = (
    "llm_limit l JOIN llm_apikey k ON k.account_id = l.account_id AND (l.api_key_id IS NULL OR l.api_key_id = k.id) "
    "WHERE l.archived_at IS NULL AND k.id"
)
_KEY_SHAPE = {"limit_id": "bigint", "starts_at": "timestamptz"}
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
def windows_sql(vendor: str) -> str:
    """Windows by id, and by limit and start, locked by id. Two parameters: ids, and a document of the others."""
    if vendor == "sqlite":
        ids = f"SELECT value FROM json_each(%s) UNION ALL {_ids_by_start(vendor)}"  # noqa: S608
        return _windows_where(f"w.id IN ({ids})", starts_at="CAST(strftime('%%s', w.starts_at) AS integer)")
    return _locked(f"SELECT unnest(%s::bigint[]) UNION ALL {_ids_by_start(vendor)}")


@cache
def windows_of_calls_sql() -> str:
    """PostgreSQL: like `windows_sql`, with the windows that these open calls hold instead of windows by id."""
    # By id, not by the index of open rows, whatever the planner prefers: streams in flight are many.
    calls = "SELECT status, holds FROM llm_usage WHERE id = ANY(%s::uuid[]) OFFSET 0"
    held = (
        f"SELECT (hold ->> 0)::bigint FROM ({calls}) AS u CROSS JOIN LATERAL "  # noqa: S608
        "jsonb_array_elements(CASE jsonb_typeof(u.holds) WHEN 'array' THEN u.holds END) AS h(hold) "
        f"WHERE u.status = '{UsageStatus.OPEN.value}'"
    )
    return _locked(f"{held} UNION ALL {_ids_by_start('postgresql')}")


def _ids_by_start(vendor: str) -> str:
    found = "SELECT x.id FROM llm_limitwindow x WHERE x.limit_id = v.limit_id AND x.starts_at = v.starts_at"
    return f"SELECT ({found}) FROM {rows_sql(_KEY_SHAPE, vendor)}"  # noqa: S608


def _locked(ids: str) -> str:
    """An array, not a subquery: the planner would expect many rows, and read all windows."""
    where = _windows_where(f"w.id = ANY(ARRAY({ids}))", starts_at="EXTRACT(EPOCH FROM w.starts_at)::bigint")
    return f"{where} FOR UPDATE OF w"


def _windows_where(condition: str, *, starts_at: str) -> str:
    """starts_at: whole seconds since 1970, which drivers parse faster than timestamps; no window begins between."""
    columns = f"w.id, {LIMIT_COLUMNS}, {starts_at}, w.used, w.held, w.is_announced"
    windows = "llm_limitwindow w JOIN llm_limit l ON l.id = w.limit_id"
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

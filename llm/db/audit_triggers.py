"""Triggers that write the audit log: each change of a watched table is an entry, in the same transaction.

So nothing that changes such a row can forget it: neither `QuerySet.update`, nor a command, nor SQL by hand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from llm.trail.actor import POSTGRESQL_SETTING, SQLITE_FUNCTION
from llm.trail.watched import Watched, watched_tables

LOG = "llm_auditentry"
HIDDEN = "***"

_FUNCTION = "llm_write_audit"
# TG_ARGV: the columns that are never shown, and those that are left out, with commas between them.
_FUNCTION_SQL = f"""
CREATE OR REPLACE FUNCTION {_FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    who jsonb := coalesce(nullif(current_setting('{POSTGRESQL_SETTING}', true), ''), '{{}}')::jsonb;
    secret text[] := string_to_array(TG_ARGV[0], ',');
    ignored text[] := string_to_array(TG_ARGV[1], ',');
    old_row jsonb := '{{}}';
    new_row jsonb := '{{}}';
    was jsonb;
    became jsonb;
BEGIN
    IF TG_OP <> 'INSERT' THEN old_row := to_jsonb(OLD); END IF;
    IF TG_OP <> 'DELETE' THEN new_row := to_jsonb(NEW); END IF;
    SELECT jsonb_object_agg(key, CASE WHEN key = ANY (secret) AND value <> '' THEN '{HIDDEN}' ELSE value END)
        INTO was FROM jsonb_each_text(old_row)
        WHERE key <> ALL (ignored) AND (TG_OP = 'DELETE' OR value IS DISTINCT FROM new_row ->> key);
    SELECT jsonb_object_agg(key, CASE WHEN key = ANY (secret) AND value <> '' THEN '{HIDDEN}' ELSE value END)
        INTO became FROM jsonb_each_text(new_row)
        WHERE key <> ALL (ignored) AND (TG_OP = 'INSERT' OR value IS DISTINCT FROM old_row ->> key);
    IF TG_OP = 'UPDATE' AND became IS NULL THEN RETURN NULL; END IF;
    INSERT INTO {LOG} (at, action, table_name, row_id, before, after, user_id, actor, via, address, detail, occurrences)
    VALUES (
        clock_timestamp(), CASE TG_OP WHEN 'INSERT' THEN 'created' WHEN 'UPDATE' THEN 'changed' ELSE 'deleted' END,
        TG_TABLE_NAME, coalesce(new_row ->> 'id', old_row ->> 'id'), was, became, (who ->> 'user_id')::bigint,
        left(coalesce(who ->> 'actor', ''), 150), left(coalesce(who ->> 'via', ''), 100),
        left(coalesce(who ->> 'address', ''), 50), '', 1
    );
    RETURN NULL;
END $$
"""  # noqa: S608
# As Django writes moments: with six digits, or none for whole seconds.
_SQLITE_NOW = (
    "CASE WHEN strftime('%f', 'now') LIKE '%.000' THEN strftime('%Y-%m-%d %H:%M:%S', 'now') "
    "ELSE strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' END"
)
_SQLITE_EVENTS = {"INSERT": "created", "UPDATE": "changed", "DELETE": "deleted"}


def audit_triggers(connection: BaseDatabaseWrapper, tables: Collection[str]) -> Iterator[tuple[str, ...]]:
    """(table, event, statements) for each watched table that exists."""
    if LOG not in tables:
        return
    for watched in watched_tables().values():
        if watched.table not in tables:
            continue
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                columns = _columns(cursor, watched)
            yield from _for_sqlite(watched, columns)
        else:
            yield _for_postgresql(watched)


def _for_postgresql(watched: Watched) -> tuple[str, ...]:
    secret, ignored = (",".join(sorted(names)) for names in (watched.secret, watched.ignored))
    start = f"CREATE TRIGGER name AFTER INSERT OR UPDATE OR DELETE ON {watched.table} FOR EACH ROW"
    return watched.table, "AUDIT", _FUNCTION_SQL, f"{start} EXECUTE FUNCTION {_FUNCTION}('{secret}', '{ignored}')"


def _for_sqlite(watched: Watched, columns: Collection[str]) -> Iterator[tuple[str, ...]]:
    differs = " OR ".join(f'OLD."{name}" IS NOT NEW."{name}"' for name in columns)
    for event, action in _SQLITE_EVENTS.items():
        was = "NULL" if event == "INSERT" else _as_json("OLD", watched, columns, event)
        became = "NULL" if event == "DELETE" else _as_json("NEW", watched, columns, event)
        row = "OLD" if event == "DELETE" else "NEW"
        when = f" WHEN {differs}" if event == "UPDATE" else ""
        texts = (f"coalesce(json_extract({SQLITE_FUNCTION}(), '$.{name}'), '')" for name in ("actor", "via", "address"))
        actor = ", ".join((f"json_extract({SQLITE_FUNCTION}(), '$.user_id')", *texts))
        create = (
            f"CREATE TRIGGER name AFTER {event} ON {watched.table} FOR EACH ROW{when} BEGIN "  # noqa: S608
            f"INSERT INTO {LOG} (at, action, table_name, row_id, before, after, user_id, actor, via, address, detail, "
            f"occurrences) VALUES ({_SQLITE_NOW}, '{action}', '{watched.table}', "
            f"CAST({row}.id AS TEXT), {was}, {became}, {actor}, '', 1); END"
        )
        yield watched.table, f"AUDIT_{event}", create


def _as_json(row: str, watched: Watched, columns: Collection[str], event: str) -> str:
    """SQL: the columns as texts; of a changed row only those that differ."""
    texts = {name: _text(f'{row}."{name}"', is_secret=name in watched.secret) for name in columns}
    pairs = ", ".join(f"'{name}', {text}" for name, text in texts.items())
    everything = f"json_object({pairs})"
    if event != "UPDATE":
        return everything
    same = ", ".join(f"""CASE WHEN OLD."{name}" IS NEW."{name}" THEN '$.{name}' ELSE '$._' END""" for name in columns)
    return f"json_remove({everything}, {same})"


def _text(value: str, *, is_secret: bool) -> str:
    return f"CASE WHEN {value} <> '' THEN '{HIDDEN}' ELSE {value} END" if is_secret else f"CAST({value} AS TEXT)"


def _columns(cursor: CursorWrapper, watched: Watched) -> list[str]:
    cursor.execute(f"SELECT name FROM pragma_table_info('{watched.table}') ORDER BY cid")  # noqa: S608
    return [name for (name,) in cursor.fetchall() if name not in watched.ignored]

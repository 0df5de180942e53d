"""One stored form of each value on SQLite: the one in which Django writes and queries.

SQLite compares moments and JSON as text. The books once wrote "2026-11-01 00:00:00.000000" where Django writes
"2026-11-01 00:00:00", and JSON without spaces, so Django's queries didn't find those rows. Migrations bring old rows
into Django's form; PostgreSQL has types for both and needs none of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.apps.registry import Apps
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

_ZERO_FRACTION = ".000000"
_TWINS = (
    "SELECT old.id, new.id FROM llm_limitwindow old JOIN llm_limitwindow new "  # noqa: S608
    f"ON new.limit_id = old.limit_id AND old.starts_at = new.starts_at || '{_ZERO_FRACTION}'"
)
_MERGE = (
    "UPDATE llm_limitwindow SET used = used + (SELECT used FROM llm_limitwindow WHERE id = %(twin)s), "
    "held = held + (SELECT held FROM llm_limitwindow WHERE id = %(twin)s), "
    "is_announced = is_announced OR (SELECT is_announced FROM llm_limitwindow WHERE id = %(twin)s) WHERE id = %(kept)s"
)
_HOLDERS = (
    "SELECT DISTINCT u.id, u.holds FROM llm_usage u, json_each(u.holds) h "
    "WHERE u.holds IS NOT NULL AND json_extract(h.value, '$[0]') = %s"
)


def store_as_django_does(apps: Apps, schema_editor: BaseDatabaseSchemaEditor, app_label: str) -> None:
    """Rewrite the moments and the JSON of an app's tables. Like all migrations, run it with the gateway stopped."""
    connection = schema_editor.connection
    if connection.vendor != "sqlite":
        return
    tables = {model._meta.db_table: model for model in apps.get_app_config(app_label).get_models()}
    connection.ensure_connection()
    connection.connection.create_function("LLM_JSON_TEXT", 1, _json_text, deterministic=True)
    with _without_triggers(connection, tables):
        if "llm_limitwindow" in tables:
            _merge_twin_windows(connection)
        for table, model in tables.items():
            _rewrite(connection, table, model)


def _rewrite(connection: BaseDatabaseWrapper, table: str, model: type[models.Model]) -> None:
    quoted = connection.ops.quote_name
    with connection.cursor() as cursor:
        for field in model._meta.local_concrete_fields:
            column = quoted(str(field.column))
            if isinstance(field, models.DateTimeField):
                update = f"UPDATE {quoted(table)} SET {column} = substr({column}, 1, length({column}) - 7)"  # noqa: S608
                cursor.execute(f"{update} WHERE substr({column}, -7) = %s", [_ZERO_FRACTION])
            elif isinstance(field, models.JSONField):
                cursor.execute(
                    f"UPDATE {quoted(table)} SET {column} = LLM_JSON_TEXT({column}) "  # noqa: S608
                    f"WHERE {column} NOT IN ('{{}}', '[]') AND {column} <> LLM_JSON_TEXT({column})"
                )


def _merge_twin_windows(connection: BaseDatabaseWrapper) -> None:
    """Of two windows of one period the first stays, with the sum of both; calls then refer to that one."""
    with connection.cursor() as cursor:
        cursor.execute(_TWINS)
        for kept, twin in cursor.fetchall():
            cursor.execute(_MERGE, {"kept": kept, "twin": twin})
            cursor.execute(_HOLDERS, [twin])
            for call_id, holds in cursor.fetchall():
                renamed = json.dumps(_renamed(json.loads(holds), twin, kept))
                cursor.execute("UPDATE llm_usage SET holds = %s WHERE id = %s", [renamed, call_id])
            cursor.execute("DELETE FROM llm_limitwindow WHERE id = %s", [twin])


def _renamed(holds: list[tuple[int, int]], twin: int, kept: int) -> list[list[int]]:
    units: dict[int, int] = {}
    for window, held in holds:
        window_id = kept if window == twin else window
        units[window_id] = units.get(window_id, 0) + held
    return [[window, held] for window, held in units.items()]


@contextmanager
def _without_triggers(connection: BaseDatabaseWrapper, tables: dict[str, Any]) -> Iterator[None]:
    """They refuse changes of closed rows, and this one changes no value. Everything is in one transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger'")
        found = [(name, sql) for name, table, sql in cursor.fetchall() if table in tables]
        for name, _ in found:
            cursor.execute(f"DROP TRIGGER {connection.ops.quote_name(name)}")
        yield
        for _, sql in found:
            cursor.execute(sql)


def _json_text(text: str) -> str:
    """As Django's JSONField stores it."""
    return json.dumps(json.loads(text))

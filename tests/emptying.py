"""An empty database between two tests that commit: what `flush` leaves behind, in a tenth of its time.

`flush` empties every table, and each app then makes its first rows anew: permissions, groups. A test leaves rows in a
few tables and the first rows as they were, so it is enough to delete the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any

from django.core.management.commands.flush import Command as FlushCommand
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from llm.db.triggers import drop_triggers, install_triggers

Rows = list[tuple[Any, ...]]


class Emptier:
    """Takes the place of `FlushCommand.handle`."""

    def __init__(self, flush: Callable[..., None]) -> None:
        self._flush = flush
        self._first_rows: Mapping[str, Rows] | None = None
        self._triggers = 0

    @cached_property
    def _tables(self) -> list[str]:
        return sorted(connection.introspection.django_table_names(only_existing=True, include_views=False))

    def handle(self, command: FlushCommand, **options: Any) -> None:
        """In one transaction: gateways that run beside would starve behind dozens that follow without a pause."""
        with transaction.atomic(), connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute(f"LOCK TABLE {', '.join(self._tables)} IN ACCESS EXCLUSIVE MODE")
            first = self._first_rows
            if first is not None and _may_delete(cursor) and _rows_of(cursor, first) == first:
                _delete_all(cursor, _filled(cursor, self._tables) - first.keys())
                # Also those that the test itself has dropped.
                if _count_triggers(cursor) != self._triggers:
                    install_triggers()
            else:
                self._make_first_rows(cursor, command, options)

    def _make_first_rows(self, cursor: CursorWrapper, command: FlushCommand, options: Mapping[str, Any]) -> None:
        # The books' triggers refuse to empty a table, row by row or at once.
        drop_triggers(connection)
        self._flush(command, **options)
        install_triggers()
        self._first_rows = _rows_of(cursor, _filled(cursor, self._tables))
        self._triggers = _count_triggers(cursor)


def _may_delete(cursor: CursorWrapper) -> bool:
    """Past the triggers: PostgreSQL lets superusers do that."""
    if connection.vendor == "sqlite":
        return True
    cursor.execute("SELECT current_setting('is_superuser') = 'on'")
    return bool(cursor.fetchone()[0])


def _delete_all(cursor: CursorWrapper, tables: Collection[str]) -> None:
    if not tables:
        return
    if connection.vendor == "sqlite":
        names = ", ".join(f"'{table}'" for table in tables)
        cursor.execute(f"SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ({names})")  # noqa: S608
        for (name,) in cursor.fetchall():
            cursor.execute(f"DROP TRIGGER {name}")
    else:
        cursor.execute("SET LOCAL session_replication_role = replica")
    for table in sorted(tables):
        cursor.execute(f"DELETE FROM {table}")  # noqa: S608


def _count_triggers(cursor: CursorWrapper) -> int:
    is_sqlite = connection.vendor == "sqlite"
    cursor.execute(
        "SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"
        if is_sqlite
        else "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"
    )
    return int(cursor.fetchone()[0])


def _filled(cursor: CursorWrapper, tables: Collection[str]) -> set[str]:
    cursor.execute(" UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {table})" for table in tables))  # noqa: S608
    return {name for (name,) in cursor.fetchall()}


def _rows_of(cursor: CursorWrapper, tables: Collection[str]) -> Mapping[str, Rows]:
    found = {}
    for table in tables:
        cursor.execute(f"SELECT * FROM {table} ORDER BY 1")  # noqa: S608
        found[table] = cursor.fetchall()
    return found

"""Statements that PostgreSQL parses and plans once per connection, instead of each time.

Parsing and planning is most of what a small batch of the books costs the server. Prepared statements belong to a
connection, so they are only for a thread that keeps its own, and not through a pooler that assigns connections per
transaction: the books' writer connects directly.

A plan is generic, made without the parameters, and kept until the table's statistics change. If it was made for a small
table, it would scan that table for ever; so on this connection sequential scans are avoided, and each statement finds
its rows by an array of their keys.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

from django.db import connection
from django.db.backends.utils import CursorWrapper

_GENERIC_PLANS_BY_INDEX = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"

_of_thread = threading.local()


class PreparedStatements:
    """Those of one thread's connection. A new connection, after one was lost, starts without any."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._connection: weakref.ref[Any] | None = None

    def call(self, cursor: CursorWrapper, sql: str) -> str:
        """The statement that executes it with the same parameters; prepares it if necessary.

        The first one on a connection comes before its transaction begins, since a rollback would undo the setting.
        """
        if self._connection is None or self._connection() is not connection.connection:
            cursor.execute(_GENERIC_PLANS_BY_INDEX)
            self._connection, self._names = weakref.ref(connection.connection), {}
        if sql not in self._names:
            name = f"prepared_{len(self._names)}"
            cursor.execute(f"PREPARE {name} AS {_numbered(sql)}")
            holes = ", ".join(["%s"] * sql.count("%s"))
            self._names[sql] = f"EXECUTE {name}({holes})" if holes else f"EXECUTE {name}"
        return self._names[sql]


def prepare_statements_of_this_thread() -> None:
    """For a thread with its own direct connection; SQLite caches plans itself."""
    if connection.vendor == "postgresql":
        _of_thread.statements = PreparedStatements()


def prepared_statements() -> PreparedStatements | None:
    """This thread's; None if it doesn't prepare any."""
    return getattr(_of_thread, "statements", None)


def _numbered(sql: str) -> str:
    first, *rest = sql.split("%s")
    return first + "".join(f"${number}{text}" for number, text in enumerate(rest, 1))

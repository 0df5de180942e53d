"""What the database itself refuses: changes of what is on the books, whoever asks for them, psql included.

A call may be closed once and never changed or deleted; corrections and prices are only ever added. Other apps add
their own with `keep`. The triggers are installed after each migration, and their names hold a digest of what they do,
so that an old one is replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

PREFIX = "llm_keeps_"

_FUNCTION = "llm_refuse_change"
_CREATE_FUNCTION = """
CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF {condition} THEN RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'restrict_violation'; END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END $$
"""

_FROZEN_AT_OPEN = (
    *("id", "request_id", "attempt", "account_id", "api_key_id", "process_id", "dialect", "provider", "model"),
    *("upstream_model", "is_stream", "request_bytes", "holds", "opened_at", "local_day", "price_id"),
    *("provider_instance", "end_user", "tags"),
)
_APPEND_ONLY = {
    "llm_usageadjustment": "an adjustment is never changed: add another",
    "llm_price": "a price is never changed: set a new one",
    "llm_rateset": "the rates of a price are never changed: set a new price",
    "llm_rate": "the rates of a price are never changed: set a new price",
    "llm_redaction": "what was blanked is never changed",
}


@dataclass(frozen=True, slots=True)
class Trigger:
    """Refuses an event of a table.

    condition: over OLD and NEW, with {is_not} for a comparison that knows NULL. lookup: such a condition that asks
    other tables too, which PostgreSQL allows only in a function.
    """

    table: str
    event: str
    message: str
    condition: str = ""
    lookup: str = ""

    def create(self, vendor: str, name: str) -> list[str]:
        """The statements that make it."""
        conditions = [self.condition, self.lookup] if vendor == "sqlite" else [self.condition]
        is_not = "IS NOT" if vendor == "sqlite" else "IS DISTINCT FROM"
        when = " AND ".join(f"({each.format(is_not=is_not)})" for each in conditions if each)
        start = f"CREATE TRIGGER {name} BEFORE {self.event} ON {self.table} FOR EACH ROW"
        if when:
            start = f"{start} WHEN ({when})"
        if vendor == "sqlite":
            return [f"{start} BEGIN SELECT RAISE(ABORT, '{self.message}'); END"]
        function = name if self.lookup else _FUNCTION
        return [
            _CREATE_FUNCTION.format(name=function, condition=self.lookup.format(is_not=is_not) or "true"),
            f"{start} EXECUTE FUNCTION {function}('{self.message}')",
        ]

    def name(self, vendor: str) -> str:
        digest = hashlib.sha256("\n".join(self.create(vendor, "name")).encode()).hexdigest()[:8]
        return f"{PREFIX}{self.table.removeprefix('llm_')}_{self.event.lower()}_{digest}"


_OPENED_ONCE = " OR ".join(f"OLD.{name} {{is_not}} NEW.{name}" for name in _FROZEN_AT_OPEN)

_kept: list[Trigger] = [
    Trigger(
        "llm_usage",
        "UPDATE",
        "a call is closed once, and what it was opened with stays: add an adjustment",
        f"OLD.status <> 'open' OR NEW.status = 'open' OR {_OPENED_ONCE}",
    ),
    Trigger("llm_usage", "DELETE", "a call is never deleted"),
    *(Trigger(table, event, text) for table, text in _APPEND_ONLY.items() for event in ("UPDATE", "DELETE")),
]


def keep(triggers: Sequence[Trigger]) -> None:
    """Have these installed too; for an app's `ready`."""
    _kept.extend(trigger for trigger in triggers if trigger not in _kept)


def install_triggers(*, using: str = "default", **_signal: Any) -> None:
    """Make the database's triggers those of this version. Does nothing where they are."""
    connection = connections[using]
    wanted = _wanted(connection)
    found = _found(connection)
    with connection.cursor() as cursor:
        for name in set(found) - set(wanted):
            cursor.execute(_drop_sql(connection, name, found[name]))
        for name in sorted(set(wanted) - set(found)):
            for statement in wanted[name].create(connection.vendor, name):
                cursor.execute(statement)


def drop_triggers(connection: BaseDatabaseWrapper) -> None:
    """For who throws the whole database away."""
    found = _found(connection)
    with connection.cursor() as cursor:
        for name, table in found.items():
            cursor.execute(_drop_sql(connection, name, table))


@contextmanager
def lifted(table: str, connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Inside a transaction: without our triggers on that table. For a release's own repair of what no digest covers."""
    names = [name for name, found_on in _found(connection).items() if found_on == table]
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            definitions = [_definition(cursor, name) for name in names]
            off = [f"DROP TRIGGER {name}" for name in names]
        else:
            # A table with deferred checks pending can't be altered.
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            off = [f"ALTER TABLE {table} DISABLE TRIGGER {name}" for name in names]
            definitions = [f"ALTER TABLE {table} ENABLE TRIGGER {name}" for name in names]
        for statement in off:
            cursor.execute(statement)
        yield
        for statement in definitions:
            cursor.execute(statement)


def _definition(cursor: CursorWrapper, name: str) -> str:
    cursor.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = %s", [name])
    return str(cursor.fetchone()[0])


def missing_triggers(using: str = "default") -> list[str]:
    """Names of those that should be there."""
    connection = connections[using]
    return sorted(set(_wanted(connection)) - set(_found(connection)))


def _wanted(connection: BaseDatabaseWrapper) -> dict[str, Trigger]:
    """By name; only of tables that exist, since an app may be migrated to before its first migration."""
    tables = set(connection.introspection.table_names())
    return {trigger.name(connection.vendor): trigger for trigger in _kept if trigger.table in tables}


def _found(connection: BaseDatabaseWrapper) -> dict[str, str]:
    """Ours: name -> table."""
    sql = (
        "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger' AND substr(name, 1, %s) = %s"
        if connection.vendor == "sqlite"
        else "SELECT tgname, relname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
        "WHERE NOT tgisinternal AND left(tgname, %s) = %s"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [len(PREFIX), PREFIX])
        return dict(cursor.fetchall())


def _drop_sql(connection: BaseDatabaseWrapper, name: str, table: str) -> str:
    return f"DROP TRIGGER {name}" if connection.vendor == "sqlite" else f"DROP TRIGGER {name} ON {table}"

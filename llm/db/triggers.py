"""Changes to the books that the database itself refuses, from any client, psql included.

A call is opened once, leaves the open ones only for the closed ones, and is never changed or deleted; corrections and
prices are only ever added. Other apps add their own triggers with `keep`; those that write the audit log come from
`llm.db.audit_triggers`. Two more kinds follow: a table with such rows is never truncated (PostgreSQL), and no write
replaces a row that may not be deleted (SQLite, see `llm.db.replacement`). The triggers are installed after each
migration, and their names contain a digest of their definition, so that an old one is replaced.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from llm.db.audit_triggers import audit_triggers
from llm.db.replacement import unique_keys

_log = structlog.get_logger("llm.triggers")

PREFIX = "llm_keeps_"

_FUNCTION = "llm_refuse_change"
_BODY = """
BEGIN
    IF {condition} THEN RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'restrict_violation'; END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END """
_CREATE_FUNCTION = f"\nCREATE OR REPLACE FUNCTION {{name}}() RETURNS trigger LANGUAGE plpgsql AS $${_BODY}$$\n"

_APPEND_ONLY = {
    "llm_usage": "a closed call is never changed or deleted: add an adjustment",
    "llm_usageadjustment": "an adjustment is never changed: add another",
    "llm_price": "a price is never changed: set a new one",
    "llm_rateset": "the rates of a price are never changed: set a new price",
    "llm_rate": "the rates of a price are never changed: set a new price",
    "llm_redaction": "what was blanked is never changed",
    "llm_bookscheck": "what a check of the books has found is never changed",
    "llm_checkedday": "what a check of the books has found is never changed",
    "llm_auditentry": "the audit log is never changed",
}
_TRUNCATED = "rows of the books are never removed"
_REPLACED = "a row of the books is never replaced"

_OTHER = "does something else than it should"
_RUNNING_STATES = ("O", "A")
"""Of PostgreSQL's triggers: enabled in ordinary sessions, or always."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """Refuses an event on a table.

    condition: over OLD and NEW, with {is_not} as the NULL-safe comparison. lookup: such a condition that also queries
    other tables, which PostgreSQL allows only in a function. moment: when the event is looked at.
    """

    table: str
    event: str
    message: str
    condition: str = ""
    lookup: str = ""
    moment: Literal["BEFORE", "AFTER"] = "BEFORE"

    def create(self, vendor: str, name: str) -> list[str]:
        """The statements that create it."""
        conditions = [self.condition, self.lookup] if vendor == "sqlite" else [self.condition]
        is_not = "IS NOT" if vendor == "sqlite" else "IS DISTINCT FROM"
        when = " AND ".join(f"({each.format(is_not=is_not)})" for each in conditions if each)
        start = f"CREATE TRIGGER {name} {self.moment} {self.event} ON {self.table} FOR EACH ROW"
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
        return _name(self.table, self.event, self.create(vendor, "name"))

    @property
    def refuses_all(self) -> bool:
        return not (self.condition or self.lookup)

    def condition_of(self, row: str) -> str:
        """The condition under which deleting a row is refused (SQLite), with `row` as the row's name."""
        conditions = [each for each in (self.condition, self.lookup) if each]
        return " AND ".join(f"({each.format(is_not='IS NOT')})" for each in conditions).replace("OLD.", f"{row}.")


def _name(table: str, event: str, statements: Sequence[str]) -> str:
    """statements: with "name" as a placeholder for the name."""
    digest = hashlib.sha256("\n".join(statements).encode()).hexdigest()[:8]
    return f"{PREFIX}{table.removeprefix('llm_')}_{event.lower()}_{digest}"


_kept: list[Trigger] = [
    Trigger("llm_usage", "INSERT", "a call in flight has no place among closed ones", "NEW.status = 'open'"),
    # Afterwards: an insert may wait for the transaction that closes the same call, and only a later statement sees it.
    Trigger(
        "llm_opencall",
        "INSERT",
        "a closed call is never opened again",
        lookup="EXISTS (SELECT 1 FROM llm_usage u WHERE u.id = NEW.id)",
        moment="AFTER",
    ),
    Trigger("llm_opencall", "UPDATE", "what a call was opened with stays"),
    Trigger(
        "llm_opencall",
        "DELETE",
        "a call in flight is never deleted: close it",
        lookup="NOT EXISTS (SELECT 1 FROM llm_usage u WHERE u.id = OLD.id)",
    ),
    *(Trigger(table, event, text) for table, text in _APPEND_ONLY.items() for event in ("UPDATE", "DELETE")),
]


def keep(triggers: Sequence[Trigger]) -> None:
    """Have these installed too. Call it in an app's `ready`."""
    _kept.extend(trigger for trigger in triggers if trigger not in _kept)


def tables_that_lose_no_row() -> frozenset[str]:
    """Tables from which nothing may ever be deleted."""
    return frozenset(trigger.table for trigger in _kept if trigger.event == "DELETE" and trigger.refuses_all)


def tables_only_added_to() -> frozenset[str]:
    """Tables whose rows never change either."""
    unchanged = {trigger.table for trigger in _kept if trigger.event == "UPDATE" and trigger.refuses_all}
    return tables_that_lose_no_row() & unchanged


def install_triggers(*, using: str = "default", **_signal: Any) -> None:
    """Make the database's triggers those of this version, and enable them. No effect if they are already."""
    connection = connections[using]
    wanted, found = _wanted(connection), _found(connection)
    broken = set(_broken(connection, wanted))
    for name in sorted(broken):
        _log.warning("database.trigger_restored", trigger=name)
    with connection.cursor() as cursor:
        for name in (set(found) - set(wanted)) | broken:
            cursor.execute(_drop_sql(connection, name, found[name]))
        for name in sorted((set(wanted) - set(found)) | broken):
            for statement in wanted[name]:
                cursor.execute(statement)


def make_way_for_migrations(*, using: str = "default", plan: Sequence[Any] = (), **_signal: Any) -> None:
    """Call it before migrations on SQLite, which rebuild tables: a trigger that names such a table stops the rebuild
    halfway.

    They are installed again after the last migration.
    """
    if plan and connections[using].vendor == "sqlite":
        drop_triggers(connections[using])


def drop_triggers(connection: BaseDatabaseWrapper) -> None:
    """For deleting the whole database."""
    found = _found(connection)
    with connection.cursor() as cursor:
        for name, table in found.items():
            cursor.execute(_drop_sql(connection, name, table))


@contextmanager
def lifted(table: str, connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Inside a transaction: disables our triggers on that table. For a release's own repair of undigested columns."""
    names = [name for name, found_on in _found(connection).items() if found_on == table]
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            definitions = [_definition(cursor, name) for name in names]
            off = [f"DROP TRIGGER {name}" for name in names]
        else:
            # A table with pending deferred checks can't be altered.
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
    """Names of required triggers that don't exist."""
    connection = connections[using]
    return sorted(set(_wanted(connection)) - set(_found(connection)))


def problems_of_triggers(using: str = "default") -> Iterator[str]:
    """A sentence on each trigger that is missing, disabled, or has another definition."""
    connection = connections[using]
    for name in missing_triggers(using):
        yield f"The database's trigger {name} is missing: run “manage.py migrate”."
    for name, what in sorted(_broken(connection, _wanted(connection)).items()):
        yield (
            f"The database's trigger {name} {what}: run “manage.py migrate”, and look at what was changed meanwhile."
        )
    if connection.vendor == "postgresql":
        yield from _problems_of_settings(connection)


def _wanted(connection: BaseDatabaseWrapper) -> Mapping[str, Sequence[str]]:
    """Statements by name; only for existing tables, since migrations may stop before an app's first one."""
    tables = set(connection.introspection.table_names())
    kept = [trigger for trigger in _kept if trigger.table in tables]
    vendor = connection.vendor
    wanted = {trigger.name(vendor): trigger.create(vendor, trigger.name(vendor)) for trigger in kept}
    derived = _against_replacing(connection, kept) if vendor == "sqlite" else _against_truncating(kept)
    for table, event, *statements in (*derived, *audit_triggers(connection, tables)):
        name = _name(table, event, statements)
        wanted[name] = [statement.replace(" name ", f" {name} ", 1) for statement in statements]
    return wanted


def _against_truncating(kept: Sequence[Trigger]) -> Iterator[tuple[str, ...]]:
    """(table, event, statements) for each table with rows that are kept."""
    function = _CREATE_FUNCTION.format(name=_FUNCTION, condition="true")
    for table in sorted({trigger.table for trigger in kept}):
        start = f"CREATE TRIGGER name BEFORE TRUNCATE ON {table} FOR EACH STATEMENT"
        yield table, "TRUNCATE", function, f"{start} EXECUTE FUNCTION {_FUNCTION}('{_TRUNCATED}')"


def _against_replacing(connection: BaseDatabaseWrapper, kept: Sequence[Trigger]) -> Iterator[tuple[str, ...]]:
    """The same for each table with rows that may not be deleted."""
    by_event: defaultdict[tuple[str, str], list[Trigger]] = defaultdict(list)
    for trigger in kept:
        by_event[trigger.table, trigger.event].append(trigger)
    for table in sorted({trigger.table for trigger in kept if trigger.event == "DELETE"}):
        guard = _guard(by_event[table, "DELETE"])
        with connection.cursor() as cursor:
            keys = unique_keys(cursor, table)
        for write in ("INSERT", "UPDATE"):
            if any(each.refuses_all for each in by_event[table, write]):
                continue
            when = " OR ".join(key.collides(guard, table, write) for key in keys)
            start = f"CREATE TRIGGER name BEFORE {write} ON {table} FOR EACH ROW WHEN {when}"
            yield table, f"REPLACE_{write}", f"{start} BEGIN SELECT RAISE(ABORT, '{_REPLACED}'); END"


def _guard(triggers: Sequence[Trigger]) -> str:
    """SQL: whether the row `kept` may not be deleted; "" if no row is protected."""
    if any(each.refuses_all for each in triggers):
        return ""
    return " OR ".join(each.condition_of("kept") for each in triggers)


def _found(connection: BaseDatabaseWrapper) -> dict[str, str]:
    """Our triggers: name -> table."""
    sql = (
        "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger' AND substr(name, 1, %s) = %s"
        if connection.vendor == "sqlite"
        else "SELECT tgname, relname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
        "WHERE NOT tgisinternal AND left(tgname, %s) = %s"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [len(PREFIX), PREFIX])
        return dict(cursor.fetchall())


_STATE_SQL = """
SELECT tgname, tgenabled, tgqual IS NOT NULL, proname, prosrc
FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid WHERE NOT tgisinternal AND tgname = ANY(%s)
"""
_SETTINGS_SQL = """
SELECT 'this connection', current_setting('session_replication_role')
UNION ALL
SELECT coalesce('the role ' || rolname, 'the database'), split_part(setting, '=', 2)
FROM pg_db_role_setting LEFT JOIN pg_roles ON pg_roles.oid = setrole, unnest(setconfig) setting
WHERE setting LIKE 'session\\_replication\\_role=%'
AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
"""


def _broken(connection: BaseDatabaseWrapper, wanted: Mapping[str, Sequence[str]]) -> Mapping[str, str]:
    """What is wrong with existing ones, by name."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
            return {name: _OTHER for name, sql in cursor.fetchall() if name in wanted and sql != wanted[name][0]}
    with connection.cursor() as cursor:
        cursor.execute(_STATE_SQL, [list(wanted)])
        states = {name: _fault(wanted[name], *state) for name, *state in cursor.fetchall()}
    return {name: fault for name, fault in states.items() if fault}


def _fault(statements: Sequence[str], state: str, has_condition: bool, function: str, body: str) -> str:
    create_function, create = statements
    if state not in _RUNNING_STATES:
        return "is disabled"
    is_same = body == create_function.split("$$")[1] and f" FUNCTION {function}(" in create
    return "" if is_same and has_condition is (" WHEN (" in create) else _OTHER


def _problems_of_settings(connection: BaseDatabaseWrapper) -> Iterator[str]:
    """PostgreSQL runs no ordinary trigger in a session with `session_replication_role` = replica."""
    with connection.cursor() as cursor:
        cursor.execute(_SETTINGS_SQL)
        for where, role in cursor.fetchall():
            if role != "origin":
                yield f"No trigger runs for {where}: session_replication_role is “{role}” there, not “origin”."


def _drop_sql(connection: BaseDatabaseWrapper, name: str, table: str) -> str:
    return f"DROP TRIGGER {name}" if connection.vendor == "sqlite" else f"DROP TRIGGER {name} ON {table}"

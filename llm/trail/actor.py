"""Who is changing something at the moment. The triggers that write the audit log ask for it.

On SQLite they call a function of ours. On PostgreSQL they read a setting that is local to the transaction, so that it
is right behind a connection pooler too; it is set just before a statement that writes to a watched table.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from llm.trail.watched import watched_tables

SQLITE_FUNCTION = "llm_audit_actor"
POSTGRESQL_SETTING = "llm.actor"

_WRITE = re.compile(r'\s*(?:INSERT\s+(?:OR\s+\w+\s+)?INTO|UPDATE|DELETE\s+FROM)\s+"?(\w+)', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Actor:
    """The fields of an `AuditEntry`."""

    user_id: int | None = None
    actor: str = ""
    via: str = ""
    address: str = ""


_NOBODY = Actor()
_current: ContextVar[Callable[[], Actor] | None] = ContextVar("llm_audit_actor", default=None)


def current_actor() -> Actor:
    find = _current.get()
    return _NOBODY if find is None else find()


def set_actor(find: Callable[[], Actor] | None) -> None:
    """From now on in this context. A function, since a request learns late, or never, whose it is."""
    _current.set(find)


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    token = _current.set(lambda: actor)
    try:
        yield
    finally:
        _current.reset(token)


def prepare_connection(connection: BaseDatabaseWrapper, **_signal: Any) -> None:
    """For each new connection, so that triggers can tell who it was."""
    if connection.vendor == "sqlite":
        database: sqlite3.Connection = connection.connection
        database.create_function(SQLITE_FUNCTION, 0, _current_as_json)
    elif _tell_postgresql not in connection.execute_wrappers:
        connection.execute_wrappers.append(_tell_postgresql)


def _current_as_json() -> str:
    return json.dumps(asdict(current_actor()))


def _tell_postgresql(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Mapping[str, Any]) -> Any:
    if not _writes_to_watched(sql):
        return execute(sql, params, many, context)
    # Also if it is nobody: earlier in the transaction it may have been someone. In autocommit the setting would be
    # gone by the next statement.
    with transaction.atomic(using=context["connection"].alias, savepoint=False):
        execute(f"SELECT set_config('{POSTGRESQL_SETTING}', %s, true)", [_current_as_json()], False, context)  # noqa: FBT003
        return execute(sql, params, many, context)


def _writes_to_watched(sql: Any) -> bool:
    found = _WRITE.match(sql) if isinstance(sql, str) else None
    return found is not None and found[1] in watched_tables()

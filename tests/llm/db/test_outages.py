"""What a database's error means: a word for the log, a sentence for people, and nothing of what the server said."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest
from django.db import DatabaseError, Error, IntegrityError, InterfaceError, OperationalError, ProgrammingError

from llm.db.outages import Outage, outage_of, reason_of, sentence_for_callers, sentence_for_operators

_AT = 'connection failed: connection to server at "10.0.0.1", port 5432 failed:'


def caused(error: Error, cause: BaseException) -> Error:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("text", "outage"),
    [
        (f"{_AT} FATAL:  sorry, too many clients already", Outage.TOO_MANY_CONNECTIONS),
        (f'{_AT} FATAL:  too many connections for role "llm_pages"', Outage.TOO_MANY_CONNECTIONS),
        (f'{_AT} FATAL:  too many connections for database "llm"', Outage.TOO_MANY_CONNECTIONS),
        (
            f"{_AT} FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
            Outage.TOO_MANY_CONNECTIONS,
        ),
        (f'{_AT} FATAL:  password authentication failed for user "llm"', Outage.PASSWORD),
        ("connection failed: fe_sendauth: no password supplied", Outage.PASSWORD),
        (f'{_AT} FATAL:  role "llm" does not exist', Outage.PASSWORD),
        (f'{_AT} FATAL:  no pg_hba.conf entry for host "10.0.0.2", user "llm"', Outage.PASSWORD),
        (f'{_AT} FATAL:  database "llm" does not exist', Outage.NO_DATABASE),
        (f"{_AT} FATAL:  the database system is starting up", Outage.STARTING),
        (f"{_AT} FATAL:  the database system is shutting down", Outage.STARTING),
        (f"{_AT} Connection refused\n\tIs the server running on that host?", Outage.REFUSED),
        (f'{_AT} FATAL:  database "llm" is not currently accepting connections', Outage.REFUSED),
        ("connection timeout expired", Outage.TIMEOUT),
        ("failed to resolve host 'nowhere': [Errno -2] Name or service not known", Outage.UNREACHABLE),
        (f"{_AT} Network is unreachable", Outage.UNREACHABLE),
        ("consuming input failed: server closed the connection unexpectedly", Outage.GONE),
        ("the connection is closed", Outage.GONE),
        ("the connection is lost", Outage.GONE),
        (f"{_AT} FATAL:  zu viele Verbindungen", Outage.UNAVAILABLE),
        ("the batch ran into repeated deadlocks", None),
    ],
)
def test_a_login_that_fails_is_told_by_what_the_server_says(text: str, outage: Outage | None) -> None:
    assert outage_of(OperationalError(text)) == outage
    assert outage_of(InterfaceError(text)) == outage
    assert outage_of(ProgrammingError(text)) is None


@pytest.mark.parametrize(
    ("cause", "outage"),
    [
        (psycopg.errors.AdminShutdown, Outage.GONE),
        (psycopg.errors.CrashShutdown, Outage.GONE),
        (psycopg.errors.CannotConnectNow, Outage.STARTING),
        (psycopg.errors.ConnectionFailure, Outage.GONE),
        (psycopg.errors.TooManyConnections, Outage.TOO_MANY_CONNECTIONS),
        (psycopg.errors.InvalidPassword, Outage.PASSWORD),
        (psycopg.errors.QueryCanceled, Outage.TIMEOUT),
        (psycopg.errors.LockNotAvailable, Outage.LOCKED),
        (psycopg.errors.DeadlockDetected, Outage.LOCKED),
        (psycopg.errors.DiskFull, Outage.DISK_FULL),
        (psycopg.errors.ReadOnlySqlTransaction, Outage.READ_ONLY),
        (psycopg.errors.UndefinedTable, Outage.NOT_MIGRATED),
        (psycopg.errors.UniqueViolation, None),
        (psycopg.errors.UndefinedColumn, None),
    ],
)
def test_what_postgresql_has_a_code_for_is_told_by_that(cause: type[psycopg.Error], outage: Outage | None) -> None:
    """Whatever language it speaks."""
    assert outage_of(caused(OperationalError("in any language"), cause("in any language"))) == outage


@pytest.mark.parametrize(
    ("name", "outage"),
    [
        ("SQLITE_BUSY", Outage.LOCKED),
        ("SQLITE_BUSY_SNAPSHOT", Outage.LOCKED),
        ("SQLITE_CANTOPEN", Outage.UNREADABLE),
        ("SQLITE_FULL", Outage.DISK_FULL),
        ("SQLITE_READONLY_DIRECTORY", Outage.READ_ONLY),
        ("SQLITE_NOTADB", Outage.DAMAGED),
        ("SQLITE_ERROR", None),
    ],
)
def test_what_sqlite_has_a_name_for_is_told_by_that(name: str, outage: Outage | None) -> None:
    cause = sqlite3.DatabaseError("in any words")
    cause.sqlite_errorname = name
    assert outage_of(caused(DatabaseError("in any words"), cause)) == outage


def test_a_missing_table_is_one_on_sqlite_too() -> None:
    cause = sqlite3.OperationalError("no such table: llm_usage")
    cause.sqlite_errorname = "SQLITE_ERROR"
    assert outage_of(caused(OperationalError(str(cause)), cause)) == Outage.NOT_MIGRATED


def test_what_is_no_outage_is_told_by_its_kind() -> None:
    assert outage_of(None) is None
    assert outage_of(ValueError("connection refused")) is None
    assert reason_of(IntegrityError("a duplicate")) == "IntegrityError"
    assert reason_of(TimeoutError()) == "timeout"
    assert reason_of(OperationalError("sorry, too many clients already")) == "too_many_connections"


def test_sentences_say_what_is_wrong_and_operators_what_to_do() -> None:
    assert sentence_for_callers(Outage.TOO_MANY_CONNECTIONS) == (
        "The database can't be used at the moment: it has too many connections. Try again shortly."
    )
    assert sentence_for_operators(Outage.REFUSED) == (
        "The database can't be used: nothing accepts connections at its address. Start it, or correct DATABASE_URL."
    )
    for outage in Outage:
        assert sentence_for_callers(outage).endswith(". Try again shortly.")
        assert sentence_for_operators(outage).endswith(".")

"""A fresh database for one run: PostgreSQL's `llm_bench`, dropped afterwards, or a file of SQLite's."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

_NAME = "llm_bench"
# Two runs at once would drop each other's database, and spoil each other's figures anyway.
_RUN_LOCK = 0x6C6C6D62656E


class DatabaseMissingError(Exception):
    """There is no PostgreSQL server, or it doesn't let us make a database."""


class AlreadyRunningError(Exception):
    """Another benchmark uses the database."""


@dataclass(frozen=True, slots=True)
class BenchDatabase:
    url: str
    description: str


@contextlib.contextmanager
def postgres_database() -> Iterator[BenchDatabase]:
    """On the server that PGHOST, PGPORT, PGUSER and PGPASSWORD name, else postgres@127.0.0.1:5432.

    Raises DatabaseMissingError or AlreadyRunningError.
    """
    host, port = os.environ.get("PGHOST", "127.0.0.1"), os.environ.get("PGPORT", "5432")
    user = os.environ.get("PGUSER", "postgres")
    try:
        admin = psycopg.connect(host=host, port=port, user=user, dbname="postgres", connect_timeout=3, autocommit=True)
    except psycopg.OperationalError as error:
        raise DatabaseMissingError(str(error).strip().splitlines()[0]) from error
    with admin:
        if admin.execute("SELECT pg_try_advisory_lock(%s)", [_RUN_LOCK]).fetchone() != (True,):
            raise AlreadyRunningError("Another benchmark is running on this PostgreSQL server; wait for its end.")
        try:
            admin.execute(f"DROP DATABASE IF EXISTS {_NAME} WITH (FORCE)")
            admin.execute(f"CREATE DATABASE {_NAME}")
        except psycopg.Error as error:
            raise DatabaseMissingError(str(error).strip().splitlines()[0]) from error
        try:
            yield BenchDatabase(
                url=f"postgres://{quote(user)}{_password()}@{quote(host, safe='')}:{port}/{_NAME}",
                description=f"PostgreSQL {admin.info.parameter_status('server_version')}",
            )
        finally:
            admin.execute(f"DROP DATABASE IF EXISTS {_NAME} WITH (FORCE)")


@contextlib.contextmanager
def sqlite_database(folder: Path) -> Iterator[BenchDatabase]:
    yield BenchDatabase(url=f"sqlite:///{folder / 'bench.sqlite3'}", description=f"SQLite {sqlite3.sqlite_version}")


def _password() -> str:
    password = os.environ.get("PGPASSWORD", "")
    return f":{quote(password, safe='')}" if password else ""

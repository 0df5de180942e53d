"""A scratch database on a PostgreSQL server, and what can befall it; all of it from the database `postgres`."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg.sql import SQL, Identifier, Literal

BOOKS_LOCK = 0x6C6C6D62
"""The advisory lock that every writer of the books shares."""


class Database:
    """A database of that name on the server of `server_url`."""

    def __init__(self, server_url: str, name: str) -> None:
        self.name = name
        self._parts = urlsplit(server_url)

    @property
    def host(self) -> str:
        return self._parts.hostname or "127.0.0.1"

    @property
    def port(self) -> int:
        return self._parts.port or 5432

    @property
    def user(self) -> str:
        """With its password if there is one."""
        return self._parts.netloc.rpartition("@")[0] or "postgres"

    @property
    def url(self) -> str:
        return self._url_of(self.name)

    def _url_of(self, name: str) -> str:
        return urlunsplit(("postgres", f"{self.user}@{self.host}:{self.port}", f"/{name}", "", ""))

    def connect(self, name: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(self._url_of(name), autocommit=True, connect_timeout=5, application_name="faults")

    def create(self) -> None:
        with self.connect() as admin:
            admin.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(self.name)))
            admin.execute(SQL("CREATE DATABASE {}").format(Identifier(self.name)))

    def drop(self) -> None:
        with self.connect() as admin:
            admin.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(self.name)))

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody can connect, and whoever was connected no longer is."""
        with self.connect() as admin:
            try:
                self._allow(admin, allowed=False)
                self._terminate(admin)
                yield
            finally:
                self._allow(admin, allowed=True)

    def terminate_backends(self) -> None:
        """Whoever was connected no longer is."""
        with self.connect() as admin:
            self._terminate(admin)

    def _terminate(self, admin: psycopg.Connection) -> None:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self.name])

    def _allow(self, admin: psycopg.Connection, *, allowed: bool) -> None:
        admin.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(Identifier(self.name), Literal(allowed)))

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The server processes of all who are connected stand still; the server must be on this machine."""
        with self.connect() as admin:
            stopped = self._backends(admin)
            try:
                _signal_all(stopped, signal.SIGSTOP)
                yield
            finally:
                _signal_all(stopped, signal.SIGCONT)

    def _backends(self, admin: psycopg.Connection) -> list[int]:
        found = admin.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", [self.name])
        return [pid for (pid,) in found.fetchall()]

    @contextlib.contextmanager
    def locked(self, statement: str) -> Iterator[None]:
        """Somebody else holds the lock that the statement takes, in a transaction that it rolls back."""
        with self.connect(self.name) as other:
            other.execute("SET lock_timeout = '2s'")
            other.execute("BEGIN")
            try:
                with contextlib.suppress(psycopg.errors.LockNotAvailable):
                    other.execute(statement.encode())
                yield
            finally:
                other.execute("ROLLBACK")


def _signal_all(pids: list[int], signum: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)

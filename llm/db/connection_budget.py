"""One budget of PostgreSQL connections, over all processes and hosts, and the server's limits.

It is computed from settings alone: every process gets the same figures, even while the database is unavailable.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.db import connection

SIDE_READERS = 2
"""Threads of a web process for reads outside calls: lists of models, metrics, unknown keys."""
WRITERS = 1
CONNECTIONS_PER_JOB = 2
"""Of a Celery worker: the job's own, and its lease's, which a second thread renews."""

_LIMITS = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - coalesce(nullif(current_setting('reserved_connections', true), '')::int, 0),
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user)
"""


@dataclass(frozen=True)
class ConnectionBudget:
    """How many connections each kind of process may hold at most, over all hosts.

    gateway: the books' writers, and reads; pages: requests that Django serves; workers: Celery's;
    spare: commands, backups, psql, monitoring of the server.
    """

    gateway: int
    pages: int
    workers: int
    spare: int

    @property
    def total(self) -> int:
        return self.gateway + self.pages + self.workers + self.spare


@dataclass(frozen=True)
class ServerLimits:
    """-1: no limit. available: to roles that aren't superusers, None on SQLite; role: of the current one."""

    available: int | None = None
    database: int = -1
    role: int = -1


def connection_budget() -> ConnectionBudget:
    web_processes = settings.WEB_HOSTS * settings.WEB_WORKERS
    return ConnectionBudget(
        gateway=web_processes * (WRITERS + settings.LLM_DB_THREADS + SIDE_READERS),
        pages=web_processes * settings.LLM_DB_PAGES,
        workers=settings.CELERY_WORKERS * settings.CELERY_WORKER_CONCURRENCY * CONNECTIONS_PER_JOB,
        spare=settings.LLM_DB_SPARE,
    )


def read_server_limits() -> ServerLimits:
    """Raises OperationalError if the database is unavailable."""
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            cursor.execute("SELECT 1")
            return ServerLimits()
        cursor.execute(_LIMITS)
        return ServerLimits(*cursor.fetchone())


def pages_role() -> str:
    """The role in DATABASE_PAGES_URL; "" if pages use the default one."""
    role: str = settings.DATABASES["default"].get("PAGES", {}).get("user", "")
    return role


def read_role_limit(role: str) -> int | None:
    """Its CONNECTION LIMIT, -1 for none; None if there is no such role. PostgreSQL only."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = %s", [role])
        row = cursor.fetchone()
    return None if row is None else row[0]

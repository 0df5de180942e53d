"""One budget of PostgreSQL's connections, over all processes and hosts, and what the server allows.

It goes by settings alone: every process comes to the same figures, also while the database is away.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.db import connection

SIDE_READERS = 2
"""Threads of a web process that read for anybody but calls: lists of models, metrics, keys not seen before."""
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
    """What each kind of process may hold at most, over all hosts.

    gateway: the books' writers, and reads; pages: requests that Django serves; workers: Celery's;
    spare: commands, backups, psql, whatever watches the server.
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
    """-1: no limit. available: to roles that are no superusers, None on SQLite; role: of the one that asked."""

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
    """Raises OperationalError where the database is away."""
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            cursor.execute("SELECT 1")
            return ServerLimits()
        cursor.execute(_LIMITS)
        return ServerLimits(*cursor.fetchone())


def pages_role() -> str:
    """The role of DATABASE_PAGES_URL; "" where pages have none of their own."""
    role: str = settings.DATABASES["default"].get("PAGES", {}).get("user", "")
    return role


def read_role_limit(role: str) -> int | None:
    """Its CONNECTION LIMIT, -1 for none; None where there is no such role. PostgreSQL only."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = %s", [role])
        row = cursor.fetchone()
    return None if row is None else row[0]

"""Whether the server has room for the budget of connections: checked at each start, if the database answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.db import Error, connection

from llm.db.connection_budget import (
    ConnectionBudget,
    ServerLimits,
    connection_budget,
    pages_role,
    read_role_limit,
    read_server_limits,
)

_LESS = "lower WEB_WORKERS, LLM_DB_THREADS, LLM_DB_PAGES, CELERY_WORKERS or CELERY_WORKER_CONCURRENCY"


@checks.register("llm", checks.Tags.database)
def check_connections(
    app_configs: Sequence[AppConfig] | None, *, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Silent while the database is unavailable: a gateway starts anyway, and /readyz reports it."""
    if "default" not in (databases or ()):
        return []
    was_open = connection.connection is not None
    try:
        return list(_findings())
    except Error:
        return []
    finally:
        if not was_open:
            connection.close()


def _findings() -> Iterator[checks.CheckMessage]:
    budget, limits, role = connection_budget(), read_server_limits(), pages_role()
    if limits.available is None:
        return
    pages_limit = read_role_limit(role) if role else budget.pages
    yield from _check_server(budget, limits.available, limits.database, extra=max(0, (pages_limit or 0) - budget.pages))
    yield from _check_role(budget, limits, has_pages_role=bool(role))
    if role:
        yield from _check_pages_role(budget, role, pages_limit)


def _check_server(
    budget: ConnectionBudget, available: int, database_limit: int, *, extra: int
) -> Iterator[checks.CheckMessage]:
    """extra: what the pages' role is allowed beyond its need, and might use."""
    needed = budget.total + extra
    shares = f"gateway {budget.gateway}, pages {budget.pages + extra}, workers {budget.workers}, spare {budget.spare}"
    if needed > available:
        yield checks.Error(
            f"All processes together may open {needed} connections ({shares}), but the server has {available} "
            f"for them; raise its max_connections by {needed - available}, or {_LESS}.",
            id="llm.E015",
        )
    if 0 <= database_limit < needed:
        yield checks.Error(
            f"All processes together may open {needed} connections ({shares}), but the database's CONNECTION LIMIT is "
            f"{database_limit}; raise it, or {_LESS}.",
            id="llm.E016",
        )


def _check_role(
    budget: ConnectionBudget, limits: ServerLimits, *, has_pages_role: bool
) -> Iterator[checks.CheckMessage]:
    needed = budget.total - (budget.pages if has_pages_role else 0)
    if 0 <= limits.role < needed:
        yield checks.Error(
            f"The role in DATABASE_URL needs {needed} connections, but its CONNECTION LIMIT is {limits.role}; "
            f"raise it, or {_LESS}.",
            id="llm.E017",
        )


def _check_pages_role(budget: ConnectionBudget, role: str, limit: int | None) -> Iterator[checks.CheckMessage]:
    if limit is None:
        yield checks.Error(f"DATABASE_PAGES_URL names the role {role}, which the server doesn't have.", id="llm.E018")
    elif limit < 0:
        yield checks.Warning(
            f"The role {role} in DATABASE_PAGES_URL has no CONNECTION LIMIT, so pages have no bound of their own; "
            f"ALTER ROLE {role} CONNECTION LIMIT {budget.pages}.",
            id="llm.W005",
        )
    elif limit < budget.pages:
        yield checks.Warning(
            f"The role {role} in DATABASE_PAGES_URL has a CONNECTION LIMIT of {limit}, but pages may need "
            f"{budget.pages}: at busy times some will be refused. Raise it, or lower LLM_DB_PAGES.",
            id="llm.W003",
        )

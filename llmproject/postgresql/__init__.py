"""Our PostgreSQL backend; see `base`."""

from __future__ import annotations

from contextvars import ContextVar

serves_page: ContextVar[bool] = ContextVar("serves_page", default=False)
"""Set for a request that Django serves. Its thread's connection is used for nothing else."""

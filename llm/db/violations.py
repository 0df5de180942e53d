"""Why a write was refused: another row with the same values, another transaction's lock, or something else."""

from __future__ import annotations

from django.db import IntegrityError, OperationalError

from llm.db.outages import sqlstate

_UNIQUE = "23505"
_SQLITE_UNIQUE = ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY")

_LOCKED = ("55P03", "40P01", "40001")
"""A lock that wasn't granted in time, a deadlock, and a serialisation failure."""


def is_unique_violation(error: IntegrityError) -> bool:
    """Whether a row with these values already exists, usually added since the form was validated."""
    return sqlstate(error) == _UNIQUE or getattr(error.__cause__, "sqlite_errorname", "") in _SQLITE_UNIQUE


def is_lock_conflict(error: OperationalError) -> bool:
    """Whether another transaction was in the way, and the same may work in a moment."""
    return sqlstate(error) in _LOCKED or getattr(error.__cause__, "sqlite_errorname", "").startswith("SQLITE_BUSY")

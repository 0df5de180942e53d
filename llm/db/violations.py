"""What a refused write ran into: somebody else's row with the same values, their lock, or something else."""

from __future__ import annotations

from django.db import IntegrityError, OperationalError

from llm.db.outages import sqlstate

_UNIQUE = "23505"
_SQLITE_UNIQUE = ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY")

_LOCKED = ("55P03", "40P01", "40001")
"""A lock that wasn't to be had in time, a deadlock, and what can't be put into an order with others."""


def is_unique_violation(error: IntegrityError) -> bool:
    """Whether a row with these values is there already: mostly one that was added since the check of the form."""
    return sqlstate(error) == _UNIQUE or getattr(error.__cause__, "sqlite_errorname", "") in _SQLITE_UNIQUE


def is_lock_conflict(error: OperationalError) -> bool:
    """Whether somebody else was in the way, and the same may work in a moment."""
    return sqlstate(error) in _LOCKED or getattr(error.__cause__, "sqlite_errorname", "").startswith("SQLITE_BUSY")

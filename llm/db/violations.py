"""What a refused write ran into: somebody else's row with the same values, or something else."""

from __future__ import annotations

from django.db import IntegrityError

from llm.db.outages import sqlstate

_UNIQUE = "23505"
_SQLITE_UNIQUE = ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY")


def is_unique_violation(error: IntegrityError) -> bool:
    """Whether a row with these values is there already: mostly one that was added since the check of the form."""
    return sqlstate(error) == _UNIQUE or getattr(error.__cause__, "sqlite_errorname", "") in _SQLITE_UNIQUE

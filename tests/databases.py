"""Marks of tests that only one kind of database can be asked."""

from __future__ import annotations

import pytest
from django.db import connection


def only_on_sqlite(reason: str) -> pytest.MarkDecorator:
    """reason: what PostgreSQL does otherwise."""
    return pytest.mark.skipif(connection.vendor != "sqlite", reason=reason)


def only_on_postgresql(reason: str) -> pytest.MarkDecorator:
    """reason: what SQLite does otherwise, or hasn't got."""
    return pytest.mark.skipif(connection.vendor != "postgresql", reason=reason)

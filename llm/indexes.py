"""Indexes that PostgreSQL and SQLite build in ways of their own."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.indexes import BrinIndex
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.ddl_references import Statement
from django.db.models import Index, Model


class BlockRangeIndex(BrinIndex):
    """For a column that grows with the table: BRIN on PostgreSQL, which a write hardly notices; ordinary on SQLite.

    BrinIndex alone won't do: SQLite doesn't know its parameters.
    """

    def create_sql(
        self, model: type[Model], schema_editor: BaseDatabaseSchemaEditor, using: str = "", **kwargs: Any
    ) -> Statement:
        if schema_editor.connection.vendor == "sqlite":
            return Index.create_sql(self, model, schema_editor, **kwargs)
        return super().create_sql(model, schema_editor, using, **kwargs)

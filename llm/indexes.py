"""Indexes that PostgreSQL and SQLite build differently."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.indexes import BrinIndex
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.ddl_references import Statement
from django.db.migrations import AddIndex
from django.db.migrations.state import ProjectState
from django.db.models import Index, Model


class BlockRangeIndex(BrinIndex):
    """For a column that grows with the table: BRIN on PostgreSQL, which hardly slows writes; an ordinary index on
    SQLite.

    BrinIndex alone isn't enough: SQLite doesn't know its parameters.
    """

    def create_sql(
        self, model: type[Model], schema_editor: BaseDatabaseSchemaEditor, using: str = "", **kwargs: Any
    ) -> Statement:
        if schema_editor.connection.vendor == "sqlite":
            return Index.create_sql(self, model, schema_editor, **kwargs)
        return super().create_sql(model, schema_editor, using, **kwargs)


class AddIndexMeanwhile(AddIndexConcurrently):
    """Like AddIndexConcurrently, for migrations that also run on SQLite. The migration must not be atomic."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        forwards = AddIndex if schema_editor.connection.vendor == "sqlite" else AddIndexConcurrently
        forwards.database_forwards(self, app_label, schema_editor, from_state, to_state)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        backwards = AddIndex if schema_editor.connection.vendor == "sqlite" else AddIndexConcurrently
        backwards.database_backwards(self, app_label, schema_editor, from_state, to_state)

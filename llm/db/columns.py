"""Columns added to large tables."""

from __future__ import annotations

from typing import cast

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import AddField
from django.db.migrations.state import ProjectState
from django.db.models import Model


class AddColumn(AddField):
    """Like AddField, for a field that is nullable or has a constant `db_default`: no row is touched, even on SQLite.

    Django would rebuild the whole table there, once per field, because it removes the default afterwards; with a
    default that stays in the database, the column can be added in place.
    """

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        if schema_editor.connection.vendor != "sqlite":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        model = cast("type[Model]", to_state.apps.get_model(app_label, self.model_name))
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            field = model._meta.get_field(self.name)
            BaseDatabaseSchemaEditor.add_field(schema_editor, model, field)  # type: ignore[arg-type]  # a column
